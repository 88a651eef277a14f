"""What README and docs show is what happens: sessions, commands, output and files."""

import doctest
import re
import shlex
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from softmax_dask import COLUMNS
from softmax_dask_pipelines import sample
from softmax_dask_pipelines.cli import main
from tests.pipelines.command import softmax_dask

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

NOT_RUN: dict[str, str] = {}
"""Examples that need what is not here, each with the reason."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which the demo has run, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(ROOT / "configs", folder / "configs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        found = CliRunner().invoke(main, ["demo"])
    assert found.exit_code == 0, found.output
    return folder, found.output


def without_times(text):
    """Nor the bytes written, which change with the compressor's version."""
    return re.sub(r"^time .*$|\(.* written\)", "", text, flags=re.MULTILINE)


def examples_of_page(path):
    """Commands in blocks of their own, in order, and then those in the running text."""
    fenced = re.compile(r"```.*?```", re.DOTALL)
    blocks, prose = "\n".join(fenced.findall(path.read_text())), fenced.sub("", path.read_text())
    return [
        *re.findall(r"^(?:\$ )?(softmax-dask .+)$", blocks, re.MULTILINE),
        *re.findall(r"`(softmax-dask [^`]+)`", prose),
    ]


def examples_of_help(verb):
    """Commands of a verb's help; of the group's, where there is no verb."""
    text = softmax_dask(*verb, "--help").out
    return re.findall(r"^ +(softmax-dask .+)$", text.partition("Example:")[2], re.MULTILINE)


EXAMPLES = {
    **{str(page.relative_to(ROOT)): examples_of_page(page) for page in PAGES},
    "--help": examples_of_help([]),
    **{f"{verb} --help": examples_of_help([verb]) for verb in main.list_commands(None)},
}
"""Where they stand -> commands, in order: some need what an earlier one wrote."""


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory):
    """A folder in which the demo has run, on 2000 rows."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "ROWS", 2000)
        patch.chdir(folder)
        assert softmax_dask("demo").code == 0
    return folder / "softmax-dask-demo"


@pytest.fixture
def user(small_demo, tmp_path, monkeypatch):
    """Puts a user into a folder with the demo's output, our configs, and the dumps that examples speak of."""
    shutil.copytree(small_demo, tmp_path / "softmax-dask-demo")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for name in ("logits.zarr", "logits.parquet"):
        (tmp_path / name).symlink_to(tmp_path / "softmax-dask-demo" / name)
    yesterday = datetime.now(UTC).date() - timedelta(1)
    for day in {"2026-11-25", str(yesterday), str(yesterday + timedelta(1))}:  # midnight may pass meanwhile
        (tmp_path / "dumps" / day).mkdir(parents=True)
        (tmp_path / "dumps" / day / "logits.zarr").symlink_to(tmp_path / "softmax-dask-demo" / "logits.zarr")
    monkeypatch.setenv("DUMPS", "dumps")
    monkeypatch.setenv("SCORES", "scores")
    monkeypatch.setattr(sample, "ROWS", 2000)
    monkeypatch.chdir(tmp_path)


def outcome_of(line):
    """Of one line as a shell would run it, `> file` included."""
    words = shlex.split(line, comments=True)[1:]
    command, redirected = (words[:-2], words[-1]) if ">" in words else (words, None)
    outcome = softmax_dask(*command)
    if redirected is not None:
        Path(redirected).write_text(outcome.out)
    return outcome


def test_readme_shows_what_the_demo_prints(demo):
    _, printed = demo

    shown = re.search(r"\$ make demo\n(.*?)```", README, re.DOTALL)[1]

    assert without_times(shown).strip() == without_times(printed).strip()


def test_readme_session_gives_what_it_shows(demo, monkeypatch):
    folder, _ = demo
    monkeypatch.chdir(folder)
    session = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))

    parsed = doctest.DocTestParser().get_doctest(session, {}, "README.md", "README.md", 0)
    found = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(parsed)

    assert found.attempted > 5
    assert found.failed == 0


@pytest.mark.parametrize("place", [place for place, lines in EXAMPLES.items() if lines])
@pytest.mark.usefixtures("user")
def test_examples_run(place):
    # Those with addresses are run beside a store: tests/pipelines/objects/test_object_docs.py.
    lines = [line for line in dict.fromkeys(EXAMPLES[place]) if line not in NOT_RUN and "s3://" not in line]

    outcomes = {line: outcome_of(line) for line in lines}

    assert {line: outcome.err for line, outcome in outcomes.items() if outcome.code} == {}


def test_examples_are_found():
    assert len(EXAMPLES["README.md"]) >= 8
    assert [place for place, lines in EXAMPLES.items() if place.endswith("--help") and not lines] == []


def test_an_example_that_is_not_run_is_still_shown():
    shown = {line for lines in EXAMPLES.values() for line in lines}

    assert [line for line in NOT_RUN if line not in shown] == []


@pytest.mark.parametrize("verb", main.list_commands(None))
def test_verb_has_help_with_an_example_and_stands_in_the_readme(verb):
    found = CliRunner().invoke(main, [verb, "--help"])

    assert found.exit_code == 0
    assert f"softmax-dask {verb}" in found.output
    assert f"softmax-dask {verb}" in README


@pytest.mark.parametrize("column", COLUMNS)
def test_column_stands_in_the_readme(column):
    assert f"`{column}`" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("name", ["softmax_dask", "pipelines/softmax_dask_pipelines"])
def test_design_page_names_every_module(name):
    design = (ROOT / "docs/design.md").read_text()
    modules = {path.stem for path in (ROOT / name).glob("*.py")} - {"__init__"}

    missing = [module for module in sorted(modules) if f"`{module}`" not in design]

    assert missing == []
