"""Configs: values taken, lines named. Mistakes as people meet them are in test_mistakes."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from softmax_dask_pipelines.config import (
    ScoreConfig,
    key_of,
    make_config,
    output_format_of,
    read_class_names,
    read_config,
)
from softmax_dask_pipelines.errors import ConfigError

SMALLEST = {"source": {"path": "in.zarr"}, "output": {"path": "out.zarr"}}

TEXT = """\
# a comment
source:
  path: in.zarr

output:
  path: out.zarr     # and one here
  dtype: float16
columns:
  - label
  - entropy
temperature: 1.7
memory_limit: 2GiB
"""


def _file(folder: Path, text: str = TEXT) -> str:
    (folder / "run.yaml").write_text(text)
    return str(folder / "run.yaml")


def test_a_file_becomes_a_config(tmp_path):
    config = read_config(_file(tmp_path))

    assert config.source.path == "in.zarr"
    assert config.output.dtype == "float16"
    assert config.columns == ("label", "entropy")
    assert config.temperature == 1.7


def test_what_is_left_out_is_left_to_be_found_out():
    config = make_config(SMALLEST, key_of)

    assert config.model_dump(exclude_defaults=True) == SMALLEST
    assert (config.temperature, config.nonfinite) == (1.0, "propagate")


@pytest.mark.parametrize(
    ("given", "count"),
    [("2GiB", 2 << 30), ("500MB", 500_000_000), ("1.5 GiB", 3 << 29), ("4096", 4096), (4096, 4096)],
)
def test_memory_is_given_in_bytes_or_with_a_unit(given, count):
    assert make_config(SMALLEST | {"memory_limit": given}, key_of).memory_limit == count


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("temperature=2", lambda config: config.temperature == 2.0),
        ("output.path=other.parquet", lambda config: config.output.path == "other.parquet"),
        ("source.id=image", lambda config: config.source.id == "image"),
        ("columns=[margin, nll]", lambda config: config.columns == ("margin", "nll")),
        ("columns=null", lambda config: config.columns is None),
        ("source.target=a=b", lambda config: config.source.target == "a=b"),
    ],
)
def test_an_override_wins_over_the_file(tmp_path, override, read):
    assert read(read_config(_file(tmp_path), [override]))


def test_the_last_of_two_overrides_wins(tmp_path):
    assert read_config(_file(tmp_path), ["temperature=2", "temperature=3"]).temperature == 3.0


def test_an_override_may_give_a_section_that_the_file_lacks(tmp_path):
    path = _file(tmp_path, "source:\n  path: in.zarr\n")

    assert read_config(path, ["output.path=out.parquet"]).output.path == "out.parquet"


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ("  dtype: float16", "  dtype: int8", 7, "output.dtype"),
        ("  path: in.zarr", "  paths: in.zarr", 2, "source.path"),
        ("temperature: 1.7", "temperature: -1.7", 11, "temperature"),
        ("memory_limit: 2GiB", "memory_limit: 2 parsecs", 12, "memory_limit"),
        ("  - entropy", "  - entropie", 8, "columns"),
        ("  path: out.zarr ", "  path: [out.zarr]", 6, "output.path"),
    ],
)
def test_an_error_names_file_line_and_key(tmp_path, old, new, line, key):
    path = _file(tmp_path, TEXT.replace(old, new))

    with pytest.raises(ConfigError) as caught:
        read_config(path)

    assert str(caught.value).startswith(f"{path}:{line}: {key}: ")


def test_an_error_of_an_override_names_the_flag_and_no_line(tmp_path):
    with pytest.raises(ConfigError, match=r"^--set output\.dtype: is 'int8'; expected 'float16', "):
        read_config(_file(tmp_path), ["output.dtype=int8"])


def test_an_error_of_nested_dicts_names_the_key():
    with pytest.raises(ConfigError, match=r"^source\.dtype: is 'bf16'; expected 'bfloat16'\."):
        make_config({"source": {"path": "in.zarr", "dtype": "bf16"}, "output": {"path": "out.zarr"}}, key_of)


def test_a_config_cannot_be_changed():
    config = make_config(SMALLEST, key_of)

    with pytest.raises(ValidationError, match="frozen"):
        config.temperature = 2.0
    with pytest.raises(ValidationError, match="frozen"):
        config.output.path = "other.zarr"


def test_a_config_survives_a_round_trip_through_json():
    config = make_config(SMALLEST | {"columns": ["label"], "memory_limit": "2GiB"}, key_of)

    assert ScoreConfig.model_validate(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a.zarr", "zarr"), ("a.zarr/", "zarr"), ("a/b.parquet", "parquet"), ("a.pq", "parquet"), ("a", None)],
)
def test_the_ending_of_an_output_gives_its_format(path, expected):
    assert output_format_of(path) == expected


def test_a_format_beside_the_path_makes_any_ending_good():
    config = make_config(SMALLEST | {"output": {"path": "scores", "format": "parquet"}}, key_of)

    assert (config.output.path, config.output.format) == ("scores", "parquet")


@pytest.mark.parametrize(
    "text", ["cat\ndog\n", "cat\r\ndog\r\n", "cat\ndog", '["cat", "dog"]', '\n [\n"cat",\n"dog"]\n'],
    ids=["lines", "lines of Windows", "no last newline", "JSON", "JSON over lines"],
)  # fmt: skip
def test_class_names_are_lines_or_a_json_list(tmp_path, text):
    (tmp_path / "names").write_bytes(text.encode())

    assert read_class_names(str(tmp_path / "names")) == ("cat", "dog")


def test_class_names_are_taken_as_they_stand(tmp_path):
    (tmp_path / "names").write_text("yes\n1\n 鳥, eine\nnull\n", encoding="utf-8")

    assert read_class_names(str(tmp_path / "names")) == ("yes", "1", " 鳥, eine", "null")
