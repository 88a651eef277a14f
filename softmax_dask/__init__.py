"""softmax-dask: logits at rest in, decisions at rest out.

The library: arrays in, arrays out. Importing it loads neither Numba nor Dask; a name is imported when it is used.
The pipelines (`score`, `run`, `open_logits`) live in `softmax_dask_pipelines`.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
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
        MetricsError,
        OutputBufferError,
        SoftmaxDaskError,
        SplitClassAxisError,
        TargetError,
        TemperatureError,
        UnsupportedArrayError,
        VectorError,
    )
    from softmax_dask.evaluation import evaluate
    from softmax_dask.facts import KernelFacts, kernel_facts, kernel_name
    from softmax_dask.jacobians import jacobian, jvp, log_softmax_jvp, log_softmax_vjp, vjp
    from softmax_dask.metrics import Metrics, MetricsCounter, confidence_edges, metric_columns
    from softmax_dask.metrics_bytes import metrics_from_bytes, metrics_to_bytes
    from softmax_dask.metrics_json import metrics_document, metrics_from_document
    from softmax_dask.notices import SingleClassWarning, SoftmaxDaskWarning, TopKWarning
    from softmax_dask.sizes import BLOCK_BYTES, float_dtype, result_dtype

_HOMES = {
    "BLOCK_BYTES": "sizes",
    "COLUMNS": "columns",
    "Column": "columns",
    "KernelFacts": "facts",
    "SingleClassWarning": "notices",
    "SoftmaxDaskWarning": "notices",
    "SoftmaxDaskError": "errors",
    "ClassAxisError": "errors",
    "ColumnError": "errors",
    "DtypeError": "errors",
    "Metrics": "metrics",
    "MetricsCounter": "metrics",
    "MetricsError": "errors",
    "OutputBufferError": "errors",
    "SplitClassAxisError": "errors",
    "TargetError": "errors",
    "TemperatureError": "errors",
    "UnsupportedArrayError": "errors",
    "VectorError": "errors",
    "TopKWarning": "notices",
    "confidence_edges": "metrics",
    "decisions": "arrays",
    "evaluate": "evaluation",
    "float_dtype": "sizes",
    "jacobian": "jacobians",
    "jvp": "jacobians",
    "kernel_facts": "facts",
    "kernel_name": "facts",
    "log_softmax": "arrays",
    "log_softmax_jvp": "jacobians",
    "log_softmax_vjp": "jacobians",
    "logsumexp": "arrays",
    "metric_columns": "metrics",
    "metrics_document": "metrics_json",
    "metrics_from_bytes": "metrics_bytes",
    "metrics_from_document": "metrics_json",
    "metrics_to_bytes": "metrics_bytes",
    "result_dtype": "sizes",
    "softmax": "arrays",
    "top_k": "arrays",
    "vjp": "jacobians",
}

__all__ = [
    "BLOCK_BYTES",
    "COLUMNS",
    "ClassAxisError",
    "Column",
    "ColumnError",
    "DtypeError",
    "KernelFacts",
    "Metrics",
    "MetricsCounter",
    "MetricsError",
    "OutputBufferError",
    "SingleClassWarning",
    "SoftmaxDaskError",
    "SoftmaxDaskWarning",
    "SplitClassAxisError",
    "TargetError",
    "TemperatureError",
    "TopKWarning",
    "UnsupportedArrayError",
    "VectorError",
    "__version__",
    "confidence_edges",
    "decisions",
    "evaluate",
    "float_dtype",
    "jacobian",
    "jvp",
    "kernel_facts",
    "kernel_name",
    "log_softmax",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "logsumexp",
    "metric_columns",
    "metrics_document",
    "metrics_from_bytes",
    "metrics_from_document",
    "metrics_to_bytes",
    "result_dtype",
    "softmax",
    "top_k",
    "vjp",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
