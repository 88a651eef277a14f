"""The sample dump of `demo`: the same bytes on every machine, whole or not there."""

import hashlib

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from softmax_dask_pipelines import sample as sample_module
from softmax_dask_pipelines.sample import CLASS_NAMES, CLASSES, ROWS, sample, write_sample

FORMATS = ("zarr", "parquet")


@pytest.fixture(scope="module")
def made():
    return sample()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder with both dumps."""
    folder = tmp_path_factory.mktemp("sample") / "in" / "folders" / "that are new"
    for suffix in FORMATS:
        write_sample(folder / f"logits.{suffix}")
    return folder


def size_of(path):
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def test_the_sample_has_the_size_that_is_promised(made):
    logits, targets, ids = made

    assert logits.shape == (ROWS, CLASSES) == (100_000, 100)
    assert (len(targets), len(set(ids)), len(set(CLASS_NAMES))) == (ROWS, ROWS, CLASSES)


def test_the_sample_is_the_same_on_every_machine(made):
    logits, targets, _ = made

    # Written down from the first run: another NumPy, C library or processor must come to the same.
    digests = [hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()) for array in (logits, targets)]
    assert [digest.hexdigest()[:16] for digest in digests] == ["a3c8909c6f4b0b65", "4c56e3d08bed2857"]


def test_the_sample_looks_like_a_decent_classifier(made):
    logits, targets, _ = made
    known = targets >= 0

    accuracy = np.mean(logits.argmax(axis=1)[known] == targets[known])

    assert 0.85 < accuracy < 0.99
    assert 0.005 < np.mean(~known) < 0.02


def test_every_logit_is_finite(made):
    logits, _, _ = made

    assert np.isfinite(logits).all()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_dump_is_about_forty_megabytes(written, suffix):
    assert 30e6 < size_of(written / f"logits.{suffix}") < 45e6


def test_zarr_holds_the_sample(written, made):
    logits, targets, ids = made
    group = zarr.open_group(written / "logits.zarr", mode="r")

    assert np.array_equal(group["logits"][...], logits)
    assert np.array_equal(group["target"][...], targets)
    assert list(group["id"][...]) == ids
    assert tuple(group.attrs["class_names"]) == CLASS_NAMES


def test_parquet_holds_the_sample(written, made):
    logits, targets, ids = made
    table = pq.read_table(written / "logits.parquet").combine_chunks()

    assert np.array_equal(table["logits"].chunk(0).flatten().to_numpy(), logits.ravel())
    assert np.array_equal(table["target"].fill_null(-1).to_numpy(), targets)
    assert table["id"].to_pylist() == ids


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_dump_that_is_there_is_left_alone(tmp_path, suffix):
    path = tmp_path / f"logits.{suffix}"
    path.write_text("mine")

    write_sample(path)

    assert path.read_text() == "mine"


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_a_write_that_is_stopped_leaves_nothing(tmp_path, suffix, error, monkeypatch):
    writer = getattr(sample_module, f"_write_{suffix}")

    def stop_at_the_end(path):
        monkeypatch.setattr(sample_module, "ROWS", 1000)
        writer(path)
        assert path.exists()
        raise error

    monkeypatch.setattr(sample_module, f"_write_{suffix}", stop_at_the_end)

    with pytest.raises(type(error)):
        write_sample(tmp_path / f"logits.{suffix}")

    assert list(tmp_path.iterdir()) == []
