"""What README and docs show is what happens: sessions, commands, output and files."""

import doctest
import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from softmax_dask import COLUMNS
from softmax_dask_pipelines.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


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


def commands():
    """Commands of the README's block, in order: some need what an earlier one wrote."""
    block = re.search(r"## On the command line\n```\n(.*?)```", README, re.DOTALL)
    return [shlex.split(line)[1:] for line in block[1].splitlines()]


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


def test_readme_commands_run(demo, monkeypatch):
    folder, _ = demo
    monkeypatch.chdir(folder)

    outcomes = {" ".join(args): CliRunner().invoke(main, args) for args in commands()}

    assert len(outcomes) == 5
    assert {line: found.output for line, found in outcomes.items() if found.exit_code} == {}


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
