"""softmax-dask: logits at rest in, decisions at rest out.

The library: arrays in, arrays out. Importing it loads neither Numba nor Dask; a name is imported when it is used.
The pipelines (`score`, `run`, `open_logits`) live in `softmax_dask_pipelines`.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from softmax_dask.arguments import SingleClassWarning, TopKWarning
    from softmax_dask.arrays import (
        decisions,
        log_softmax,
        logsumexp,
        softmax,
        top_k,
    )
    from softmax_dask.columns import COLUMNS, Column
    from softmax_dask.errors import (
        ClassAxisError,
        ColumnError,
        DtypeError,
        OutputBufferError,
        SoftmaxDaskError,
        SplitClassAxisError,
        TargetError,
        TemperatureError,
        UnsupportedArrayError,
    )
    from softmax_dask.sizes import BLOCK_BYTES, float_dtype, result_dtype

_HOMES = {
    "BLOCK_BYTES": "sizes",
    "COLUMNS": "columns",
    "Column": "columns",
    "SingleClassWarning": "arguments",
    "SoftmaxDaskError": "errors",
    "ClassAxisError": "errors",
    "ColumnError": "errors",
    "DtypeError": "errors",
    "OutputBufferError": "errors",
    "SplitClassAxisError": "errors",
    "TargetError": "errors",
    "TemperatureError": "errors",
    "UnsupportedArrayError": "errors",
    "TopKWarning": "arguments",
    "decisions": "arrays",
    "float_dtype": "sizes",
    "log_softmax": "arrays",
    "logsumexp": "arrays",
    "result_dtype": "sizes",
    "softmax": "arrays",
    "top_k": "arrays",
}

__all__ = [
    "BLOCK_BYTES",
    "COLUMNS",
    "ClassAxisError",
    "Column",
    "ColumnError",
    "DtypeError",
    "OutputBufferError",
    "SingleClassWarning",
    "SoftmaxDaskError",
    "SplitClassAxisError",
    "TargetError",
    "TemperatureError",
    "TopKWarning",
    "UnsupportedArrayError",
    "__version__",
    "decisions",
    "float_dtype",
    "log_softmax",
    "logsumexp",
    "result_dtype",
    "softmax",
    "top_k",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
