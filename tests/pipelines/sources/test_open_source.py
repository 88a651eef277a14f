"""Which format is found, and what is said where there is none."""

import os
from pathlib import Path

import pytest

from softmax_dask_pipelines.errors import (
    ConfigError,
    PermissionDeniedError,
    SourceFormatError,
    SourceNotFoundError,
)
from softmax_dask_pipelines.sources import SourceRequest, open_source
from tests.pipelines import dumps


def test_a_missing_path_is_named_with_its_nearest_sibling(tmp_path: Path) -> None:
    dumps.zarr_array(tmp_path / "logits.zarr", dumps.logits())

    with pytest.raises(SourceNotFoundError, match=r"logit\.zarr.*Did you mean 'logits\.zarr'\?"):
        open_source(SourceRequest(str(tmp_path / "logit.zarr")))


def test_a_missing_folder_above_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"no 'nowhere' in .*Check the path"):
        open_source(SourceRequest(str(tmp_path / "nowhere" / "logits.zarr")))


def test_an_unreadable_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dumps.zarr_array(tmp_path / "logits.zarr", dumps.logits())
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything

    with pytest.raises(PermissionDeniedError, match=r"logits\.zarr: cannot be read.*Check its owner"):
        open_source(SourceRequest(str(path)))


def test_a_folder_of_something_else_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()

    with pytest.raises(SourceFormatError, match=r"notes\.txt; expected logits. Read are: a Zarr"):
        open_source(SourceRequest(str(tmp_path)))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "logits.csv").write_text("a,b\n")

    with pytest.raises(SourceFormatError, match=r"logits\.csv: is a file that is not Parquet.*Read are"):
        open_source(SourceRequest(str(tmp_path / "logits.csv")))


def test_parquet_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    table = dumps.parquet_table({"logits": dumps.lists(dumps.logits())})
    path = dumps.parquet_file(tmp_path / "dump.bin", table)

    assert open_source(SourceRequest(str(path))).facts.format == "parquet"


def test_hidden_and_private_parquet_files_are_not_data(tmp_path: Path) -> None:
    table = dumps.parquet_table({"logits": dumps.lists(dumps.logits())})
    dumps.parquet_file(tmp_path / "_staging" / "part-0.parquet", table)
    dumps.parquet_file(tmp_path / "part-0.parquet", table)

    assert open_source(SourceRequest(str(tmp_path))).facts.rows == 103


def test_a_file_url_is_a_local_path(tmp_path: Path) -> None:
    path = dumps.zarr_array(tmp_path / "logits.zarr", dumps.logits())

    assert open_source(SourceRequest(f"file://{path}")).facts.path == str(path)


def test_a_column_of_a_zarr_source_is_a_config_error(tmp_path: Path) -> None:
    path = dumps.zarr_array(tmp_path / "logits.zarr", dumps.logits())

    with pytest.raises(ConfigError, match=r"column: is 'x', but .*logits\.zarr is zarr.*use array"):
        open_source(SourceRequest(str(path), column="x"))


def test_a_format_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat.png").touch()

    with pytest.raises(SourceFormatError, match=r"holds no zarr\.json"):
        open_source(SourceRequest(str(tmp_path), format="zarr"))


@pytest.mark.parametrize("name", ["pipe", "pipe.npy", "pipe.parquet", "pipe.zip"])
def test_a_pipe_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)

    with pytest.raises(SourceNotFoundError, match="is a pipe, a socket or a device; expected logits in a file"):
        open_source(SourceRequest(str(tmp_path / name)))


def test_a_pipe_among_parquet_files_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "part-0.parquet")

    with pytest.raises(
        SourceFormatError, match=r"part-0\.parquet: is a pipe, a socket or a device; expected a Parquet"
    ):
        open_source(SourceRequest(str(tmp_path)))


def test_a_parquet_file_whose_name_is_not_utf_8_is_refused_with_a_remedy(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/part-\xff.parquet")).touch()

    with pytest.raises(ConfigError, match=r"is a name that is not UTF-8; expected one that is\. Rename it"):
        open_source(SourceRequest(str(tmp_path)))
