"""softmax-dask: logits at rest in, decisions at rest out.

The library: arrays in, arrays out. Importing it loads neither Numba nor Dask; a name is imported when it is used.
The pipelines (`score`, `run`, `open_logits`) live in `softmax_dask_pipelines`.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from softmax_dask.acceptance import ConfidenceCounts, ConfidenceThreshold, confidence_counts, find_threshold
    from softmax_dask.arrays import (
        decisions,
        log_softmax,
        logsumexp,
        softmax,
        top_k,
    )
    from softmax_dask.calibrating import calibrate
    from softmax_dask.calibration import (
        Calibration,
        class_shift,
        find_calibration,
    )
    from softmax_dask.calibration_sums import CalibrationCounter, CalibrationRead, CalibrationSums
    from softmax_dask.columns import COLUMNS, Column
    from softmax_dask.compiled import kernel
    from softmax_dask.conformal_sets import (
        ConformalCounts,
        ConformalLevel,
        ConformalRead,
        ConformalSearch,
        conformal_counts,
        exact_probabilities,
        fill_sets,
        most_classes,
    )
    from softmax_dask.errors import (
        CalibrationError,
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
    from softmax_dask.metrics_bytes import MetricsSum, metrics_from_bytes, metrics_to_bytes
    from softmax_dask.metrics_json import metrics_document, metrics_from_document
    from softmax_dask.nll_sums import shifted
    from softmax_dask.notices import SingleClassWarning, SoftmaxDaskWarning, TopKWarning
    from softmax_dask.sizes import BLOCK_BYTES, float_dtype, result_dtype
    from softmax_dask.split_keys import byte_keys, number_keys
    from softmax_dask.temperature_search import sampled_rows

_HOMES = {
    "BLOCK_BYTES": "sizes",
    "COLUMNS": "columns",
    "Calibration": "calibration",
    "CalibrationError": "errors",
    "CalibrationCounter": "calibration_sums",
    "CalibrationRead": "calibration_sums",
    "CalibrationSums": "calibration_sums",
    "ClassAxisError": "errors",
    "Column": "columns",
    "ColumnError": "errors",
    "ConfidenceCounts": "acceptance",
    "ConfidenceThreshold": "acceptance",
    "ConformalCounts": "conformal_sets",
    "ConformalLevel": "conformal_sets",
    "ConformalRead": "conformal_sets",
    "ConformalSearch": "conformal_sets",
    "DtypeError": "errors",
    "KernelFacts": "facts",
    "Metrics": "metrics",
    "MetricsCounter": "metrics",
    "MetricsError": "errors",
    "MetricsSum": "metrics_bytes",
    "OutputBufferError": "errors",
    "SingleClassWarning": "notices",
    "SoftmaxDaskError": "errors",
    "SoftmaxDaskWarning": "notices",
    "SplitClassAxisError": "errors",
    "TargetError": "errors",
    "TemperatureError": "errors",
    "TopKWarning": "notices",
    "UnsupportedArrayError": "errors",
    "VectorError": "errors",
    "byte_keys": "split_keys",
    "calibrate": "calibrating",
    "class_shift": "calibration",
    "confidence_counts": "acceptance",
    "confidence_edges": "metrics",
    "conformal_counts": "conformal_sets",
    "decisions": "arrays",
    "evaluate": "evaluation",
    "exact_probabilities": "conformal_sets",
    "fill_sets": "conformal_sets",
    "find_calibration": "calibration",
    "find_threshold": "acceptance",
    "float_dtype": "sizes",
    "jacobian": "jacobians",
    "jvp": "jacobians",
    "kernel": "compiled",
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
    "most_classes": "conformal_sets",
    "number_keys": "split_keys",
    "result_dtype": "sizes",
    "sampled_rows": "temperature_search",
    "shifted": "nll_sums",
    "softmax": "arrays",
    "top_k": "arrays",
    "vjp": "jacobians",
}

__all__ = [
    "BLOCK_BYTES",
    "COLUMNS",
    "Calibration",
    "CalibrationCounter",
    "CalibrationError",
    "CalibrationRead",
    "CalibrationSums",
    "ClassAxisError",
    "Column",
    "ColumnError",
    "ConfidenceCounts",
    "ConfidenceThreshold",
    "ConformalCounts",
    "ConformalLevel",
    "ConformalRead",
    "ConformalSearch",
    "DtypeError",
    "KernelFacts",
    "Metrics",
    "MetricsCounter",
    "MetricsError",
    "MetricsSum",
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
    "byte_keys",
    "calibrate",
    "class_shift",
    "confidence_counts",
    "confidence_edges",
    "conformal_counts",
    "decisions",
    "evaluate",
    "exact_probabilities",
    "fill_sets",
    "find_calibration",
    "find_threshold",
    "float_dtype",
    "jacobian",
    "jvp",
    "kernel",
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
    "most_classes",
    "number_keys",
    "result_dtype",
    "sampled_rows",
    "shifted",
    "softmax",
    "top_k",
    "vjp",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)  # asked for once
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
