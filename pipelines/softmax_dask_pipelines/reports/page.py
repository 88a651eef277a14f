"""A report as one HTML file, or as Markdown: templates filled with what is known."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from softmax_dask_pipelines.reports import plots
from softmax_dask_pipelines.reports.curves import histogram_of, reliability_of, risk_coverage_of

_NONE = "–"  # noqa: RUF001, what typography has for nothing
_RATHER_AS_WRITTEN = ("#", "row", "label", "target", "correct", "rows", "classes")


def html_of(facts: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> str:
    """The page; it loads nothing from anywhere."""
    drawn = _plots(metrics, facts["calibration"])
    return _environment(html=True).get_template("report.html").render(plots=drawn, **_words(facts))


def markdown_of(facts: Mapping[str, Any]) -> str:
    """The same without plots."""
    return _environment(html=False).get_template("report.md").render(**_words(facts)).strip() + "\n"


def _words(facts: Mapping[str, Any]) -> dict[str, Any]:
    labels = _labels(facts)
    left_out = 0 if facts["classes"] is None else max(0, facts["classes_met"] - len(labels))
    return {"facts": facts, "tiles": _tiles(facts), "labels": labels, "labels_left_out": left_out}


def _environment(*, html: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("softmax_dask_pipelines.reports"),
        autoescape=html,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= _FILTERS
    return environment


def _plots(metrics: Mapping[str, Any] | None, calibration: Mapping[str, Any] | None) -> list[dict[str, str]]:
    drawn = []
    histogram = None if metrics is None else histogram_of(metrics)
    if histogram is not None and any(histogram.rows):
        certain = sum(histogram.rows[-2:]) / sum(histogram.rows)
        caption = f"Rows by confidence: {_percent(certain)} of them above 0.9."
        drawn.append({"svg": plots.histogram_svg(histogram), "caption": caption})
    lines = reliability_of(metrics, calibration)
    if lines:
        rows = f"{sum(lines[0].rows):,} labelled rows in 15 bins of confidence"
        caption = f"How often rows of a mean confidence are right: {rows}. Below the dotted line the model is too sure."
        drawn.append({"svg": plots.reliability_svg(lines), "caption": caption})
    curve = None if metrics is None else risk_coverage_of(metrics)
    if metrics is not None and curve is not None:
        caption = f"Share of wrong rows among the most confident ones; the area below is {_figure(_aurc(metrics))}."
        drawn.append({"svg": plots.risk_coverage_svg(curve), "caption": caption})
    return drawn


def _aurc(metrics: Mapping[str, Any]) -> float | None:
    found: float | None = metrics["figures"]["aurc"]
    return found


def _tiles(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """The figures that there are."""
    rows, figures = facts["rows"], facts["figures"]
    labelled = f"of {_count(rows['labelled'])} labelled rows"
    found = [
        ("rows", _count(rows["total"]), f"of {_count(rows['classes'])} classes"),
        ("undecidable", _count(rows["undecidable"]), "NaN, +inf or only -inf"),
        ("accuracy", figures["accuracy"], labelled),
        ("top-5 accuracy", (figures.get("top_k_accuracy") or {}).get("5"), ""),
        ("NLL", figures["nll"], "nat"),
        ("Brier score", figures.get("brier"), "0 to 2"),
        ("ECE", figures.get("ece"), "15 bins"),
        ("MCE", figures.get("mce"), ""),
        ("AURC", figures.get("aurc"), "risk over coverage"),
        ("mean confidence", figures["mean_confidence"], ""),
        ("mean entropy", figures["mean_entropy"], "nat"),
        ("mean tail mass", figures["mean_tail_mass"], "beyond the largest classes"),
        ("lost", figures["mean_tail_divergence"], "nat, mean divergence"),
    ]
    if figures.get("nll_is_infinite"):
        infinite = f"{_count(rows['infinite_nll'])} rows; {_figure(figures['finite_nll'])} without"
        found = [("NLL", "infinite", infinite) if name == "NLL" else (name, value, more) for name, value, more in found]
    return [
        {"name": name, "value": value if isinstance(value, str) else _figure(value), "more": more}
        for name, value, more in found
        if value is not None
    ]


def _labels(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """With the length of a bar: that of the largest share is all."""
    decided = (facts["rows"]["total"] or 0) - (facts["rows"]["undecidable"] or 0)
    if facts["classes"] is not None:
        labels = facts["classes"]
        if not facts["rows"]["labelled"]:
            labels = [{name: label[name] for name in ("name", "rows", "share")} for label in labels]
    else:
        labels = [
            {
                "name": str(top["label"]) if top["name"] is None else top["name"],
                "rows": top["rows"],
                "share": top["rows"] / decided,
            }
            for top in facts["top_labels"]
        ]
    most = max((label["share"] or 0 for label in labels), default=0) or 1
    return [{**label, "bar": round(100 * (label["share"] or 0) / most, 1)} for label in labels]


# ---- filters


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _count(value: int | None) -> str:
    return _NONE if value is None else f"{value:,}"


def _figure(value: float | None) -> str:
    return _NONE if value is None or math.isnan(value) else f"{value:.4g}"


def _rate(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.3g}%"


def _points(change: float) -> str:
    return f"{100 * change:+.2f} pp"


def _seconds(value: float | None) -> str:
    return _NONE if value is None else f"{value:,.2f} s"


def _bytes(count: float | None) -> str:
    from softmax_dask_pipelines.summary import size

    return _NONE if count is None else size(count)


def _cell(value: Any, name: str = "") -> str:
    if value is None or value == "":
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("bytes"):
        return _bytes(value)
    if isinstance(value, float):
        return _NONE if math.isnan(value) else f"{value:.6g}"
    return _count(value) if isinstance(value, int) and name in _RATHER_AS_WRITTEN[-2:] else str(value)


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _cell_text(text: str) -> str:
    """As it may stand in a table of Markdown."""
    escaped = "".join(f"\\{each}" if each in "\\|`*_<>[]#" else each for each in text)
    return " ".join(escaped.split())


_FILTERS: dict[str, Callable[..., str]] = {
    "base": _base,
    "count": _count,
    "figure": _figure,
    "rate": _rate,
    "percent": _percent,
    "points": _points,
    "seconds": _seconds,
    "bytes": _bytes,
    "cell": _cell,
    "plain": _plain,
    "cell_text": _cell_text,
}
