"""A kernel that is compiled soon, for processes of which one must be compiled."""

from softmax_dask import kernel


@kernel
def tripled(x):
    return x * 3
