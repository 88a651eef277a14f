"""Functions of others, compiled as the kernels of this package are."""

from collections.abc import Callable
from typing import Any


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function with Numba: it releases the GIL, divides as IEEE says, and its code is kept on disk.

    Parameters
    ----------
    function : of arrays and numbers, as Numba takes them
        Compiled when it is called with types that are new. Kept while its own file and this package's kernels are what
        they are, so that what it calls stands in one of them; of a function that was typed in, nothing is kept.

    Returns
    -------
    Numba's dispatcher, called as `function` is
    """
    from softmax_dask.kernels.cpu.compile import kernel as compiled  # late: it brings Numba

    return compiled(function)
