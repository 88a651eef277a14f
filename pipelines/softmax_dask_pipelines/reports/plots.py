"""Plots as SVG that stands in a page: no size of its own, and colours that the page's style decides."""

import re
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from softmax_dask_pipelines.reports.curves import Histogram, Reliability, RiskCoverage

_INCHES = (4.8, 3.4)
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--grid)",
    "#030303": "var(--first)",
    "#040404": "var(--second)",
    "#050505": "var(--third)",
    "#060606": "var(--card)",
}
"""What is drawn -> what the page has. Matplotlib takes no variables."""
_INK, _GRID, _FIRST, _SECOND, _THIRD, _CARD = _COLOURS

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and has the page's font
    "svg.hashsalt": "softmax-dask",
    "font.size": 9,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "hatch.color": _CARD,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def histogram_svg(histogram: Histogram) -> str:
    """Bars of rows by confidence; right and wrong ones apart."""

    def draw(axes: Any) -> None:
        bottom = [0] * len(histogram.correct)
        parts = (
            ("right", histogram.correct, _FIRST, None),
            ("wrong", histogram.wrong, _SECOND, "//"),
            ("no target", histogram.unlabelled, _THIRD, None),
        )
        width = histogram.edges[1]
        for name, counts, colour, hatch in parts:
            if any(counts):
                axes.bar(
                    histogram.edges[:-1],
                    counts,
                    width=0.86 * width,
                    align="edge",
                    bottom=bottom,
                    color=colour,
                    hatch=hatch,
                    linewidth=0,
                    label=name,
                )
                bottom = [a + b for a, b in zip(bottom, counts, strict=True)]
        axes.set(xlim=(0, 1), xlabel="confidence", ylabel="rows")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper left")

    return _svg("histogram", "Histogram of confidence", draw)


def reliability_svg(lines: Sequence[Reliability]) -> str:
    """Accuracy over mean confidence, beside the diagonal of a calibrated model."""

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":", label="calibrated")
        for line, colour, marker, dashes in zip(lines, (_SECOND, _FIRST), "os", ("--", "-"), strict=False):
            axes.plot(
                line.confidence,
                line.accuracy,
                color=colour,
                marker=marker,
                markersize=4.5,
                linewidth=1.4,
                linestyle=dashes,
                label=line.name,
            )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean confidence", ylabel="accuracy")
        axes.legend(loc="upper left")

    return _svg("reliability", "Reliability diagram", draw)


def risk_coverage_svg(curve: RiskCoverage) -> str:
    """Share of wrong rows over the share of rows that are accepted."""

    def draw(axes: Any) -> None:
        axes.plot(curve.coverage, curve.risk, color=_FIRST, linewidth=1.6)
        axes.fill_between(curve.coverage, curve.risk, color=_FIRST, alpha=0.15, linewidth=0)
        axes.set(xlim=(0, 1), xlabel="coverage: share of rows accepted", ylabel="risk: share of them wrong")
        axes.set_ylim(bottom=0)

    return _svg("risk", "Risk by coverage", draw)


def _svg(name: str, title: str, draw: Callable[[Any], None]) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_INCHES, layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        draw(axes)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return _for_a_page(text.getvalue(), name, title)


def _for_a_page(svg: str, name: str, title: str) -> str:
    """The element alone, its names unlike those of other plots, with a title for those who cannot see it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)  # its style would be that of the whole page
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None, f"matplotlib gives no viewBox: {head}"
    svg = f'<svg {box[0]} role="img" aria-labelledby="{name}-title"><title id="{name}-title">{title}</title>{rest}'
    svg = re.sub(r'(?<= )id="(?!\w+-title)([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:)?href="#([^"]+)"', rf'href="#{name}-\2"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    for drawn, variable in _COLOURS.items():
        svg = svg.replace(drawn, variable)
    return svg.strip()
