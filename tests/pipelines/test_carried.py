"""Hive folders scored to both formats: ids and keys stand beside the results, as readers of the output find them."""

import json
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr

from softmax_dask_pipelines import run, score
from softmax_dask_pipelines.config import ScoreConfig, key_of, make_config, read_config
from softmax_dask_pipelines.errors import ConfigError
from softmax_dask_pipelines.job import prepare
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask

ROWS = 40
FOLDERS = (("K%C3%B6ln%20Ost", "7"), ("K%C3%B6ln%20Ost", "12"), ("Ulm", "7"))
"""Site and hour of each file, in the order in which they are read."""
SITES = ["Köln Ost"] * 2 * ROWS + ["Ulm"] * ROWS
HOURS = [7] * ROWS + [12] * ROWS + [7] * ROWS
IDS = dumps.ids(3 * ROWS)
NULL = "__HIVE_DEFAULT_PARTITION__"


@pytest.fixture(autouse=True)
def small_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads, chunks and partitions of some ten rows, so that pieces of two files meet in one."""
    monkeypatch.setattr("softmax_dask_pipelines.sources.blocks.READ_BYTES", 260)
    monkeypatch.setattr("softmax_dask_pipelines.plan.CHUNK_BYTES", 260)
    monkeypatch.setattr("softmax_dask_pipelines.plan.PARTITION_BYTES", 2600)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return _hive(tmp_path / "dump", [f"site={site}/hour={hour}" for site, hour in FOLDERS])


@pytest.fixture(params=["zarr", "parquet"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"out.{request.param}"


def _hive(path: Path, folders: list[str], *, name: str = "id") -> Path:
    """A file of 40 rows in each folder, with ids in a column of that name."""
    data = dumps.logits(len(folders) * ROWS)
    for number, folder in enumerate(folders):
        rows = slice(number * ROWS, (number + 1) * ROWS)
        columns = {name: pa.array(dumps.ids(len(data))[rows]), "logits": dumps.lists(data[rows])}
        dumps.parquet_file(path / folder / "part-0.parquet", pa.table(columns))
    return path


def _read(output: Path) -> dict[str, list[Any]]:
    """All columns of one value a row, in the order of the rows."""
    if output.suffix == ".parquet":
        return dict(pq.read_table(output, partitioning=None).to_pydict())
    group = zarr.open_group(output, mode="r")
    return {name: group[name][:].tolist() for name in group.array_keys()}


@pytest.mark.parametrize("columns", [("label",), ("label", "probabilities")], ids=["narrow", "wide"])
def test_ids_and_keys_stand_beside_the_results(dump, output, columns):
    score(dump, output, columns=columns)

    found = _read(output)
    assert (found["id"], found["site"], found["hour"]) == (IDS, SITES, HOURS)


def test_the_ids_come_first_and_then_the_keys_as_in_the_path(dump, tmp_path):
    score(dump, tmp_path / "out.parquet", columns=("label",))

    assert list(_read(tmp_path / "out.parquet")) == ["id", "site", "hour", "label"]


def test_keys_alone_number_no_rows_so_there_is_a_row_column(tmp_path):
    dump = _hive(tmp_path / "dump", ["day=1", "day=2"], name="text")

    score(dump, tmp_path / "out.parquet", columns=("label",))

    found = _read(tmp_path / "out.parquet")
    assert list(found) == ["row", "day", "label"]
    assert found["row"] == list(range(2 * ROWS))


def test_a_key_that_is_the_id_is_carried_once(dump, tmp_path):
    score(dump, tmp_path / "out.parquet", columns=("label",), id="hour")

    found = _read(tmp_path / "out.parquet")
    assert list(found) == ["hour", "site", "label"]
    assert (found["hour"], found["site"]) == (HOURS, SITES)


def test_a_key_that_is_the_target_is_not_carried_beside_it(tmp_path, output):
    dump = _hive(tmp_path / "dump", ["truth=3/day=1", "truth=0/day=2"])

    score(dump, output, columns=("label",), target="truth")

    found = _read(output)
    assert "truth" not in found
    assert (found["target"], found["day"]) == ([0] * ROWS + [3] * ROWS, [2] * ROWS + [1] * ROWS)


def test_a_key_that_some_folders_do_not_have_is_null_or_empty(tmp_path, output):
    dump = _hive(tmp_path / "dump", ["a/day=3", f"b/day={NULL}", "c/hour=5"])

    score(dump, output, columns=("label",))

    found = _read(output)
    missing, days, hours = (None, 3, 5) if output.suffix == ".parquet" else ("", "3", "5")
    assert found["day"] == [days] * ROWS + [missing] * 2 * ROWS
    assert found["hour"] == [missing] * 2 * ROWS + [hours] * ROWS


def test_keys_go_with_the_rows_of_a_pattern(dump, output):
    score(dump / "site=*" / "hour=7", output, columns=("label",))

    assert _read(output)["site"] == ["Köln Ost"] * ROWS + ["Ulm"] * ROWS


class TestReaders:
    @pytest.fixture
    def folder(self, dump: Path, tmp_path: Path) -> Path:
        score(dump, tmp_path / "out.parquet", columns=("label", "probabilities"))
        return tmp_path / "out.parquet"

    def test_pyarrow_finds_text_and_int64(self, folder):
        table = ds.dataset(folder, partitioning="hive").to_table()

        assert table.schema.field("site").type == pa.dictionary(pa.int32(), pa.string())
        assert table.schema.field("hour").type == pa.int64()
        assert (table["site"].to_pylist(), table["hour"].to_pylist()) == (SITES, HOURS)

    def test_polars_finds_text_and_int64(self, folder):
        frame = pl.read_parquet(folder)

        assert frame["hour"].dtype == pl.Int64
        assert (frame["site"].cast(pl.String).to_list(), frame["hour"].to_list()) == (SITES, HOURS)

    def test_duckdb_finds_text_and_int64(self, folder):
        rows = duckdb.sql(
            f"select site, hour, typeof(site), typeof(hour) from '{folder}/*/*.parquet' "
            "order by filename, file_row_number"
        ).fetchall()

        assert rows == [(site, hour, "VARCHAR", "BIGINT") for site, hour in zip(SITES, HOURS, strict=True)]

    def test_xarray_finds_them_along_the_rows(self, dump, tmp_path):
        score(dump, tmp_path / "out.zarr", columns=("label", "probabilities"))

        with xr.open_zarr(tmp_path / "out.zarr") as dataset:
            dataset.load()

        assert (dataset["site"].dims, dataset["hour"].dims) == (("row",), ("row",))
        assert (dataset["site"].values.tolist(), dataset["hour"].values.tolist()) == (SITES, HOURS)
        assert dataset["hour"].dtype == "int64"

    def test_keys_take_a_few_bytes_a_row_group(self, folder):
        part = next(folder.glob("*/*.parquet"))
        group = pq.ParquetFile(part).metadata.row_group(0)
        columns = [group.column(i).to_dict() for i in range(group.num_columns)]

        encodings = {column["path_in_schema"]: column["encodings"] for column in columns}
        assert "RLE_DICTIONARY" in encodings["site"]
        assert "RLE_DICTIONARY" in encodings["hour"]
        assert "RLE_DICTIONARY" not in encodings["id"]


class TestInspect:
    def test_the_text_lists_ids_keys_and_their_types(self, dump):
        lines = softmax_dask("inspect", dump).out.splitlines()

        named = dict(line.split(maxsplit=1) for line in lines)
        assert (named["ids"], named["keys"]) == ("id", "site (string), hour (int64)")

    def test_json_has_the_type_of_everything_carried(self, dump):
        found = json.loads(softmax_dask("inspect", dump, "--json").out)

        assert found["id"] == "id"
        assert found["carried"] == {"id": "string", "site": "string", "hour": "int64"}


class TestPlan:
    def test_a_key_costs_a_row_its_text_and_a_few_numbers(self, tmp_path):
        plain = _hive(tmp_path / "plain", ["a", "b"])
        keyed = _hive(tmp_path / "keyed", ["site=Ulm", "site=Wien"])

        plans = [prepare(_config(source, tmp_path / "out.parquet")).plan for source in (plain, keyed)]

        assert plans[1].bytes_out - plans[0].bytes_out == 2 * ROWS * (16 + len("Wien"))


class TestRename:
    def test_the_output_has_the_new_names(self, dump, output):
        score(dump, output, columns=("label",), rename={"id": "image", "site": "place"})

        found = _read(output)
        assert (found["image"], found["place"], found["hour"]) == (IDS, SITES, HOURS)
        assert not {"id", "site"} & set(found)

    def test_two_names_may_be_swapped(self, dump, output):
        score(dump, output, columns=("label",), rename={"hour": "site", "site": "hour"})

        found = _read(output)
        assert (found["hour"], found["site"]) == (SITES, HOURS)

    @pytest.mark.parametrize("key", ["label", "target", "commit", "class"])
    def test_a_key_that_collides_is_exit_2_and_names_the_flag(self, tmp_path, key):
        dump = _hive(tmp_path / "dump", [f"{key}=1"])

        outcome = softmax_dask("score", dump, tmp_path / "out.parquet")

        assert outcome.code == 2
        assert f"Hive key: is {key!r}; expected a name that no column of the output has" in outcome.err
        assert f"Give it one: --rename {key}=NEW." in outcome.err

    @pytest.mark.parametrize("key", ["label", "target", "commit", "class"])
    def test_the_flag_mends_it(self, tmp_path, key):
        dump = _hive(tmp_path / "dump", [f"{key}=1"])

        outcome = softmax_dask("score", dump, tmp_path / "out.parquet", "--rename", f"{key}=given", "--quiet")

        assert outcome.code == 0, outcome.err
        assert _read(tmp_path / "out.parquet")["given"] == [1] * ROWS

    def test_inspect_says_that_score_would_refuse(self, tmp_path):
        dump = _hive(tmp_path / "dump", ["label=1"])

        outcome = softmax_dask("inspect", dump)

        assert outcome.code == 0, outcome.err
        assert "would refuse it: Hive key: is 'label'" in outcome.out

    def test_a_new_name_that_collides_is_refused(self, dump, output):
        with pytest.raises(ConfigError, match=r"Hive key: is 'id'; .* --rename site=NEW"):
            score(dump, output, rename={"site": "id"})

    def test_a_name_that_is_not_carried_comes_with_the_nearest(self, dump, output):
        with pytest.raises(ConfigError, match=r"rename: 'sit' is not carried .* one of id, site, hour\. .*'site'\?"):
            score(dump, output, rename={"sit": "place"})

    def test_ids_inside_a_group_go_by_their_path_or_its_last_part(self, tmp_path, output):
        source = dumps.zarr_group(tmp_path / "in.zarr", dumps.logits(), chunks=(10, 5))
        (source / "meta").mkdir()
        (source / "id").rename(source / "meta" / "id")

        score(source, output, columns=("label",), id="meta/id", rename={"id": "image"})

        assert _read(output)["image"] == dumps.ids()

    @pytest.mark.parametrize("flags", [["hour"], ["hour=a", "hour=b"]], ids=["no =", "twice"])
    def test_a_flag_that_is_no_pair_is_exit_2(self, dump, output, flags):
        arguments = [part for flag in flags for part in ("--rename", flag)]

        outcome = softmax_dask("score", dump, output, *arguments)

        assert outcome.code == 2
        assert outcome.err.startswith(f"Error: --rename: is {flags[-1]!r}; expected OLD=NEW")

    @pytest.mark.parametrize("flag", ["=a", "hour="])
    def test_a_name_must_not_be_empty(self, dump, output, flag):
        outcome = softmax_dask("score", dump, output, "--rename", flag)

        assert outcome.code == 2
        assert outcome.err.startswith("Error: --rename: is ''; expected at least 1 character")

    def test_flags_are_written_as_a_config_that_does_the_same(self, dump, output, tmp_path):
        flags = ("--rename", "site=no", "--rename", "hour=1: a", "--write-config", tmp_path / "run.yaml")

        outcome = softmax_dask("score", dump, output, *flags)

        assert outcome.code == 0, outcome.err
        assert read_config(str(tmp_path / "run.yaml")).output.rename == {"site": "no", "hour": "1: a"}
        run(str(tmp_path / "run.yaml"))
        assert _read(output)["no"] == SITES

    @pytest.mark.parametrize(
        ("rename", "expected"),
        [
            ("{1: a}", "2: output.rename: is 1; expected text. Write it in quotes."),
            ("{a: 1}", "2: output.rename.a: is 1; expected text. Write it in quotes."),
            ("[a]", "2: output.rename: is ['a']; expected"),
        ],
    )
    def test_a_config_with_a_wrong_name_is_refused_with_its_line(self, tmp_path, rename, expected):
        path = tmp_path / "run.yaml"
        path.write_text(f"source: {{path: in.zarr}}\noutput: {{path: out.zarr, rename: {rename}}}\n")

        outcome = softmax_dask("validate", path)

        assert outcome.code == 2
        assert outcome.err.startswith(f"Error: {path}:{expected}")


def _config(source: Path, output: Path) -> Any:
    return make_config(ScoreConfig, {"source": {"path": str(source)}, "output": {"path": str(output)}}, key_of)
