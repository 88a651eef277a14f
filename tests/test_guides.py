"""The guides' Python runs, where what it needs is installed; the rest at least parses."""

import ast
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from softmax_dask_pipelines.cli import main

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
NOT_HERE = re.compile(r"\b(torch|jax|jnp|spark|vllm|llm|classifier)\b")
"""Frameworks that the tests do not install."""


def blocks(name):
    return re.findall(r"```python\n(.*?)```", (GUIDES / name).read_text(), re.DOTALL)


def runnable(name):
    return [code for code in blocks(name) if not NOT_HERE.search(code)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guides")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert CliRunner().invoke(main, ["demo"]).exit_code == 0
    return folder


@pytest.mark.parametrize("name", [path.name for path in sorted(GUIDES.glob("*.md"))])
def test_every_block_parses(name):
    parsed = [ast.parse(code) for code in blocks(name)]

    assert parsed


@pytest.mark.parametrize("number", range(len(runnable("writing-dumps.md"))))
def test_dump_of_the_guide_is_scored_without_a_word_of_advice(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(runnable("writing-dumps.md")[number], "writing-dumps.md", "exec"), {})
    [dump] = tmp_path.iterdir()

    found = CliRunner().invoke(main, ["score", dump.name, "out.parquet", "--columns", "label,label_name"])

    assert found.exit_code == 0, found.output
    assert "3,000 of 10 classes" in found.output


@pytest.mark.parametrize("number", range(len(runnable("reading-decisions.md"))))
def test_reader_of_the_guide_reads(number, demo, monkeypatch):
    monkeypatch.chdir(demo)
    names = {}

    exec(compile(runnable("reading-decisions.md")[number], "reading-decisions.md", "exec"), names)

    results = [
        value for name, value in names.items() if name in ("unsure", "shares", "worst", "of_bears", "mean", "joined")
    ]
    assert all(len(result) > 0 for result in results)
    assert results
