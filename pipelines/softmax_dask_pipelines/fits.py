"""`calibrate`, `threshold` and `conformal` of a dump from Python: the same code that the command line calls."""

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from softmax_dask_pipelines.config import CalibrateConfig, ConformalConfig, ThresholdConfig, key_of, make_config
from softmax_dask_pipelines.fitting import FitResult, execute, prepare
from softmax_dask_pipelines.scored_fitting import ScoredResult, prepare_scored
from softmax_dask_pipelines.scored_fitting import execute as execute_scored


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
        "source": source_section(
            source,
            source_format=source_format,
            array=array,
            column=column,
            column_prefix=column_prefix,
            source_dtype=source_dtype,
            id=id,
            target=target,
            classes=classes,
            class_axis=class_axis,
            missing_chunks=missing_chunks,
            nulls=nulls,
            settle=settle,
            link=link,
            storage_options=storage_options,
        ),
        "output": {"path": fspath(output)},
        "fit_on": fit_on,
        "train_priors": None if train_priors is None else fspath(train_priors),
        "target_priors": None if target_priors is None else fspath(target_priors),
        "memory_limit": memory_limit,
        "threads": threads,
    }
    return execute(prepare(make_config(CalibrateConfig, given, key_of)), replace=replace)


def threshold(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    precision: float,
    delta: float = 0.05,
    temperature: float = 1.0,
    calibration: str | PathLike[str] | None = None,
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
) -> FitResult | ScoredResult:
    """Find the lowest confidence from which on decisions are right often enough, and write it to `output`.

    `score(..., accept=output)` applies it.

    Parameters
    ----------
    source : a dump with targets, as for `calibrate`, or an output of `score` with confidence and correct
    precision : share of the accepted rows that must be right
    delta : how probable it may be that fewer are
    temperature, calibration : of the confidence; one of the two. An output of `score` has its own
    the others : as of `calibrate`

    Returns
    -------
    FitResult, ScoredResult
        Its `document` has the threshold, and what was found on the rows of the test.

    Raises
    ------
    NoFitError
        No threshold has that precision.
    UsageError, DataError, OutputExistsError, TemporaryError
        See `softmax_dask_pipelines.errors`; nothing is written.

    References
    ----------
    Angelopoulos et al. 2021, "Learn then Test", arXiv:2110.01052.
    """
    given: dict[str, Any] = {
        "verb": "threshold",
        "source": source_section(
            source,
            source_format=source_format,
            array=array,
            column=column,
            column_prefix=column_prefix,
            source_dtype=source_dtype,
            id=id,
            target=target,
            classes=classes,
            class_axis=class_axis,
            missing_chunks=missing_chunks,
            nulls=nulls,
            settle=settle,
            link=link,
            storage_options=storage_options,
        ),
        "output": {"path": fspath(output)},
        "precision": precision,
        "delta": delta,
        "temperature": temperature,
        "calibration": None if calibration is None else fspath(calibration),
        "memory_limit": memory_limit,
        "threads": threads,
    }
    config = make_config(ThresholdConfig, given, key_of)
    scored = prepare_scored(config)
    return execute(prepare(config), replace=replace) if scored is None else execute_scored(scored, replace=replace)


def conformal(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    alpha: float = 0.1,
    temperature: float = 1.0,
    calibration: str | PathLike[str] | None = None,
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
    """Find from which probability on a class must be in a row's set, and write it to `output`.

    `score(..., conformal=output)` applies it: sets that hold the true class as often as 1 - alpha.

    Parameters
    ----------
    alpha : how often the true class may be missing
    temperature, calibration : of the probabilities; one of the two
    the others : as of `calibrate`

    Returns
    -------
    FitResult
        Its `document` has the level, and coverage and size of the sets on rows that did not say it.

    Raises
    ------
    UsageError, DataError, OutputExistsError, TemporaryError
        See `softmax_dask_pipelines.errors`; nothing is written.

    References
    ----------
    Sadinle, Lei and Wasserman 2019, "Least Ambiguous Set-Valued Classifiers With Bounded Error Levels".
    """
    given: dict[str, Any] = {
        "verb": "conformal",
        "source": source_section(
            source,
            source_format=source_format,
            array=array,
            column=column,
            column_prefix=column_prefix,
            source_dtype=source_dtype,
            id=id,
            target=target,
            classes=classes,
            class_axis=class_axis,
            missing_chunks=missing_chunks,
            nulls=nulls,
            settle=settle,
            link=link,
            storage_options=storage_options,
        ),
        "output": {"path": fspath(output)},
        "alpha": alpha,
        "temperature": temperature,
        "calibration": None if calibration is None else fspath(calibration),
        "memory_limit": memory_limit,
        "threads": threads,
    }
    return execute(prepare(make_config(ConformalConfig, given, key_of)), replace=replace)


def source_section(
    source: str | PathLike[str],
    *,
    source_format: str | None,
    array: str | None,
    column: str | None,
    column_prefix: str | None,
    source_dtype: str | None,
    id: str | None,
    target: str | None,
    classes: str | PathLike[str] | None,
    class_axis: int | None,
    missing_chunks: str,
    nulls: str,
    settle: float,
    link: str,
    storage_options: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The section `source:` of a config."""
    return {
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
    }
