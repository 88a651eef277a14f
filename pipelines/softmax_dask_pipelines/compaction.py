"""A dump reduced to the k largest classes of each row: `score`, with the columns of a smaller dump."""

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from softmax_dask_pipelines.config import ScoreConfig, key_of, make_config, tell_both_ends
from softmax_dask_pipelines.job import prepare
from softmax_dask_pipelines.result import RunResult
from softmax_dask_pipelines.scoring import execute

if TYPE_CHECKING:
    from distributed import Client


def compact(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    k: int = 64,
    dtype: str = "float16",
    columns: Sequence[str] | None = None,
    temperature: float = 1.0,
    array: str | None = None,
    column: str | None = None,
    id: str | None = None,
    target: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    memory_limit: int | str | None = None,
    threads: int | None = None,
    replace: bool = False,
    cluster: str | Mapping[str, Any] = "local",
    client: "Client | None" = None,
) -> RunResult:
    """Reduce the logits at `source` to the k largest classes of each row, for distillation and audit.

    It is `score` with `verb: compact`: it goes on where it was stopped, and adds what is new. What else a config
    may say, `run(ScoreConfig(verb="compact", ...))` may.

    Parameters
    ----------
    source, output, temperature, array, column, id, target, storage_options, memory_limit, threads, replace, cluster,
    client : as of `score`
    k : classes of each row that are kept
    dtype : "float16", "float32" or "float64", of their log-probabilities
    columns : names in `softmax_dask.COLUMNS`
        Default: top_k_labels, top_k_log_probabilities, logsumexp, tail_mass, tail_divergence; with a target nll.

    Returns
    -------
    RunResult
        `facts()["mean_tail_divergence"]` is what was lost: the Kullback-Leibler divergence of a row, in nats, from the
        one that has the same k largest classes and the tail spread evenly over the others. Rounding to `dtype` is not
        in it.

    Raises
    ------
    UsageError, DataError, OutputExistsError, TemporaryError
        See `softmax_dask_pipelines.errors`; nothing is published, and an old output stays.
    """
    given: dict[str, Any] = {
        "verb": "compact",
        "source": {
            "path": fspath(source),
            "array": array,
            "column": column,
            "id": id,
            "target": target,
            "storage_options": storage_options,
        },
        "output": {"path": fspath(output), "dtype": dtype},
        "columns": None if columns is None else tuple(columns),
        "top_k": k,
        "temperature": temperature,
        "memory_limit": memory_limit,
        "threads": threads,
        "cluster": cluster,
    }
    tell_both_ends(given)
    job = prepare(make_config(ScoreConfig, given, key_of), has_client=client is not None)
    return execute(job, replace=replace, client=client)
