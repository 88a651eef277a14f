"""Has the input changed since it was scored? Told by times, which is cheap, or by all bytes, which nothing escapes."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from softmax_dask_pipelines import score, scoring, verify
from softmax_dask_pipelines.errors import InputChangedError, InterruptedRunError, OutputExistsError
from softmax_dask_pipelines.receipts import Receipt
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask

BY_CONTENT = {"verify_input": "content"}


@pytest.fixture(autouse=True)
def small_plan(monkeypatch):
    """Chunks and partitions of some ten rows."""
    monkeypatch.setattr("softmax_dask_pipelines.sources.blocks.READ_BYTES", 240)
    monkeypatch.setattr("softmax_dask_pipelines.plan.CHUNK_BYTES", 240)
    monkeypatch.setattr("softmax_dask_pipelines.plan.PARTITION_BYTES", 500)


@pytest.fixture(params=["zarr", "parquet", "npy"])
def source(request, tmp_path):
    data = dumps.logits()
    if request.param == "zarr":
        return dumps.zarr_array(tmp_path / "in.zarr", data, chunks=(10, 5), compressors=None)
    if request.param == "npy":
        return dumps.npy(tmp_path / "in.npy", data)
    table = dumps.parquet_table({"logits": dumps.fixed_lists(data)}, carried=False)
    return dumps.parquet_folder(tmp_path / "in", table, [30, 60], compression="none", use_dictionary=False)


@pytest.fixture(params=["out.zarr", "out.parquet"])
def output(request, tmp_path):
    return tmp_path / request.param


def a_file(source: Path) -> Path:
    """That with the first rows."""
    return (
        source
        if source.is_file()
        else min(path for path in source.rglob("*") if path.suffix != ".json" and path.is_file())
    )


def edit(source: Path, *, keep_time: bool) -> None:
    """Another value for a logit, in as many bytes."""
    path = a_file(source)
    status, data = path.stat(), bytearray(path.read_bytes())
    place = data.find(dumps.logits()[7].tobytes())
    assert place > 0 or path.suffix != ".parquet"
    data[place + 3] ^= 0x80  # the sign of the first logit of row 7
    path.write_bytes(data)
    later = 0 if keep_time else 10**9
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + later))


def touch(source: Path) -> None:
    """Other times, as of a copy, the same bytes."""
    for path in (path for path in source.parent.rglob("*") if path.is_relative_to(source) and path.is_file()):
        os.utime(path)


def stop(source: Path, output: Path, monkeypatch: pytest.MonkeyPatch, **options: str) -> None:
    """A run that is interrupted when the first partition is done."""

    def interrupt(receipt: Receipt) -> None:
        if receipt.partition == 0:
            raise KeyboardInterrupt

    execute = scoring.execute
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "execute", lambda job, **given: execute(job, **{**given, "on_receipt": interrupt}))
        with pytest.raises(InterruptedRunError):
            score(source, output, threads=1, **options)


@pytest.mark.parametrize("finished", [False, True])
def test_an_edit_that_keeps_size_and_time_is_seen_by_content_alone(source, output, finished, monkeypatch):
    for name, options in (("seen", BY_CONTENT), ("unseen", {})):
        place = output.with_name(f"{name}-{output.name}")
        score(source, place, **options) if finished else stop(source, place, monkeypatch, **options)

    edit(source, keep_time=True)

    with pytest.raises(InputChangedError, match="changed after it was scored; expected it to stay"):
        score(source, output.with_name(f"seen-{output.name}"), **BY_CONTENT)
    assert score(source, output.with_name(f"unseen-{output.name}")).is_up_to_date is finished


@pytest.mark.parametrize("options", [{}, BY_CONTENT])
def test_an_edit_that_keeps_the_size_is_seen(source, output, options):
    score(source, output, **options)

    edit(source, keep_time=False)

    with pytest.raises(InputChangedError, match="changed after it was scored; expected it to stay"):
        score(source, output, **options)


def test_an_edit_while_the_run_goes_on_is_not_published(source, output, monkeypatch):
    sink = "zarr.ZarrSink" if output.suffix == ".zarr" else "parquet.ParquetSink"
    monkeypatch.setattr(f"softmax_dask_pipelines.sinks.{sink}.seal", lambda sink: edit(source, keep_time=True))

    with pytest.raises(InputChangedError, match="changed after it was scored"):
        score(source, output, **BY_CONTENT)

    assert not output.exists()


def test_a_dump_that_was_copied_is_the_same_by_content_alone(source, output):
    by_time = output.with_name(f"other-{output.name}")
    score(source, output, **BY_CONTENT)
    score(source, by_time)

    touch(source)

    assert score(source, output, **BY_CONTENT).is_up_to_date
    assert verify(output, against_input=True).recomputed > 0
    with pytest.raises(InputChangedError):
        score(source, by_time)


def test_what_is_gone_is_seen(source, output):
    score(source, output, **BY_CONTENT)
    shutil.rmtree(source) if source.is_dir() else source.unlink()
    if source.suffix == ".zarr":
        dumps.zarr_array(source, dumps.logits()[:50], chunks=(10, 5), compressors=None)

    outcome = softmax_dask("score", source, output, "--verify-input", "content")

    assert outcome.code in (2, 3)
    assert outcome.err.count("\n") == 1


def test_rows_that_are_added_are_scored(tmp_path, output):
    source = dumps.zarr_array(tmp_path / "in.zarr", dumps.logits(120)[:103], chunks=(10, 5))
    score(source, output, **BY_CONTENT)
    array = zarr.open_array(source)
    array.resize((120, 5))
    array[103:] = dumps.logits(120)[103:]

    result = score(source, output, **BY_CONTENT)

    assert result.new_rows == 17
    assert np.isclose(result.tally.rows, 20 if output.suffix == ".zarr" else 17)


def test_another_way_of_looking_is_another_setting(source, output):
    score(source, output)

    with pytest.raises(OutputExistsError, match=r"source\.verify_input: metadata -> content"):
        score(source, output, **BY_CONTENT)
