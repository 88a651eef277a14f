"""Warnings of the library, and the line that they point at."""

import warnings
from inspect import currentframe
from types import FrameType

_PACKAGE = __name__.partition(".")[0]


class SoftmaxDaskWarning(UserWarning):
    """Anything that softmax-dask warns of; the work goes on."""


class SingleClassWarning(SoftmaxDaskWarning):
    """Logits of one class: every probability is 1. A sigmoid may have been meant."""


class TopKWarning(SoftmaxDaskWarning):
    """More classes were asked for than there are."""


def warn_caller(text: str, category: type[SoftmaxDaskWarning]) -> None:
    """Warn, and point at the line that called this package: how deep we are hangs on the function and the array."""
    frame, level = currentframe(), 1
    while frame is not None and _is_ours(frame):
        frame, level = frame.f_back, level + 1
    # Level 1 is this function.
    warnings.warn(text, category, stacklevel=level)


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE
