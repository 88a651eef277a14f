"""What the guides show is run as it stands there, and checked against NumPy and the frameworks themselves.

Frameworks are large: a test whose framework is missing is skipped, and `make guides` installs them.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import google_crc32c
import numcodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from scipy import special

from softmax_dask_pipelines import open_logits, sample
from tests.guides import frameworks
from tests.guides.pages import GUIDES, PAGES, blocks, run, writers
from tests.guides.readers import READERS
from tests.pipelines.command import softmax_dask

DUMPS, DECISIONS, SMALLER = "writing-dumps.md", "reading-decisions.md", "compact.md"
WRITERS = ["write_zarr", "write_parquet"]
PIECE_ROWS = 400

# Spark starts Java by a fork that goes straight on to `exec`: what JAX, once imported, warns of cannot happen.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork.. was called:RuntimeWarning")


def require(*packages):
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed; `make guides` installs it")


def inspected(dump, *flags):
    found = softmax_dask("inspect", dump, "--json", *flags)
    assert found.code == 0, found.err
    return json.loads(found.out)


def scored_columns(dump, *flags):
    found = softmax_dask("score", dump, "out.zarr", "--columns", "label,probabilities", *flags)
    assert found.code == 0, found.err
    group = zarr.open_group("out.zarr", mode="r")
    return {name: array[:] for name, array in group.arrays()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_every_block_parses(page):
    parsed = [ast.parse(code) for code in blocks(page)]

    assert parsed


def test_every_framework_of_the_page_is_tested():
    section = blocks(DUMPS, "## From a framework")

    written = {example.dump for example in frameworks.EXAMPLES}

    assert [code for code in section if not any(f'"{dump}"' in code for dump in written)] == []


def test_every_join_of_the_page_is_tested():
    joins = [code for code in blocks(DECISIONS) if "joined = " in code]

    assert joins == [code for reader in READERS for code in blocks(DECISIONS, reader.heading)]


# Dumps, with NumPy alone.


@pytest.mark.parametrize("batch_rows", [1, 7, 100, 999, 1000])
@pytest.mark.parametrize("rows", [1, 100, 333, 1000, 2000])
def test_pieces_are_of_the_size_asked_for_and_lose_no_row(batch_rows, rows):
    values = np.arange(2000).reshape(1000, 2)
    batches = [values[start : start + batch_rows] for start in range(0, 1000, batch_rows)]

    found = list(run(blocks(DUMPS)[0], {})["pieces"](batches, rows))

    assert [len(piece) for piece in found] == [min(rows, 1000 - start) for start in range(0, 1000, rows)]
    np.testing.assert_array_equal(np.concatenate(found), values)


@pytest.mark.parametrize("dump", ["logits.zarr", "logits.parquet"])
def test_dump_of_the_page_is_good_as_it_is(folder, dump):
    writers()

    found = inspected(dump)

    assert (found["advice"], found["rows"], found["classes"]) == ([], 3000, 10)


@pytest.mark.parametrize("ids", [range(1000), [f"0{row}" for row in range(1000)]], ids=["integers", "text"])
@pytest.mark.parametrize("write", WRITERS)
def test_dump_of_several_pieces_holds_what_it_was_given(folder, write, ids):
    logits = np.random.default_rng(0).normal(size=(1000, 4)).astype("float16")
    targets = np.arange(1000) % 5 - 1
    names = writers()
    names["rows_of_a_piece"] = lambda classes, dtype: PIECE_ROWS

    names[write]("dump", [logits[:150], logits[150:]], "float16", list("abcd"), ids=ids, targets=targets)

    found = scored_columns("dump")
    np.testing.assert_array_equal(open_logits("dump").compute(), logits)
    assert found["id"].tolist() == list(ids)
    np.testing.assert_array_equal(found["target"], targets)


def test_zarr_dump_may_have_a_piece_of_nothing_but_zeros(folder):
    names = writers()
    names["rows_of_a_piece"] = lambda classes, dtype: PIECE_ROWS
    logits = np.zeros((1000, 4), "float16")

    names["write_zarr"]("dump", [logits], "float16", list("abcd"))

    assert (scored_columns("dump")["probabilities"] == 0.25).all()


@pytest.mark.parametrize("write", WRITERS)
def test_dump_has_its_name_only_when_it_is_whole(folder, write):
    def stopped():
        yield np.zeros((10, 4), "float16")
        raise KeyboardInterrupt

    names = writers()

    with pytest.raises(KeyboardInterrupt):
        names[write]("dump", stopped(), "float16", list("abcd"))

    assert not (folder / "dump").exists()


@pytest.fixture(scope="module")
def of_several_processes(tmp_path_factory):
    """A folder in which the example of several writers has run, as a script."""
    place = tmp_path_factory.mktemp("several")
    [code] = blocks(DUMPS, "## Zarr")[1:]
    (place / "script.py").write_text(code)
    subprocess.run([sys.executable, "script.py"], cwd=place, check=True)
    return place


def test_several_processes_write_one_zarr_store(of_several_processes):
    starts = range(0, 20_000, 8_000)
    expected = [
        np.random.default_rng(start).normal(size=(min(8_000, 20_000 - start), 1000)).astype("float16")
        for start in starts
    ]

    found = open_logits(of_several_processes / "many.zarr").compute()

    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_store_of_several_writers_is_good_as_it_is(of_several_processes):
    found = inspected(of_several_processes / "many.zarr")

    assert found["advice"] == []


def test_shard_that_nobody_wrote_is_an_error_that_names_it(of_several_processes, folder):
    (of_several_processes / "many.zarr/logits/c/1/0").rename(folder / "shard")

    found = softmax_dask("score", of_several_processes / "many.zarr", "out.zarr")

    (folder / "shard").rename(of_several_processes / "many.zarr/logits/c/1/0")
    assert found.code == 3
    assert "c/1/0" in found.err


def test_files_of_several_writers_are_one_dump_of_which_unfinished_ones_are_no_part(folder):
    names = writers()
    for code in blocks(DUMPS, "## Parquet")[1:]:
        run(code, names)
    (folder / "many.parquet/part-3.parquet.part").write_bytes(b"PAR1")

    found = scored_columns("many.parquet")

    assert found["id"].tolist() == list(range(3000))
    assert inspected("many.parquet")["advice"] == []


# Dumps of frameworks.


@pytest.fixture(scope="module", params=frameworks.EXAMPLES, ids=lambda example: example.dump)
def of_framework(request, tmp_path_factory):
    """An example, run; what it was given; the framework's own probabilities; and what `score` makes of the dump."""
    example = request.param
    require(*example.packages)
    given, probabilities = example.given()
    section = blocks(DUMPS, example.heading)
    last = next(number for number, code in enumerate(section) if f'"{example.dump}"' in code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("framework"))
        patch.setitem(sys.modules, "vllm", frameworks.vllm_module())
        names = writers() | given
        for code in section[: last + 1]:
            run(code, names)
        found = scored_columns(example.dump, *example.flags)
        advice = inspected(example.dump, *example.flags)["advice"]
    return SimpleNamespace(example=example, given=given, probabilities=probabilities, found=found, advice=advice)


def test_probabilities_are_those_of_the_framework(of_framework):
    # JAX's and scikit-learn's softmax, and logarithms held in float32, are off by up to 1e-5.
    np.testing.assert_allclose(of_framework.found["probabilities"], of_framework.probabilities, rtol=2e-5)


def test_labels_are_those_of_the_framework(of_framework):
    np.testing.assert_array_equal(of_framework.found["label"], of_framework.probabilities.argmax(axis=1))


def test_dump_of_a_framework_carries_what_the_page_says(of_framework):
    truth = of_framework.given.get("truth", [])
    numbers = [frameworks.CLASS_NAMES.index(name) if isinstance(name, str) else name for name in truth]
    written = {"id": frameworks.IDS, "target": numbers, "class_names": frameworks.CLASS_NAMES}
    arrays = {**of_framework.found, "class_names": of_framework.found.get("class", np.empty(0))}

    found = {name: arrays[name].tolist() for name in of_framework.example.carried}

    assert found == {name: list(written[name]) for name in of_framework.example.carried}


def test_dump_of_a_framework_is_good_as_it_is(of_framework):
    assert of_framework.advice == []


def test_bits_of_a_jax_array_are_scored_as_the_page_says(folder):
    require("jax")
    import jax

    logits = jax.numpy.asarray(np.random.default_rng(0).normal(size=(1000, 4)), "bfloat16")
    writers()["write_parquet"]("bits", [np.asarray(logits).view("uint16")], "uint16", list("abcd"))

    found = scored_columns("bits", "--source-dtype", "bfloat16")["probabilities"]

    # JAX's softmax is off by up to 1e-5.
    np.testing.assert_allclose(found, jax.nn.softmax(logits.astype("float32"), axis=1), rtol=2e-5)


# Decisions.


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which the demo has run, on 3000 rows."""
    place = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "ROWS", 3000)
        patch.chdir(place)
        assert softmax_dask("demo").code == 0
    return place


@pytest.fixture(scope="module")
def truth(demo):
    """Of the demo's dump, in float64: a row an id."""
    table = pq.read_table(demo / "softmax-dask-demo/logits.parquet")
    logits = np.array(table["logits"].to_pylist(), dtype="float32")
    probabilities = special.softmax(logits.astype("float64"), axis=1)
    return SimpleNamespace(
        ids=table["id"].to_pylist(),
        targets=table["target"].to_pylist(),
        logits=logits,
        probabilities=probabilities,
        labels=probabilities.argmax(axis=1),
        names=[sample.CLASS_NAMES[label] for label in probabilities.argmax(axis=1)],
        confidence=probabilities.max(axis=1),
    )


@pytest.fixture(scope="module")
def spark(demo):
    """The session that `getOrCreate` of the guide finds: on this machine alone, one thread, no web page."""
    require("pyspark")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Java is not installed, which Spark needs")
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(demo)  # Java's working directory, and so Spark's, is that of its start
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        settings = {"spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1"}
        session = SparkSession.builder.master("local[1]").config(map=settings).getOrCreate()
    yield session
    session.stop()


@pytest.fixture(params=READERS, ids=lambda reader: reader.package)
def reader(request, demo, monkeypatch):
    require(request.param.package)
    if request.param.package == "pyspark":
        request.getfixturevalue("spark")
    monkeypatch.chdir(demo)
    return request.param


def test_joined_rows_are_decisions_beside_their_own_logits(reader, truth):
    [code] = blocks(DECISIONS, reader.heading)
    asked = np.flatnonzero(truth.confidence < reader.below)

    joined = sorted(reader.rows(run(code, {})["joined"]), key=lambda row: row[0])

    ids, logits, names, confidence = zip(*joined, strict=True)
    assert list(ids) == [truth.ids[row] for row in asked]
    np.testing.assert_array_equal(np.array([list(row) for row in logits], "float32"), truth.logits[asked])
    assert list(names) == [truth.names[row] for row in asked]
    # Within the contract of docs/numerics.md.
    np.testing.assert_allclose(np.array(confidence, "float64"), truth.confidence[asked], rtol=4.8e-7)


def values_of(heading, place, monkeypatch):
    monkeypatch.chdir(place)
    [code] = blocks(DECISIONS, heading)
    return run(code, {})


def test_shares_of_the_polars_example_are_those_of_the_labels(demo, truth, monkeypatch):
    shares = values_of("## polars", demo, monkeypatch)["shares"]

    names, counts = np.unique(truth.names, return_counts=True)
    assert dict(shares.rows()) == dict(zip(names.tolist(), counts.tolist(), strict=True))
    assert shares["len"].to_list() == sorted(counts.tolist(), reverse=True)


def test_worst_classes_of_the_duckdb_example_have_the_largest_errors(demo, truth, monkeypatch):
    worst = values_of("## DuckDB", demo, monkeypatch)["worst"]

    labels, targets = truth.labels, np.array([-1 if target is None else target for target in truth.targets])
    errors = [np.mean(targets[(labels == k) & (targets >= 0)] != k) for k in np.unique(labels)]
    assert [error for *_, error in worst] == pytest.approx(sorted(errors, reverse=True)[:5], abs=1e-12)


@pytest.mark.parametrize(
    ("heading", "name", "classes"), [("## xarray", "of_bears", slice(0, 5)), ("## Dask", "mean", slice(None))]
)
def test_means_of_the_zarr_examples_are_those_of_the_probabilities(demo, truth, monkeypatch, heading, name, classes):
    found = values_of(heading, demo, monkeypatch)[name]

    # 3000 float32 numbers are summed by others, in an order of theirs.
    np.testing.assert_allclose(found, truth.probabilities.mean(axis=0)[classes], rtol=1e-5)


def test_row_that_xarray_picks_by_id_is_that_row(demo, truth, monkeypatch):
    one = values_of("## xarray", demo, monkeypatch)["one"]

    row = truth.ids.index("image-000042")
    assert str(one["label_name"].values) == truth.names[row]
    np.testing.assert_array_equal(one["logits"], truth.logits[row])


def test_rows_without_ids_are_found_by_their_number(folder, monkeypatch):
    names = values_of("## Without ids", folder, monkeypatch)

    dumped = np.load("plain.npy")
    asked = special.softmax(dumped.astype("float64"), axis=1).max(axis=1) < 0.6
    np.testing.assert_array_equal(names["logits"], dumped[asked])


def test_pandas_keeps_integers_and_booleans_as_the_page_says(demo):
    pandas = pytest.importorskip("pandas")

    found = pandas.read_parquet(demo / "softmax-dask-demo/decisions.parquet", dtype_backend="numpy_nullable").dtypes

    assert (str(found["target"]), str(found["correct"])) == ("Int64", "boolean")


def test_spark_does_not_read_float16_as_the_page_says(demo, spark, folder):
    from pyspark.errors import AnalysisException

    dump = demo / "softmax-dask-demo/logits.parquet"
    assert softmax_dask("score", dump, "half.parquet", "--columns", "probabilities", "--dtype", "float16").code == 0

    with pytest.raises(AnalysisException, match="FLOAT16"):
        spark.read.parquet(str(folder / "half.parquet"))


# Formats, byte by byte.


def frame(path):
    """What a chunk holds before its checksum, which must be that of it."""
    stored = path.read_bytes()
    assert int.from_bytes(stored[-4:], "little") == google_crc32c.value(stored[:-4])
    return stored[:-4]


def test_chunk_of_numbers_is_laid_out_as_the_page_says(demo, truth):
    [path] = (demo / "softmax-dask-demo/scores.zarr/probabilities").glob("c*")

    decoded = np.frombuffer(numcodecs.Blosc().decode(frame(path)), "<f4").reshape(-1, sample.CLASSES)

    np.testing.assert_allclose(decoded, truth.probabilities, rtol=4.8e-7)


def test_last_chunk_is_stored_whole_and_ends_in_fill_values(folder):
    np.save("logits.npy", np.zeros((30_000, 100), "float32"))
    scored_columns("logits.npy")

    whole, last = (
        np.frombuffer(numcodecs.Blosc().decode(frame(folder / "out.zarr/probabilities" / key)), "<f4").reshape(-1, 100)
        for key in ("c.0.0", "c.1.0")
    )

    assert len(last) == len(whole) < 30_000
    assert np.isnan(last).all(axis=1).tolist() == [len(whole) + row >= 30_000 for row in range(len(last))]


def test_chunk_of_text_is_laid_out_as_the_page_says(demo, truth):
    [path] = (demo / "softmax-dask-demo/scores.zarr/id").glob("c*")

    decoded = numcodecs.Zstd().decode(frame(path))

    texts = [len(text.encode()).to_bytes(4, "little") + text.encode() for text in truth.ids]
    assert decoded == len(texts).to_bytes(4, "little") + b"".join(texts)


def test_bfloat16_bits_are_the_upper_half_of_float32(folder):
    wide = np.random.default_rng(0).normal(size=(1000, 4)).astype("<f4").view("<u4")
    np.save("bits.npy", (wide >> 16).astype("<u2"))

    found = open_logits("bits.npy", source_dtype="bfloat16").compute()

    np.testing.assert_array_equal(found.astype("float32"), (wide & 0xFFFF0000).view("<f4"))


def test_rows_of_fixed_size_binary_hold_the_numbers_with_nothing_between(folder):
    logits = np.random.default_rng(0).normal(size=(1000, 4)).astype("<f4")
    pq.write_table(pa.table({"logits": pa.array([row.tobytes() for row in logits], pa.binary(16))}), "dump.parquet")

    found = open_logits("dump.parquet").compute()

    np.testing.assert_array_equal(found, logits)


# Smaller dumps.


def test_rows_of_a_smaller_dump_come_back_as_the_page_says(folder):
    sample.write_sample(folder / "logits.zarr")
    assert softmax_dask("compact", "logits.zarr", "teacher.zarr", "--k", 20).code == 0

    names = run("\n".join(blocks(SMALLER)), {})

    logs = special.log_softmax(np.asarray(zarr.open_group("logits.zarr", mode="r")["logits"][:8], np.float64), axis=1)
    ranked = np.argsort(-logs, axis=1, kind="stable")
    np.testing.assert_array_equal(names["labels"], ranked[:, :20])
    np.testing.assert_allclose(names["logs"], np.take_along_axis(logs, ranked[:, :20], axis=1), rtol=2**-10)
    np.testing.assert_allclose(
        names["tail"], np.exp(np.take_along_axis(logs, ranked[:, 20:], axis=1)).sum(axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(np.exp(names["some"].astype(np.float64)).sum(axis=1), 1, atol=np.log(100) / 2048)


# From a dump to a table.


def test_the_table_of_the_page_keeps_its_promise_and_is_reported(folder):
    sample.write_sample(folder / "softmax-dask-demo" / "logits.zarr")
    page = (GUIDES / "decision-table.md").read_text()
    for line in re.findall(r"^softmax-dask (.+)$", page, re.MULTILINE):
        outcome = softmax_dask(*line.split())
        assert outcome.code == 0, f"{line}: {outcome.err}"

    names = run("\n".join(blocks("decision-table.md")), {})

    table, accepted = names["table"], names["table"]["accept"].astype(bool)
    assert len(table) == sample.ROWS == len(names["for_people"]) + accepted.sum()
    assert 0.5 < accepted.mean() < 1
    assert names["precision"] >= 0.95
    report = (folder / "report.html").read_text()
    assert ">before<" in report
    assert ">after<" in report
    assert json.loads((folder / "metrics-of-table.json").read_text())["figures"]["ece"] < 0.02
