"""Reports of scored outputs: what they say, and that they say it in a real browser."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softmax_dask import decisions
from softmax_dask_pipelines import report, reporting, score
from softmax_dask_pipelines.errors import ConfigError, OutputExistsError, SourceFormatError, SourceNotFoundError
from softmax_dask_pipelines.reports.curves import histogram_of
from tests.pipelines import dumps
from tests.pipelines.command import run_alone, softmax_dask, tree
from tests.pipelines.reports import documents
from tests.pipelines.reports.browser import CHROMIUM, Browser, browser

ROWS, CLASSES = 400, 6
BAD = [3, 77, 200]
NASTY = '<script>alert("x")</script>'

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; apt-get install chromium")


@pytest.fixture
def data():
    made = np.random.default_rng(5).normal(scale=2, size=(ROWS, CLASSES)).astype(np.float32)
    made[BAD, 1] = np.nan
    return made


@pytest.fixture
def source(tmp_path, data):
    return dumps.zarr_group(tmp_path / "in.zarr", data, chunks=(50, CLASSES))


@pytest.fixture(params=["zarr", "parquet"])
def output(request, tmp_path, source):
    """A scored output, some partitions of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("softmax_dask_pipelines.plan.PARTITION_BYTES", 2400)
        path = tmp_path / f"out.{request.param}"
        score(source, path, columns=("label", "label_name", "confidence", "entropy"), durability="none")
    return path


@pytest.fixture
def evaluation(tmp_path, data):
    """A document of metrics of the dump."""
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(documents.metrics_of(data, dumps.targets(ROWS, CLASSES), [NASTY, *"bcdef"])))
    return path


@pytest.fixture
def calibration(tmp_path, data):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(documents.calibration_of(data, dumps.targets(ROWS, CLASSES))))
    return path


class Page(HTMLParser):
    """Texts of a page, and the problems that it has for those who cannot see it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def written(output: Path, path: Path, **options: Any) -> Page:
    report(output, path, **options)
    return Page(path.read_text())


def test_it_shows_the_figures_of_the_run_and_of_its_metrics(output, tmp_path, evaluation):
    page = written(output, tmp_path / "report.html", evaluation=evaluation)

    figures = json.loads(evaluation.read_text())["figures"]
    assert "400" in page.texts
    for name in ("accuracy", "nll", "brier", "ece", "mce", "mean_confidence"):
        assert f"{figures[name]:.4g}" in page.texts
    assert "3 of 400 rows hold NaN, +inf or only -inf. They have label -1, and are in no figure." in page.texts


@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_it_names_the_rows_that_are_most_and_least_certain(output, tmp_path, data, rows):
    found = report(output, tmp_path / "report.html", rows=rows).facts["extremes"]

    confidence = decisions(data, ("confidence",))["confidence"]
    order = np.argsort(confidence, kind="stable")
    order = order[~np.isnan(confidence[order])]
    falling = np.argsort(-confidence, kind="stable")
    falling = falling[~np.isnan(confidence[falling])]
    assert [row["#"] for row in found["least"]] == order[:rows].tolist()
    assert [row["#"] for row in found["most"]] == falling[:rows].tolist()
    assert [row["#"] for row in found["undecidable"]] == BAD[:rows]
    first = found["least"][0]
    assert first["id"] == dumps.ids(ROWS)[first["#"]]
    assert first["label"] == int(data[first["#"]].argmax())
    assert first["confidence"] == pytest.approx(float(confidence.astype(float)[order[0]]))


def test_the_metrics_are_those_that_the_runs_have_counted(output, tmp_path, evaluation):
    given = report(output, tmp_path / "given.html", evaluation=evaluation).facts

    found = report(output, tmp_path / "report.html", metrics=tmp_path / "metrics2.json").facts

    assert found["figures"] == given["figures"]
    assert [row["share"] for row in found["classes"]] == [row["share"] for row in given["classes"]]
    assert len(Page((tmp_path / "report.html").read_text()).attributes("svg")) == 3
    document = json.loads((tmp_path / "metrics2.json").read_text())
    assert document["figures"] == json.loads(evaluation.read_text())["figures"]


def test_labels_of_a_run_without_metrics_are_those_that_it_counted(output, tmp_path, data):
    [sidecar] = Path(f"{output}.job").glob("metrics-*.bin")
    sidecar.unlink()

    page = written(output, tmp_path / "report.html")

    shares = np.bincount(np.delete(data, BAD, axis=0).argmax(axis=1)) / (ROWS - len(BAD))
    assert f"{100 * shares.max():.3g}%" in page.texts
    assert not page.attributes("svg")


def test_the_shift_is_from_the_run_before(output, tmp_path, source, data):
    first = report(output, tmp_path / "first.html").facts
    assert first["shift"] is None
    biased = data + np.array([3, 0, 0, 0, 0, 0], np.float32)
    dumps.zarr_group(tmp_path / "other.zarr", biased, chunks=(50, CLASSES))
    score(tmp_path / "other.zarr", output, columns=("label", "confidence"), replace=True, durability="none")

    found = report(output, tmp_path / "second.html").facts["shift"]

    before, now = (
        np.bincount(np.delete(x, BAD, axis=0).argmax(axis=1), minlength=CLASSES) / (ROWS - len(BAD))
        for x in (data, biased)
    )
    assert found["distance"] == pytest.approx(np.abs(before - now).sum() / 2)
    assert found["run"] == first["run"]["run"]
    assert found["moved"][0]["name"] == "class 0"
    assert found["moved"][0]["now"] == pytest.approx(now[0])


def test_labels_are_compared_with_another_output_where_one_is_named(output, tmp_path, source):
    other = tmp_path / "other.parquet"
    score(source, other, columns=("label", "confidence"), durability="none")

    found = report(output, tmp_path / "report.html", previous=other).facts["shift"]

    assert (found["distance"], found["output"]) == (0.0, str(other))


def test_a_calibration_is_shown_before_and_after(output, tmp_path, evaluation, calibration):
    page = written(output, tmp_path / "report.html", evaluation=evaluation, calibration=calibration)

    known = json.loads(calibration.read_text())
    for when in ("before", "after"):
        assert f"{known[when]['ece']:.4g}" in page.texts
    assert {"before", "after", "calibrated"} <= set(page.texts)


def test_the_calibration_of_the_run_is_found_by_itself(output, tmp_path, calibration):
    [record] = Path(f"{output}.job", "runs").glob("*.json")
    document = json.loads(record.read_text())
    document["config"]["calibration"] = str(calibration)  # which `score --calibration` records
    record.write_text(json.dumps(document))

    other, same = json.loads(calibration.read_text()), json.loads(calibration.read_text()) | {"temperature": 1.0}
    calibration.write_text(json.dumps(other))
    assert report(output, tmp_path / "report.html").facts["calibration"] is None
    calibration.write_text(json.dumps(same))
    assert report(output, tmp_path / "report.html").facts["calibration"]["after"] == same["after"]


def test_an_ece_that_got_worse_is_said(output, tmp_path, calibration):
    worse = json.loads(calibration.read_text())
    worse["before"]["ece"], worse["after"]["ece"] = 0.01, 0.02
    calibration.write_text(json.dumps(worse))

    page = written(output, tmp_path / "report.html", calibration=calibration)

    assert "The calibration makes the ECE worse." in page.texts


def test_a_manifest_of_a_run_is_reported_as_that_run(output, tmp_path, source):
    [first] = Path(f"{output}.job", "runs").glob("*.json")
    score(source, output, columns=("label", "confidence"), replace=True, durability="none")

    found = report(first, tmp_path / "report.html").facts

    assert found["run"]["run"] == first.stem
    assert found["classes"] is None  # metrics are those of the last run


def test_a_run_that_failed_says_so(tmp_path, source):
    output = tmp_path / "out.zarr"
    with pytest.raises(Exception, match="nonfinite is error"):
        score(source, output, nonfinite="error", durability="none")
    [record] = Path(f"{output}.job", "runs").glob("*.json")

    page = written(record, tmp_path / "report.html")

    assert any(text.startswith("This run failed") for text in page.texts)


def test_names_and_ids_are_text_and_never_markup(output, tmp_path, evaluation):
    page = tmp_path / "report.html"

    report(output, page, evaluation=evaluation, markdown=True)

    assert "<script" not in page.read_text()
    assert NASTY in Page(page.read_text()).texts
    assert not re.search(r"(?<!\\)<script", page.with_suffix(".md").read_text())


def test_the_page_loads_nothing_and_says_what_may_be_loaded(output, tmp_path, evaluation):
    page = written(output, tmp_path / "report.html", evaluation=evaluation)

    assert not {"script", "img", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    links = [a[key] for _, a in page.tags for key in ("href", "src", "xlink:href") if a.get(key)]
    assert all(link.startswith(("#", "data:")) for link in links)
    policies = [a["content"] for a in page.attributes("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies[0].startswith("default-src 'none'")


def test_names_inside_the_page_are_unlike(output, tmp_path, evaluation, calibration):
    page = written(output, tmp_path / "report.html", evaluation=evaluation, calibration=calibration)

    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert sorted(ids) == sorted(set(ids))
    asked = {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a}
    assert asked <= set(ids)


def test_every_plot_and_table_has_a_name(output, tmp_path, evaluation):
    page = written(output, tmp_path / "report.html", evaluation=evaluation)

    assert len(page.attributes("svg")) == 3
    assert all(a["role"] == "img" and a["aria-labelledby"] for a in page.attributes("svg"))
    assert len(page.attributes("caption")) == len(page.attributes("table")) > 3
    assert all(a["scope"] in ("col", "row") for a in page.attributes("th"))


def test_bars_hold_every_decidable_row(evaluation):
    metrics = json.loads(evaluation.read_text())

    found = histogram_of(metrics)

    assert sum(found.rows) == ROWS - len(BAD)
    assert sum(found.correct) == metrics["rows"]["correct"]
    assert sum(found.correct) + sum(found.wrong) == metrics["rows"]["labelled"]


def test_the_same_facts_give_the_same_page(output, tmp_path, evaluation):
    pages = [tmp_path / "a.html", tmp_path / "b.html"]

    for page in pages:
        report(output, page, evaluation=evaluation)

    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_an_output_without_confidence_says_so(tmp_path, source):
    score(source, tmp_path / "out.zarr", columns=("label",), durability="none")

    page = written(tmp_path / "out.zarr", tmp_path / "report.html")

    assert ", so it is not known which rows are certain." in page.texts


def test_nothing_is_written_into_the_output(output, tmp_path):
    before = tree(output)

    report(output, tmp_path / "report.html", markdown=True)

    assert tree(output) == before


class TestMistakes:
    def test_a_path_that_no_run_has_written(self, tmp_path):
        with pytest.raises(SourceNotFoundError, match="no run is known that has written it"):
            report(tmp_path / "gone.zarr", tmp_path / "report.html")

    @pytest.mark.parametrize("name", ["report.pdf", "report", "scores.zarr"])
    def test_a_report_of_no_known_ending(self, output, tmp_path, name):
        with pytest.raises(ConfigError, match=r"expected a path that ends in \.html"):
            report(output, tmp_path / name)

    @pytest.mark.parametrize("suffix", ["", ".job"])
    def test_a_report_inside_the_output(self, output, suffix):
        with pytest.raises(ConfigError, match="lies inside"):
            report(output, Path(f"{output}{suffix}") / "report.html")

    def test_a_report_where_a_folder_is(self, output, tmp_path):
        (tmp_path / "report.html").mkdir()

        with pytest.raises(OutputExistsError, match="is a folder"):
            report(output, tmp_path / "report.html")

    @pytest.mark.parametrize("option", ["evaluation", "calibration"])
    @pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"kind": "metrics", "format": 99}'])
    def test_a_document_that_is_none(self, output, tmp_path, option, text):
        (tmp_path / "other.json").write_text(text)

        with pytest.raises(SourceFormatError, match=r"other\.json: is no"):
            report(output, tmp_path / "report.html", **{option: tmp_path / "other.json"})

        assert not (tmp_path / "report.html").exists()

    def test_an_address(self, tmp_path):
        with pytest.raises(ConfigError, match="in an object store"):
            report("s3://bucket/scores.zarr", tmp_path / "report.html")

    def test_packages_that_are_not_there_are_one_line(self, output, tmp_path, monkeypatch):
        monkeypatch.setattr(reporting, "find_spec", lambda name: None)

        outcome = softmax_dask("report", output, "-o", tmp_path / "report.html")

        assert outcome.code == 2
        assert outcome.err == (
            "Error: report: needs the packages jinja2 and matplotlib, which are not there. "
            "Install the extra: pip install 'softmax-dask[report]'.\n"
        )


class TestCommand:
    def test_it_says_what_it_has_written(self, output, tmp_path, evaluation):
        metrics = tmp_path / "found" / "metrics.json"

        outcome = softmax_dask(
            *("report", output, "-o", tmp_path / "new" / "report.html", "--markdown"),
            *("--evaluation", evaluation, "--metrics", metrics),
        )

        assert outcome.code == 0, outcome.err
        assert [line.rpartition("/")[2] for line in outcome.out.splitlines()] == [
            *("report.html: written", "report.md: written", "metrics.json: written")
        ]
        assert json.loads(metrics.read_text()) == json.loads(evaluation.read_text())

    def test_json_is_all_that_the_report_says(self, output, tmp_path):
        outcome = softmax_dask("report", output, "-o", tmp_path / "report.html", "--json", "--rows", 2)

        found = json.loads(outcome.out)
        assert found["rows"]["total"] == ROWS
        assert len(found["extremes"]["most"]) == 2

    def test_it_works_in_a_process_of_its_own(self, output, tmp_path):
        outcome = run_alone("report", output, "-o", tmp_path / "report.md")

        assert (outcome.code, outcome.err) == (0, "")
        assert re.search(r"^\| rows \| 400 \(of 6 classes\) \|$", (tmp_path / "report.md").read_text(), re.MULTILINE)

    def test_no_output_is_a_mistake_of_usage(self, output):
        outcome = softmax_dask("report", output)

        assert outcome.code == 2
        assert "Missing option '-o' / '--output'" in outcome.err


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@needs_chromium
@pytest.mark.slow
class TestInABrowser:
    """At the width of a desktop and of a phone, in light and in dark."""

    @pytest.fixture
    def page(self, tmp_path, source, evaluation, calibration):
        score(source, tmp_path / "out.zarr", columns=("label", "label_name", "confidence"), durability="none")
        report(tmp_path / "out.zarr", tmp_path / "r.html", evaluation=evaluation, calibration=calibration)
        return tmp_path / "r.html"

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [1280, 360])
    def test_it_shows_without_complaint_request_or_sideways_scrolling(self, chromium: Browser, page, width, scheme):
        chromium.open(page, width=width, scheme=scheme)

        picture = chromium.screenshot()

        assert picture.startswith(b"\x89PNG")
        assert chromium.complaints() == []
        assert chromium.requests() == []
        assert chromium.value("document.documentElement.scrollWidth") == width

    @pytest.mark.parametrize(("scheme", "media"), [("light", "screen"), ("dark", "screen"), ("dark", "print")])
    def test_text_can_be_read(self, chromium: Browser, page, scheme, media):
        chromium.open(page, width=1280, scheme=scheme, media=media)

        found = chromium.value(CONTRASTS)

        # WCAG 2.2, AA: 4.5 to 1.
        assert len(found) > 100
        assert [each for each in found if each["ratio"] < 4.5] == []

    def test_paper_is_white_also_after_dark(self, chromium: Browser, page):
        chromium.open(page, width=1280, scheme="dark")
        screen = chromium.value("getComputedStyle(document.body).backgroundColor")

        chromium.open(page, width=1280, scheme="dark", media="print")

        assert screen == "rgb(15, 18, 22)"
        assert chromium.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"

    @pytest.mark.parametrize("width", [1280, 360])
    def test_plots_are_as_wide_as_their_place_and_their_text_is_not_tiny(self, chromium: Browser, page, width):
        chromium.open(page, width=width)

        plots = chromium.value(PLOTS)

        assert len(plots) == 3
        assert all(plot["width"] >= min(300, width - 60) for plot in plots)
        assert all(plot["text"] >= 7.5 for plot in plots)


CONTRASTS = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      if (e.classList.contains("share")) return parse(getComputedStyle(e).getPropertyValue("--bar").replace(
        /^#(..)(..)(..)$/, (_, r, g, b) => [r, g, b].map((h) => parseInt(h, 16)).join(" ")));
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const leaves = [...document.querySelectorAll("body *")].filter(
    (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) && e.tagName !== "title");
  return leaves.map((e) => {
    const style = getComputedStyle(e);
    const ink = parse(e.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
    return {text: e.textContent.trim().slice(0, 40), ratio: (a + 0.05) / (b + 0.05)};
  });
})()
"""

PLOTS = """
[...document.querySelectorAll("svg")].map((svg) => ({
  width: svg.getBoundingClientRect().width,
  text: Math.min(...[...svg.querySelectorAll("text")].map((t) => parseFloat(getComputedStyle(t).fontSize)))
    * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width,
}))
"""
