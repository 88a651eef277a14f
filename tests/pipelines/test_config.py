"""Configs: values taken, lines named. Mistakes as people meet them are in test_mistakes."""

import json
import re
from pathlib import Path
from time import process_time

import pytest
from pydantic import ValidationError

from softmax_dask_pipelines.config import (
    OutputConfig,
    ScoreConfig,
    SourceConfig,
    key_of,
    make_config,
    output_format_of,
    read_class_names,
    read_config,
)
from softmax_dask_pipelines.config_text import text_of_config
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
    config = make_config(ScoreConfig, SMALLEST, key_of)

    assert config.model_dump(exclude_defaults=True) == SMALLEST
    assert (config.temperature, config.nonfinite) == (1.0, "propagate")


@pytest.mark.parametrize(
    ("given", "count"),
    [("2GiB", 2 << 30), ("500MB", 500_000_000), ("1.5 GiB", 3 << 29), ("4096", 4096), (4096, 4096)],
)
def test_memory_is_given_in_bytes_or_with_a_unit(given, count):
    assert make_config(ScoreConfig, SMALLEST | {"memory_limit": given}, key_of).memory_limit == count


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("temperature=2", lambda config: config.temperature == 2.0),
        ("output.path=other.parquet", lambda config: config.output.path == "other.parquet"),
        ("source.id=image", lambda config: config.source.id == "image"),
        ("columns=[margin, nll]", lambda config: config.columns == ("margin", "nll")),
        ("columns=null", lambda config: config.columns is None),
        ("source.target=a=b", lambda config: config.source.target == "a=b"),
        ("source.path=2026-01-01", lambda config: config.source.path == "2026-01-01"),
    ],
)
def test_an_override_wins_over_the_file(tmp_path, override, read):
    assert read(read_config(_file(tmp_path), [override]))


@pytest.mark.parametrize("text", ["5:10", "1:30", ":10", "0:100", "'5:10'"])
def test_an_override_of_rows_needs_no_quotes_beyond_those_of_the_shell(tmp_path, text):
    path = _file(tmp_path, "verb: jacobian\nsource: {path: a}\noutput: {path: b.zarr}\n")

    assert read_config(path, [f"rows={text}"]).rows == text.strip("'")


def test_the_last_of_two_overrides_wins(tmp_path):
    assert read_config(_file(tmp_path), ["temperature=2", "temperature=3"]).temperature == 3.0


def test_an_override_may_give_a_section_that_the_file_lacks(tmp_path):
    path = _file(tmp_path, "source:\n  path: in.zarr\n")

    assert read_config(path, ["output.path=out.parquet"]).output.path == "out.parquet"


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ("  dtype: float16", "  dtype: int8", 7, "output.dtype"),
        ("  path: in.zarr", "  # path: in.zarr", 2, "source"),
        ("  path: in.zarr", "  paths: in.zarr", 3, "source.paths"),
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
        make_config(
            ScoreConfig, {"source": {"path": "in.zarr", "dtype": "bf16"}, "output": {"path": "out.zarr"}}, key_of
        )


def test_a_config_cannot_be_changed():
    config = make_config(ScoreConfig, SMALLEST, key_of)

    with pytest.raises(ValidationError, match="frozen"):
        config.temperature = 2.0
    with pytest.raises(ValidationError, match="frozen"):
        config.output.path = "other.zarr"


def test_a_config_survives_a_round_trip_through_json():
    config = make_config(ScoreConfig, SMALLEST | {"columns": ["label"], "memory_limit": "2GiB"}, key_of)

    assert ScoreConfig.model_validate(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a.zarr", "zarr"), ("a.zarr/", "zarr"), ("a/b.parquet", "parquet"), ("a.pq", "parquet"), ("a", None)],
)
def test_the_ending_of_an_output_gives_its_format(path, expected):
    assert output_format_of(path) == expected


def test_a_format_beside_the_path_makes_any_ending_good():
    config = make_config(ScoreConfig, SMALLEST | {"output": {"path": "scores", "format": "parquet"}}, key_of)

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


def _refused(folder: Path, text: str) -> str:
    """What the error says of a file with this text, after the file's name."""
    path = _file(folder, text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    return str(caught.value).removeprefix(path)


@pytest.mark.parametrize(
    ("value", "reading"),
    [
        ("no", "true or false"),
        ("Yes", "true or false"),
        ("on", "true or false"),
        ("OFF", "true or false"),
        ("1:30", "a number of base 60"),
        ("1:30.5", "a number of base 60"),
        ("0777", "an octal number"),
        ("2026-01-01", "a date"),
        ("2026-99-99", "a date"),
        ("2026-01-01 12:00:00", "a date"),
        ("=", "a default value"),
    ],
)
def test_text_that_yaml_reads_otherwise_is_refused_with_its_line_and_a_remedy(tmp_path, value, reading):
    said = _refused(tmp_path, TEXT.replace("out.zarr ", f"{value} "))

    assert said.startswith(f":6: output.path: is {value}, which YAML reads as {reading}; ")
    assert "in quotes" in said


@pytest.mark.parametrize("value", ["no", "1:30", "0777", "2026-01-01", "=", "<<", "7", "true", "null", "1e3"])
def test_the_same_text_in_quotes_is_taken(tmp_path, value):
    path = _file(tmp_path, TEXT.replace("path: in.zarr", f'path: "{value}"'))

    assert read_config(path).source.path == value


@pytest.mark.parametrize("value", ["7", "1.5", "true", "0x10"])
def test_a_number_where_text_is_expected_comes_with_the_remedy(tmp_path, value):
    said = _refused(tmp_path, TEXT.replace("path: in.zarr", f"path: {value}"))

    assert said.startswith(":3: source.path: is ")
    assert said.endswith("; expected text. Write it in quotes.")


@pytest.mark.parametrize("value", ["1:30", "0777", "yes"])
def test_a_number_that_yaml_reads_otherwise_is_refused(tmp_path, value):
    said = _refused(tmp_path, TEXT.replace("1.7", value))

    assert said.startswith(f":11: temperature: is {value}, which YAML reads as ")


@pytest.mark.parametrize(("value", "read"), [("1e3", 1000.0), ("1.0e+3", 1000.0), ("1_000", 1000.0), ("2", 2.0)])
def test_a_number_may_have_an_exponent(tmp_path, value, read):
    assert read_config(_file(tmp_path, TEXT.replace("1.7", value))).temperature == read


@pytest.mark.parametrize(("key", "line"), [("temperature", 13), ("threads", 13), ("top_k", 13)])
def test_true_is_no_number(tmp_path, key, line):
    text = TEXT.replace("temperature: 1.7\n", "\n") + f"{key}: true\n"

    assert _refused(tmp_path, text) == f":{line}: {key}: is True; expected a number."


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("in.zarr", "!!python/object/apply:os.getcwd []", 3),
        ("in.zarr", "!!str in.zarr", 3),
        ("1.7", "!mine 1.7", 11),
        ("columns:", "columns: !!set", 8),
    ],
)
def test_a_tag_is_refused_with_its_line(tmp_path, old, new, line):
    said = _refused(tmp_path, TEXT.replace(old, new))

    assert said.startswith(f":{line}: ")
    assert "is a tag; expected plain values" in said


def test_an_alias_is_refused_with_its_line(tmp_path):
    assert _refused(tmp_path, TEXT.replace("out.zarr ", "*path ")).startswith(":6: *path: is an alias; ")


def test_an_anchor_is_refused_with_its_line(tmp_path):
    said = _refused(tmp_path, TEXT.replace("in.zarr", "&path in.zarr"))

    assert said.startswith(":3: &path: is the anchor of an alias; ")


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path):
    assert _refused(tmp_path, TEXT + "temperature: 2\n").startswith(":13: temperature: stands twice; ")


def test_a_list_as_a_key_is_refused_with_its_line(tmp_path):
    assert _refused(tmp_path, TEXT + "? [a]\n: 1\n").startswith(":13: has a list or section as a key; ")


def test_a_key_that_yaml_reads_otherwise_is_refused_with_its_line(tmp_path):
    assert _refused(tmp_path, TEXT + "no: 1\n").startswith(":13: is no, which YAML reads as true or false; ")


@pytest.mark.parametrize("depth", [33, 60_000])
def test_deep_nesting_is_refused_before_it_is_built(tmp_path, depth):
    assert "lies deeper than 32 levels" in _refused(tmp_path, f"columns: {'[' * depth}")


def test_32_levels_are_yaml(tmp_path):
    said = _refused(tmp_path, TEXT + f"more: {'[' * 31}{']' * 31}\n")

    assert said.startswith(":13: more: is no key; ")


def test_a_file_of_more_than_64_kib_is_refused_unread(tmp_path):
    path = _file(tmp_path, "")
    with open(path, "wb") as file:
        file.truncate((1 << 16) + 1)  # zeros, which are no YAML: were they read, the error would be another

    with pytest.raises(ConfigError, match=r"is larger than 65,536 bytes; expected a config of a few lines\.$"):
        read_config(path)


@pytest.mark.parametrize("value", ["0x_", "9" * 5000], ids=["no digits", "too many digits"])
def test_digits_that_are_no_number_for_python_are_refused(tmp_path, value):
    assert "holds a number that cannot be read" in _refused(tmp_path, TEXT.replace("1.7", value))


@pytest.mark.parametrize("value", ["inf", "1e400", "nan"])
def test_memory_without_end_is_refused(tmp_path, value):
    assert _refused(tmp_path, TEXT.replace("2GiB", value)).startswith(":12: memory_limit: is ")


@pytest.mark.parametrize("value", ["0", "-1", "1000000000", "1.5", "many"])
def test_threads_are_a_count_within_reason(tmp_path, value):
    assert _refused(tmp_path, TEXT + f"threads: {value}\n").startswith(":13: threads: is ")


def test_a_section_that_is_text_is_refused_in_words(tmp_path):
    said = _refused(tmp_path, "source: in.zarr\noutput:\n  path: out.zarr\n")

    assert said == ":1: source: is 'in.zarr'; expected a section with keys of its own, such as path:."


def test_columns_that_are_no_list_are_refused_in_words(tmp_path):
    said = _refused(tmp_path, TEXT.replace("columns:\n  - label\n  - entropy", "columns: label"))

    assert said == ":8: columns: is 'label'; expected a list such as [label, confidence]."


def test_a_long_value_is_shown_in_part(tmp_path):
    assert len(_refused(tmp_path, TEXT.replace("1.7", "x" * 100_000))) < 400


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("source.id=no", "--set source.id: is no, which YAML reads as true or false; "),
        ("columns=[label", "--set columns: is no YAML: "),
        ("source.path=&a x", "--set source.path: &a: is the anchor of an alias; "),
        ("source.path=!!str x", "--set source.path: !!str: is a tag; "),
        ("source.path=0777", "--set source.path: is 0777, which YAML reads as an octal number; "),
        ("columns=[2026-01-01]", "--set columns: is 2026-01-01, which YAML reads as a date; "),
        ("threads=1:30", "--set threads: is '1:30'; expected a valid integer, "),
    ],
)
def test_an_override_that_is_no_plain_value_is_refused(tmp_path, override, said):
    with pytest.raises(ConfigError) as caught:
        read_config(_file(tmp_path), [override])

    assert str(caught.value).startswith(said)


FULL = {
    "source": {
        "path": "in: é, 'no' \"#\".zarr",
        "format": "zarr",
        "array": "no",
        "id": "2026-01-01",
        "target": "0777",
        "classes": "1:30",
        "class_axis": 0,
        "missing_chunks": "fill",
        "link": "sigmoid",
    },
    "output": {"path": "x" * 300 + " y.zarr", "dtype": "float16"},
    "columns": ["label", "margin", "entropy", "probabilities", "log_probabilities"],
    "temperature": 1e-300,
    "memory_limit": "2GiB",
    "threads": 3,
}


@pytest.mark.parametrize("data", [SMALLEST, FULL], ids=["smallest", "full"])
def test_a_config_written_as_yaml_is_read_as_itself(tmp_path, data):
    config = make_config(ScoreConfig, data, key_of)

    assert read_config(_file(tmp_path, text_of_config(config))) == config


def test_a_config_written_as_yaml_has_every_key_with_a_comment():
    text = text_of_config(make_config(ScoreConfig, SMALLEST, key_of))

    fields = [field for model in (SourceConfig, OutputConfig, ScoreConfig) for field in model.model_fields.items()]
    assert [key for key, _ in fields if not re.search(rf"^ *(# )?{key}:", text, re.MULTILINE)] == []
    assert [key for key, field in fields if f"# {field.description}\n" not in text] == []


# ---- Large files, and names that are not UTF-8

AT_THE_LIMIT = {
    "a list of words": "columns: [" + "a," * 32_000 + "]",
    "a list of lists": "columns: [" + "[]," * 21_000 + "]",
    "keys": "".join(f"key{i}: 1\n" for i in range(5000)),
    "comments": "#\n" * 32_000,
    "quoted": 'temperature: "' + "\\x41" * 16_000 + '"',
}


@pytest.mark.parametrize("text", AT_THE_LIMIT.values(), ids=AT_THE_LIMIT)
def test_a_file_near_the_limit_is_read_in_seconds(tmp_path, text):
    path = _file(tmp_path, text)
    begin = process_time()

    with pytest.raises(ConfigError):
        read_config(path)

    # Long enough for a slow machine, and too short for a file of a MiB, which was allowed once.
    assert process_time() - begin < 10


@pytest.mark.parametrize("data", [{"source": {"path": "a/\udcff.zarr"}}, {"output": {"path": "\udcff.zarr"}}])
def test_a_name_that_is_not_utf_8_is_refused_in_words(data):
    with pytest.raises(ConfigError, match=r"'.*\\udcff.zarr'; expected text that is UTF-8\. Rename the file, or give "):
        make_config(ScoreConfig, SMALLEST | data, key_of)


def test_a_device_without_an_end_is_refused():
    with pytest.raises(ConfigError, match=r"^/dev/zero: is larger than 65,536 bytes; expected a config"):
        read_config("/dev/zero")


def test_class_names_without_an_end_are_refused(monkeypatch):
    monkeypatch.setattr("softmax_dask_pipelines.config._NAMES_BYTES", 1000)

    with pytest.raises(
        ConfigError, match=r"^/dev/zero: is larger than 1,000 bytes; expected class names, one a line\.$"
    ):
        read_class_names("/dev/zero")
