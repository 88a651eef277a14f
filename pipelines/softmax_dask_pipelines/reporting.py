"""The report of a scored output: from what its runs have left beside it, and a few of its rows; never from logits."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from softmax_dask import MetricsError, metrics_from_document
from softmax_dask_pipelines import storage
from softmax_dask_pipelines.addresses import require_local
from softmax_dask_pipelines.errors import (
    ConfigError,
    OutputExistsError,
    PipelineError,
    SourceFormatError,
    SourceNotFoundError,
)
from softmax_dask_pipelines.ledger.history import Commit, History, commit_numbers, read_commit
from softmax_dask_pipelines.ledger.sidecars import metrics_of_commit
from softmax_dask_pipelines.reports.extremes import Extremes, columns_of, extremes_of
from softmax_dask_pipelines.reports.known import facts_of_report, manifest_before, manifest_in, manifest_of

_PACKAGES = ("jinja2", "matplotlib")
_PAGE, _TEXT = ".html", ".md"


@dataclass(frozen=True, slots=True)
class Report:
    """A report that is written."""

    paths: tuple[str, ...]
    facts: Mapping[str, Any]
    """All that it says, JSON types only."""


def report(
    output: str | PathLike[str],
    path: str | PathLike[str],
    *,
    markdown: bool = False,
    metrics: str | PathLike[str] | None = None,
    evaluation: str | PathLike[str] | None = None,
    calibration: str | PathLike[str] | None = None,
    previous: str | PathLike[str] | None = None,
    rows: int = 10,
) -> Report:
    """Write what is known of a scored output as one HTML file that loads nothing.

    Parameters
    ----------
    output : of `score` or `compact`, here; or the manifest of one of its runs, OUTPUT.job/runs/RUN.json
    path : of the report; ends in .html, or in .md for Markdown alone
    markdown : also write Markdown, beside the page
    metrics : also write the document of docs/metrics.md there
    evaluation : such a document, of `evaluate`; by default what the output's runs have counted
    calibration : what `calibrate` has written: its figures before and after are shown; by default that of the run's
        config, if it is still there
    previous : another output, whose labels are compared with; by default the run of this output before
    rows : how many of the most and of the least certain rows are shown

    Returns
    -------
    Report
        The files that were written, the page first.

    Raises
    ------
    ConfigError, SourceNotFoundError, SourceFormatError, OutputExistsError
        The packages of the extra `report` are missing; nothing is known of the output; a path is not as said above.
    """
    require_packages()
    folder, manifest = _output_and_manifest(fspath(output))
    targets = _targets(Path(path), markdown=markdown)
    written = [*targets, *([] if metrics is None else [Path(metrics)])]
    for target in written:
        _require_writable(target, folder)
    history = History.of(folder)
    found = _metrics(history, manifest, evaluation)
    facts = facts_of_report(
        str(folder),
        _commits(history),
        manifest,
        metrics=found,
        earlier=_earlier(folder, manifest, previous),
        calibration=_calibration_of_run(history, manifest) if calibration is None else _calibration(Path(calibration)),
        extremes=_extremes(history, folder, rows),
    )
    texts = {target: _text(target.suffix, facts, found) for target in targets}
    if metrics is not None:
        texts[Path(metrics)] = json.dumps(_known(found, folder), indent=1) + "\n"
    for target, text in texts.items():
        storage.make_folder(target.absolute().parent)
        storage.put(target, [text.encode()])
    return Report(tuple(map(str, texts)), facts)


def require_packages() -> None:
    """Refuse where the packages of the extra are missing.

    Raises
    ------
    ConfigError
        They are, and the message says how to get them.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        many = len(missing) > 1
        raise ConfigError(
            f"report: needs the package{'s' if many else ''} {' and '.join(missing)}, which {'are' if many else 'is'} "
            "not there. Install the extra: pip install 'softmax-dask[report]'."
        )


def _output_and_manifest(given: str) -> tuple[Path, Mapping[str, Any]]:
    """The output, and the record of the run that is reported: the last that published, or the one that was named."""
    require_local(given)
    path = Path(given.removeprefix("file://"))
    if path.suffix == ".json" and path.parent.name == "runs" and path.parents[1].suffix == ".job":
        job = path.parents[1]
        return job.with_name(job.name.removesuffix(".job")), manifest_in(path)
    found = manifest_of(str(path))
    if found is None:
        raise SourceNotFoundError(
            f"{path}: no run is known that has written it; expected an output of `score`, with {path}.job beside it. "
            "Check the path."
        )
    return path, found


def _targets(path: Path, *, markdown: bool) -> list[Path]:
    if path.suffix not in (_PAGE, _TEXT):
        raise ConfigError(f"--output: is {path}; expected a path that ends in .html, or in .md for Markdown alone.")
    return [path, path.with_suffix(_TEXT)] if markdown and path.suffix == _PAGE else [path]


def _require_writable(target: Path, output: Path) -> None:
    """Nothing of ours lies inside an output, and a folder is no file."""
    if target.is_dir():
        raise OutputExistsError(f"{target}: is a folder; expected a path for a file. Choose another one.")
    inside = {output.absolute(), output.with_name(f"{output.name}.job").absolute()}
    if inside & {target.absolute(), *target.absolute().parents}:
        raise ConfigError(f"{target}: lies inside {output}, or beside its runs; expected another place. Choose one.")


def _metrics(
    history: History, manifest: Mapping[str, Any], evaluation: str | PathLike[str] | None
) -> Mapping[str, Any] | None:
    """Those that are given, or what stands beside the last commit, if the run is the one that made it."""
    if evaluation is not None:
        return _evaluation(Path(evaluation))
    last = manifest_of(str(history.output))
    if history.latest is None or last is None or last["run"] != manifest["run"]:
        return None
    found = metrics_of_commit(history, history.latest)
    return None if found is None else found.document()


def _evaluation(path: Path) -> Mapping[str, Any]:
    found = _read_json(path)
    try:
        metrics_from_document(found)
    except (MetricsError, KeyError, TypeError, ValueError) as error:
        raise SourceFormatError(f"{path}: is no document of metrics ({error}); expected one of `evaluate`.") from error
    return found


def _known(metrics: Mapping[str, Any] | None, output: Path) -> Mapping[str, Any]:
    if metrics is None:
        raise ConfigError(f"{output}: has no metrics; expected the last run, with what it has counted. Score it again.")
    return metrics


def _calibration_of_run(history: History, manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """That which the run was told to apply; by now it may be gone, or another one."""
    told = manifest["config"].get("calibration")
    if not isinstance(told, str) or history.latest is None:
        return None
    try:
        found = _calibration(Path(told))
    except PipelineError:
        return None
    return found if found.get("temperature") == history.latest.plan.settings.get("temperature") else None


def _calibration(path: Path) -> Mapping[str, Any]:
    found = _read_json(path)
    if found.get("format") != "softmax-dask calibration" or not {"before", "after"} <= found.keys():
        raise SourceFormatError(
            f"{path}: is no calibration with figures of before and after; expected one of `calibrate`."
        )
    return found


def _read_json(path: Path) -> dict[str, Any]:
    with storage.plain_errors(path):
        if not path.is_file():
            raise SourceNotFoundError(f"{path}: is not there; expected a file. Check the path.")
        data = path.read_bytes()
    try:
        found = json.loads(data)
    except ValueError as error:
        raise SourceFormatError(f"{path}: is no JSON; expected what softmax-dask has written.") from error
    return found if isinstance(found, dict) else {}


def _commits(history: History) -> list[Commit]:
    """Those that the output is made of."""
    if history.latest is None:
        return []
    first = history.latest.plan.first
    return [read_commit(history.folder, number) for number in commit_numbers(history.folder) if number >= first]


def _earlier(
    output: Path, manifest: Mapping[str, Any], previous: str | PathLike[str] | None
) -> Mapping[str, Any] | None:
    if previous is None:
        return manifest_before(str(output), manifest)
    found = manifest_of(fspath(previous))
    if found is None:
        raise SourceNotFoundError(f"{previous}: no run is known that has written it; expected an output of `score`.")
    return found


def _extremes(history: History, output: Path, rows: int) -> Extremes | None:
    """Rows with what identifies them; None where there is no output, as of a run that failed."""
    if history.latest is None or not output.exists():
        return None
    carried = [name for _, name, _ in history.latest.plan.settings.get("carried", [])]
    columns = columns_of(output)
    return extremes_of(columns, (*carried, "row", "label_name", "label", "target", "correct", "accept"), rows)


def _text(suffix: str, facts: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> str:
    from softmax_dask_pipelines.reports import page

    return page.html_of(facts, metrics) if suffix == _PAGE else page.markdown_of(facts)
