"""The application on top of softmax-dask: dumps of logits in, decisions out.

`score(source, output)`, `run("config.yaml")`, `status(output)` and `verify(output)` do what the command line does;
`open_logits(path)` gives a Dask array, `open_compact(path)` those of what `compact` has written.
Importing this package loads nothing heavy; a name is imported when it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softmax_dask_pipelines.compacted import Compacted, open_compact
    from softmax_dask_pipelines.compaction import compact
    from softmax_dask_pipelines.config import (
        CalibrateConfig,
        ConformalConfig,
        EvaluateConfig,
        JacobianConfig,
        ScoreConfig,
        ThresholdConfig,
    )
    from softmax_dask_pipelines.errors import PipelineError
    from softmax_dask_pipelines.evaluating import Evaluation, evaluate
    from softmax_dask_pipelines.fits import calibrate, conformal, threshold
    from softmax_dask_pipelines.fitting import FitResult
    from softmax_dask_pipelines.jacobians import JacobianResult, write_jacobian
    from softmax_dask_pipelines.logits import open_logits
    from softmax_dask_pipelines.output_status import status
    from softmax_dask_pipelines.reporting import Report, report
    from softmax_dask_pipelines.result import RunResult
    from softmax_dask_pipelines.running import run
    from softmax_dask_pipelines.scoring import score
    from softmax_dask_pipelines.verifying import Verified, verify

# No module may bear the name of a function here: importing it would put it in the function's place.
_HOMES = {
    "CalibrateConfig": "config",
    "Compacted": "compacted",
    "ConformalConfig": "config",
    "EvaluateConfig": "config",
    "Evaluation": "evaluating",
    "FitResult": "fitting",
    "JacobianConfig": "config",
    "JacobianResult": "jacobians",
    "PipelineError": "errors",
    "Report": "reporting",
    "RunResult": "result",
    "ScoreConfig": "config",
    "ThresholdConfig": "config",
    "Verified": "verifying",
    "calibrate": "fits",
    "compact": "compaction",
    "conformal": "fits",
    "evaluate": "evaluating",
    "open_compact": "compacted",
    "open_logits": "logits",
    "report": "reporting",
    "run": "running",
    "score": "scoring",
    "status": "output_status",
    "threshold": "fits",
    "verify": "verifying",
    "write_jacobian": "jacobians",
}

__all__ = [
    "CalibrateConfig",
    "Compacted",
    "ConformalConfig",
    "EvaluateConfig",
    "Evaluation",
    "FitResult",
    "JacobianConfig",
    "JacobianResult",
    "PipelineError",
    "Report",
    "RunResult",
    "ScoreConfig",
    "ThresholdConfig",
    "Verified",
    "calibrate",
    "compact",
    "conformal",
    "evaluate",
    "open_compact",
    "open_logits",
    "report",
    "run",
    "score",
    "status",
    "threshold",
    "verify",
    "write_jacobian",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
