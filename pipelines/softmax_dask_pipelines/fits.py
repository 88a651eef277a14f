"""`calibrate` of a dump from Python: the same code that the command line calls."""

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from softmax_dask_pipelines.config import CalibrateConfig, key_of, make_config
from softmax_dask_pipelines.fitting import FitResult, execute, prepare


def calibrate(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    fit_on: str = "half",
    train_priors: str | PathLike[str] | None = None,
    target_priors: str | PathLike[str] | None = None,
    source_format: str | None = None,
    array: str | None = None,
    column: str | None = None,
    column_prefix: str | None = None,
    source_dtype: str | None = None,
    id: str | None = None,
    target: str | None = None,
    classes: str | PathLike[str] | None = None,
    class_axis: int | None = None,
    missing_chunks: str = "error",
    nulls: str = "error",
    settle: float = 60.0,
    link: str = "softmax",
    storage_options: Mapping[str, Any] | None = None,
    memory_limit: int | str | None = None,
    threads: int | None = None,
    replace: bool = False,
) -> FitResult:
    """Find the temperature at which the dump's logits have the least NLL, and write it to `output`, a JSON document.

    `score(..., calibration=output)` applies it. The dump is read about three times, in bounded memory.

    Parameters
    ----------
    source : Zarr group or array, Parquet file or folder of files, or .npy, local or s3://bucket/key
        Logits, (rows, classes), with targets beside them.
    output : a path where nothing is yet
    fit_on : "half" of the rows, by a hash of their ids or numbers, and the report is of the other half; or "all"
    train_priors, target_priors : files of a number a class, one a line or a JSON list
        How frequent each class was where the model learned, and is where it is used, as in this dump: log(target /
        train) is added to the logits once divided.
    array, column, column_prefix, id, target, classes, class_axis, missing_chunks, nulls, settle, link,
    source_format, source_dtype, storage_options, memory_limit, threads : as of `score`
    replace : a document that is there is replaced

    Returns
    -------
    FitResult
        Its `document` has the temperature, and NLL, ECE and reliability before and after.

    Raises
    ------
    UsageError, DataError, OutputExistsError, TemporaryError
        See `softmax_dask_pipelines.errors`; nothing is written.
    """
    given: dict[str, Any] = {
        "verb": "calibrate",
        "source": {
            "path": fspath(source),
            "format": source_format,
            "array": array,
            "column": column,
            "column_prefix": column_prefix,
            "dtype": source_dtype,
            "id": id,
            "target": target,
            "classes": None if classes is None else fspath(classes),
            "class_axis": class_axis,
            "missing_chunks": missing_chunks,
            "nulls": nulls,
            "settle": settle,
            "link": link,
            "storage_options": storage_options,
        },
        "output": {"path": fspath(output)},
        "fit_on": fit_on,
        "train_priors": None if train_priors is None else fspath(train_priors),
        "target_priors": None if target_priors is None else fspath(target_priors),
        "memory_limit": memory_limit,
        "threads": threads,
    }
    return execute(prepare(make_config(CalibrateConfig, given, key_of)), replace=replace)
