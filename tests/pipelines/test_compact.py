"""Dumps reduced to the k largest classes of each row, and made whole again."""

import json
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from numpy.typing import NDArray
from scipy.special import log_softmax, rel_entr

from softmax_dask_pipelines import ScoreConfig, compact, open_compact, run, score
from softmax_dask_pipelines.errors import ConfigError, OutputExistsError, SourceFormatError, SourceNotFoundError
from softmax_dask_pipelines.ledger.history import History
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask

K = 4
CLASSES = 40
BAD = [7, 50, 60]
COLUMNS = ["top_k_labels", "top_k_log_probabilities", "logsumexp", "tail_mass", "tail_divergence", "nll"]


@pytest.fixture(autouse=True)
def small_plan(monkeypatch):
    """Reads, chunks and partitions of some rows: what a dump of millions of rows would have of thousands."""
    monkeypatch.setattr("softmax_dask_pipelines.sources.blocks.READ_BYTES", 2400)
    monkeypatch.setattr("softmax_dask_pipelines.plan.CHUNK_BYTES", 2400)
    monkeypatch.setattr("softmax_dask_pipelines.plan.PARTITION_BYTES", 6000)


@pytest.fixture
def data():
    """Float16 logits of which some rows are undecidable and some classes masked."""
    made = np.random.default_rng(3).normal(scale=2.5, size=(103, CLASSES)).astype(np.float16)
    made[BAD, -1] = np.nan, np.inf, np.nan
    made[::9, 1] = -np.inf
    return made


@pytest.fixture(params=["zarr", "parquet"])
def source(request, tmp_path, data):
    """A dump with ids, targets and class names."""
    if request.param == "zarr":
        return dumps.zarr_group(tmp_path / "in.zarr", data, chunks=(10, CLASSES))
    table = dumps.parquet_table({"logits": dumps.fixed_lists(data)})
    return dumps.parquet_file(tmp_path / "in.parquet", table.replace_schema_metadata({}), row_group_size=10)


@pytest.fixture(params=["zarr", "parquet"])
def output(request, tmp_path):
    return tmp_path / f"out.{request.param}"


def truth(data: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """By the definitions, in float64; rows that are undecidable are NaN."""
    wide = np.where(np.isfinite(data.max(axis=1, keepdims=True)), data.astype(np.float64), np.nan)
    logs = log_softmax(wide, axis=1)
    labels = np.argsort(-data.astype(np.float64), axis=1, kind="stable")[:, :K]
    spread = np.exp(logs)
    np.put_along_axis(spread, labels, 0, axis=1)
    mass = spread.sum(axis=1)
    even = np.repeat(mass[:, None] / (CLASSES - K), CLASSES, axis=1)
    np.put_along_axis(even, labels, np.take_along_axis(np.exp(logs), labels, axis=1), axis=1)
    return {
        "labels": labels,
        "logs": np.take_along_axis(logs, labels, axis=1),
        "mass": mass,
        "lost": rel_entr(np.exp(logs), even).sum(axis=1),
        "rows": np.log(even),
    }


def columns_in(path: Path) -> dict[str, Any]:
    if path.suffix == ".zarr":
        group: Any = zarr.open_group(path, mode="r")
        return {name: group[name] for name in group}
    table = pq.read_table(path)
    return {name: table[name] for name in table.column_names}


def decided(values: Any) -> NDArray[Any]:
    return np.delete(np.asarray(values), BAD, axis=0)


def test_what_is_kept_is_what_the_definitions_say(source, output, data):
    compact(source, output, k=K)

    found, expected = open_compact(output), truth(data)
    assert np.array_equal(decided(found.labels), decided(expected["labels"]))
    # Half a unit of float16's last place, relative.
    np.testing.assert_allclose(decided(found.log_probabilities), decided(expected["logs"]), rtol=2**-11 + 1e-6)
    np.testing.assert_allclose(decided(found.tail_mass), decided(expected["mass"]), rtol=1e-6)
    np.testing.assert_allclose(decided(found.columns["tail_divergence"]), decided(expected["lost"]), atol=2e-6)
    assert (np.asarray(found.labels)[BAD] == -1).all()
    assert np.isnan(np.asarray(found.tail_mass)[BAD]).all()


def test_it_has_the_columns_of_a_smaller_dump_and_what_is_carried(source, output):
    compact(source, output, k=K)

    found = set(columns_in(output)) - {"class", "commit"}
    assert found == {*COLUMNS, "id", "target"}


def test_the_divergence_that_was_lost_is_stated(source, output, data):
    result = compact(source, output, k=K)

    expected = decided(truth(data)["lost"]).mean()
    assert abs(result.facts()["mean_tail_divergence"] - expected) <= 2e-6
    figures = History.of(output).latest.result
    assert figures["mean_tail_divergence"] == result.facts()["mean_tail_divergence"]


def test_what_was_lost_is_of_all_rows_also_after_a_run_that_added_some(tmp_path, output, data):
    source = dumps.zarr_array(tmp_path / "in.zarr", data[:70], chunks=(10, CLASSES))
    compact(source, output, k=K)
    array: Any = zarr.open_array(source)
    array.resize(data.shape)
    array[70:] = data[70:]

    compact(source, output, k=K)

    lost = open_compact(output).lost
    assert isinstance(lost, da.Array)
    assert abs(float(lost) - decided(truth(data)["lost"]).mean()) <= 2e-6


def test_whole_rows_come_back_lazily_with_the_tail_spread_evenly(source, output, data):
    compact(source, output, k=K, dtype="float32")

    rows = open_compact(output).expand()

    assert isinstance(rows, da.Array)
    assert (rows.shape, rows.dtype) == (data.shape, np.float32)
    found = rows.compute()
    np.testing.assert_allclose(decided(found), decided(truth(data)["rows"]), rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(np.exp(decided(found).astype(float)).sum(axis=1), 1, atol=1e-6)
    assert np.isnan(found[BAD]).all()


def test_the_stated_divergence_is_that_of_the_rows_that_come_back(source, output, data):
    compact(source, output, k=K, dtype="float32")

    back = decided(open_compact(output).expand(dtype="float64")).astype(np.float64)

    p = np.exp(log_softmax(decided(data).astype(np.float64), axis=1))
    lost = rel_entr(p, np.exp(back)).sum(axis=1)
    np.testing.assert_allclose(decided(open_compact(output).columns["tail_divergence"]), lost, atol=3e-6)


def test_a_row_that_was_stored_in_float16_sums_to_one_but_for_its_rounding(source, output):
    compact(source, output, k=K)

    back = decided(open_compact(output).expand()).astype(np.float64)

    # sum of p |log p| 2^-11, which for k classes is at most log(k) 2^-11.
    assert np.abs(np.exp(back).sum(axis=1) - 1).max() <= np.log(CLASSES) * 2**-11


def test_columns_come_in_the_chunks_of_the_output_and_nothing_is_read_before(source, output):
    compact(source, output, k=K)
    found = open_compact(output)

    for path in output.rglob("*"):
        if path.is_file() and path.name != "zarr.json":
            path.unlink()

    assert found.labels.chunks[1] == (K,)
    assert len(found.labels.chunks[0]) > 1
    with pytest.raises((OSError, AssertionError)) if output.suffix == ".parquet" else pytest.raises(AssertionError):
        assert (found.labels.compute() >= 0).any()


def test_it_goes_on_where_it_was_and_adds_what_is_new(tmp_path, data, output):
    source = dumps.zarr_group(tmp_path / "in.zarr", data[:70], chunks=(10, CLASSES))
    compact(source, output, k=K)
    assert compact(source, output, k=K).is_up_to_date
    array = zarr.open_group(source)
    for name, values in (("logits", data), ("id", None), ("target", dumps.targets(*data.shape).astype("int32"))):
        whole: Any = array[name]
        old = whole.shape[0]
        whole.resize((len(data), *whole.shape[1:]))
        if values is not None:
            whole[old:] = values[old:]
        else:
            whole[old:] = np.array(dumps.ids(len(data))[old:], dtype=np.dtypes.StringDType())

    result = compact(source, output, k=K)

    assert result.tally.rows >= 33
    assert np.array_equal(decided(open_compact(output).labels), decided(truth(data)["labels"]))


@pytest.mark.parametrize("verb", ["score", "compact"])
def test_an_output_of_another_verb_or_k_is_not_gone_on_with(source, output, verb):
    compact(source, output, k=K)

    with pytest.raises(OutputExistsError, match=r"verb: compact -> score|top_k: 4 -> 5"):
        score(source, output) if verb == "score" else compact(source, output, k=5)


def test_a_config_says_the_same(source, tmp_path):
    given = {"verb": "compact", "source": {"path": str(source)}, "output": {"path": str(tmp_path / "a.zarr")}}

    result = run(ScoreConfig.model_validate(given | {"top_k": 3}))

    assert (result.job.spec.top_k, result.job.spec.columns) == (3, tuple(COLUMNS))
    assert result.job.spec.wide_dtype == np.float16
    assert ScoreConfig.model_validate(given).top_k == 64


def test_more_than_there_are_classes_is_all_of_them(source, output, data):
    with pytest.warns(UserWarning, match="top_k is 64, but there are 40 classes"):
        compact(source, output, dtype="float32")

    found = open_compact(output)
    assert (decided(found.tail_mass) == 0).all()
    back = decided(found.expand())
    expected = log_softmax(decided(data).astype(np.float64), axis=1)
    finite = expected > -np.inf
    np.testing.assert_allclose(back[finite], expected[finite], rtol=1e-6, atol=1e-6)


class TestCommand:
    def test_it_says_what_was_lost_and_how_much_smaller_it_is(self, source, output, data):
        outcome = softmax_dask("compact", source, output, "--k", K)

        assert outcome.code == 0, outcome.err
        lost = decided(truth(data)["lost"]).mean()
        assert f"lost         {lost:.4f}"[:-1] in outcome.out
        assert "beyond the 4 largest" in outcome.out
        assert "times smaller than the source" in outcome.out

    def test_json_has_the_figures(self, source, output):
        outcome = softmax_dask("compact", source, output, "--k", K, "--json")

        found = json.loads(outcome.out)
        assert found["mean_tail_mass"] > 0
        assert found["mean_tail_divergence"] > 0

    def test_verify_computes_it_again(self, source, output):
        softmax_dask("compact", source, output, "--k", K)

        outcome = softmax_dask("verify", output, "--against-input")

        assert outcome.code == 0, outcome.err

    def test_flags_become_a_config_that_does_the_same(self, source, output, tmp_path):
        config = tmp_path / "compact.yaml"

        assert softmax_dask("compact", source, output, "--k", K, "--write-config", config).code == 0

        assert softmax_dask("run", config).code == 0
        assert softmax_dask("compact", source, output, "--k", K).out.startswith("rows    nothing new")

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (("--k", "0"), "--top-k: is '0'; expected greater than 0"),
            (("--k", "many"), "--top-k: is 'many'"),
            (("--dtype", "int8"), "--dtype: is 'int8'"),
            (("--columns", "tail_mas"), "Did you mean 'tail_mass'?"),
        ],
    )
    def test_a_mistake_is_one_line(self, source, output, flags, said):
        outcome = softmax_dask("compact", source, output, *flags)

        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert said in outcome.err
        assert not output.exists()


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"gone\.zarr: is not there"):
        open_compact(tmp_path / "gone.zarr")


def test_an_output_without_the_columns_is_refused(source, output):
    score(source, output)

    with pytest.raises(SourceFormatError, match="has no top_k_labels, top_k_log_probabilities, tail_mass"):
        open_compact(output)


def test_what_was_lost_is_unknown_without_its_column(source, output):
    compact(source, output, k=K, columns=["top_k_labels", "top_k_log_probabilities", "tail_mass"])

    with pytest.raises(SourceFormatError, match="has no tail_divergence"):
        _ = open_compact(output).lost


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "other").mkdir()

    with pytest.raises(SourceFormatError, match="holds no parts"):
        open_compact(tmp_path / "other")


def test_an_address_is_refused():
    with pytest.raises(ConfigError, match="is in an object store"):
        open_compact("s3://bucket/teacher.zarr")
