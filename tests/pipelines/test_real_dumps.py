"""Three real dumps in every layout, through the command line, beside float64 and beside published figures."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from softmax_dask import COLUMNS
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask

DATA = os.environ.get("SOFTMAX_DASK_TEST_DATA")

pytestmark = pytest.mark.skipif(DATA is None, reason="SOFTMAX_DASK_TEST_DATA does not say where the real dumps are")

EPS = float(np.finfo(np.float32).eps)

PUBLISHED = {
    "verifiedcal_vgg16_cifar10": {
        "rows": 10000, "labelled_rows": 10000, "classes": 10,
        "accuracy": "0.9359", "mean_nll": "0.2570648", "mean_confidence": "0.9755733", "mean_entropy": "0.0642980",
    },
    "netcal_densenet_bc100_cifar100": {
        "rows": 10000, "labelled_rows": 10000, "classes": 100,
        "accuracy": "0.7541", "mean_nll": "1.2256269", "mean_confidence": "0.8962528", "mean_entropy": "0.2986238",
    },
    "magika214": {
        "rows": 7847, "labelled_rows": 7415, "classes": 214,
        "accuracy": "0.8917060", "mean_nll": "0.7225360", "mean_confidence": "0.9241979", "mean_entropy": "0.2859607",
    },
}  # fmt: skip
"""The table in the README beside the dumps, by the names of `--json`; NLL and entropy in nats."""


@dataclass(frozen=True)
class Dump:
    logits: NDArray[Any]
    targets: NDArray[np.int16]
    ids: list[str]
    class_names: list[str]


@cache
def _dump(name: str) -> Dump:
    assert DATA is not None
    with np.load(Path(DATA, f"{name}.npz")) as arrays:
        stored = dict(arrays)
    if "logits" in stored:
        names = json.loads(Path(DATA, f"{name}_classes.json").read_text())
        ids = [text.decode() if isinstance(text, bytes) else str(text) for text in stored["ids"].tolist()]
        return Dump(stored["logits"], stored["labels"], ids, names)
    with np.errstate(divide="ignore"):  # log(0) = -inf is a legal mask
        logits = np.log(stored["probs"])
    rows, classes = logits.shape
    return Dump(logits, stored["labels"], dumps.ids(rows), [f"class {k}" for k in range(classes)])


def _zarr(path: Path, dump: Dump, **layout: Any) -> Path:
    path = path / "logits.zarr"
    classes = dump.logits.shape[1]
    dumps.zarr_group(path, dump.logits, carried=False, **{"chunks": (1000, classes)} | layout)
    group = zarr.open_group(path)
    group.create_array("id", data=np.array(dump.ids, np.dtypes.StringDType()), chunks=(3000,))
    group.create_array("target", data=dump.targets, chunks=(4000,))
    group.attrs["class_names"] = dump.class_names
    return path


def _parquet(path: Path, dump: Dump, columns: Mapping[str, Any]) -> Path:
    carried = {"id": pa.array(dump.ids), "target": pa.array(dump.targets, mask=dump.targets < 0)}
    table = pa.table({**columns, **carried}).replace_schema_metadata({"class_names": json.dumps(dump.class_names)})
    return dumps.parquet_file(path / "logits.parquet", table, row_group_size=3000, use_dictionary=False)


LAYOUTS: dict[str, Callable[[Path, Dump], Path]] = {
    "zarr-v2": lambda path, dump: _zarr(path, dump, zarr_format=2),
    "zarr-v3": _zarr,
    "zarr-v3-sharded": lambda path, dump: _zarr(path, dump, chunks=(500, dump.logits.shape[1] // 2),
                                                shards=(2000, dump.logits.shape[1] // 2 * 2)),
    "parquet-fixed": lambda path, dump: _parquet(path, dump, {"logits": dumps.fixed_lists(dump.logits)}),
    "parquet-list": lambda path, dump: _parquet(path, dump, {"logits": dumps.lists(dump.logits)}),
    "parquet-wide": lambda path, dump: _parquet(path, dump, dumps.wide(dump.logits)),
}  # fmt: skip


@pytest.mark.parametrize("sink", ["zarr", "parquet"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_scored_as_in_float64_and_as_published(tmp_path, name, layout, sink):
    source = LAYOUTS[layout](tmp_path, _dump(name))
    output = tmp_path / f"out.{sink}"

    outcome = softmax_dask("score", source, output, "--columns", ",".join(KNOWN), "--top-k", 5, "--json")

    assert outcome.code == 0, outcome.err
    _assert_published(json.loads(outcome.out), PUBLISHED[name])
    _assert_as_in_float64(_read(output), name)


KNOWN = [name for name, column in COLUMNS.items() if column.needs not in ("threshold", "level")]
"""What no document is needed for."""
LISTS = [name for name in KNOWN if COLUMNS[name].per != "row"]


TEMPERATURES = {
    "verifiedcal_vgg16_cifar10": ("1.686309", "0.2005744", "0.0397801", "0.0141012"),
    "netcal_densenet_bc100_cifar100": ("2.117609", "0.8766138", "0.1421528", "0.0120410"),
    "magika214": ("1.581485", "0.5962483", "0.0475633", "0.0596817"),
}
"""The same table: temperature of the least NLL, that NLL in nats, and ECE before and after."""


@pytest.mark.parametrize("layout", ["zarr-v3", "zarr-v3-sharded", "parquet-fixed", "parquet-wide"])
@pytest.mark.parametrize("name", TEMPERATURES)
def test_its_temperature_is_as_published(tmp_path, name, layout):
    source = LAYOUTS[layout](tmp_path, _dump(name))

    outcome = softmax_dask("calibrate", source, "-o", tmp_path / "c.json", "--fit-on", "all", "--json")

    assert outcome.code == 0, outcome.err
    found, (temperature, nll, before, after) = json.loads(outcome.out), TEMPERATURES[name]
    # Half of the last digit printed, and what float32 does to a mean and to a minimum.
    assert found["temperature"] == pytest.approx(float(temperature), rel=2e-6)
    assert found["after"]["nll"] == pytest.approx(float(nll), rel=2e-6)
    assert found["before"]["ece"] == pytest.approx(float(before), abs=1e-6)
    assert found["after"]["ece"] == pytest.approx(float(after), abs=1e-6)


def _assert_published(found: Mapping[str, Any], published: Mapping[str, Any]) -> None:
    for key in ("rows", "labelled_rows", "classes"):
        assert found[key] == published[key]
    for key in ("accuracy", "mean_nll", "mean_confidence", "mean_entropy"):
        # Half of the last digit printed, and 2e-6 for rows that are float32.
        half_digit = 0.5 * 10.0 ** -len(published[key].partition(".")[2])
        assert found[key] == pytest.approx(float(published[key]), rel=2e-6, abs=half_digit), key


def _read(output: Path) -> dict[str, Any]:
    """Columns as NumPy arrays; a missing `correct` or target as -1, a missing name as ""."""
    if output.suffix == ".zarr":
        group = zarr.open_group(output, mode="r")
        found = {name: group[name][:] for name in group if name != "class"}
        return found | {"label_name": found["label_name"].astype(object), "id": found["id"].astype(object)}
    table = pq.read_table(output)
    found = {name: table[name] for name in table.column_names if name not in LISTS}
    arrays = {name: _filled(values) for name, values in found.items()}
    for name in LISTS:
        values = table[name].combine_chunks()
        arrays[name] = values.flatten().to_numpy().reshape(len(values), -1)
    return arrays


def _filled(values: Any) -> NDArray[Any]:
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if pa.types.is_integer(values.type):
        values = values.fill_null(-1)
    return values.to_numpy()


@cache
def _truth(name: str) -> dict[str, NDArray[Any]]:
    """Every column in float64, as its definition says; NaN and -1 where there is no target."""
    dump = _dump(name)
    logits = dump.logits.astype(np.float64)
    rows = np.arange(len(logits))
    label = logits.argmax(axis=1)  # the lowest class on ties
    largest = logits.max(axis=1)
    powers = np.exp(logits - largest[:, None])
    total = powers.sum(axis=1)
    logs = logits - largest[:, None] - np.log(total)[:, None]
    probs = powers / total[:, None]
    second = np.partition(probs, -2, axis=1)[:, -2]
    terms = np.where(probs > 0, probs * np.where(probs > 0, logs, 0), 0)

    ranked = np.argsort(-logits, axis=1, kind="stable")[:, :5]  # the lowest class first on ties

    tail = np.delete(-np.sort(-probs, axis=1), np.s_[:5], axis=1)
    mass = tail.sum(axis=1)
    even = np.where(tail > 0, tail * np.log(np.where(tail > 0, tail / (mass / tail.shape[1])[:, None], 1)), 0)

    labelled = dump.targets >= 0
    target = np.where(labelled, dump.targets, 0)
    own = logits[rows, target][:, None]
    before = (logits > own) | ((logits == own) & (np.arange(logits.shape[1]) < target[:, None]))
    return {
        "label": label,
        "confidence": probs.max(axis=1),
        "margin": probs.max(axis=1) - second,
        "entropy": -terms.sum(axis=1),
        "logsumexp": largest + np.log(total),
        "max_logit": largest,
        "probabilities": probs,
        "log_probabilities": logs,
        "top_k_labels": ranked,
        "top_k_probabilities": np.take_along_axis(probs, ranked, axis=1),
        "top_k_log_probabilities": np.take_along_axis(logs, ranked, axis=1),
        "tail_mass": mass,
        "tail_divergence": even.sum(axis=1),
        "nll": np.where(labelled, -logs[rows, target], np.nan),
        "target_probability": np.where(labelled, probs[rows, target], np.nan),
        "brier": np.where(labelled, ((probs - np.eye(probs.shape[1])[target]) ** 2).sum(axis=1), np.nan),
        "target_rank": np.where(labelled, before.sum(axis=1), -1),
        "correct": np.where(labelled, label == target, -1),
        "scale": np.maximum(1, np.maximum(np.abs(largest), np.log(total))),
    }


def _assert_as_in_float64(found: Mapping[str, Any], name: str) -> None:
    truth, dump = _truth(name), _dump(name)
    assert_array_equal(found["id"], dump.ids)
    assert_array_equal(found["target"], dump.targets)
    assert_array_equal(found["label_name"], np.array(dump.class_names, object)[truth["label"]])
    for column in ("label", "max_logit", "target_rank", "correct", "top_k_labels"):
        assert_array_equal(found[column], truth[column], column)
    # The contract of docs/numerics.md: 4 float32 eps, relative, of probabilities above 1e-30.
    for column in ("confidence", "probabilities", "target_probability", "top_k_probabilities"):
        assert_allclose(found[column], truth[column], rtol=4 * EPS, atol=1e-30, err_msg=column)
    # Of the tail itself, however small: its mass, and that times an entropy with an error of 2e-6.
    assert_allclose(found["tail_mass"], truth["tail_mass"], rtol=4 * EPS, atol=1e-30)
    assert (np.abs(found["tail_divergence"] - truth["tail_divergence"]) <= 4e-6 * truth["tail_mass"] + 1e-30).all()
    # Absolute: a difference of probabilities, and a sum of up to 214 terms.
    assert_allclose(found["margin"], truth["margin"], rtol=0, atol=4 * EPS)
    assert_allclose(found["entropy"], truth["entropy"], rtol=0, atol=2e-6)
    assert_allclose(found["brier"], truth["brier"], rtol=0, atol=1e-6)
    # 4 eps of the largest quantity that enters: logit, log of the sum, and the result itself.
    for column in ("logsumexp", "nll", "log_probabilities", "top_k_log_probabilities"):
        _assert_within(found[column], truth[column], truth["scale"], column)


def _assert_within(found: NDArray[Any], truth: NDArray[Any], scale: NDArray[Any], column: str) -> None:
    finite = np.isfinite(truth)
    assert_array_equal(found[~finite], truth[~finite].astype(found.dtype), column)
    of_rows = scale if truth.ndim == 1 else np.broadcast_to(scale[:, None], truth.shape)
    allowed = 4 * EPS * np.maximum(of_rows, np.abs(np.where(finite, truth, 0)))
    assert (np.abs(found - truth, where=finite, out=np.zeros(truth.shape)) <= allowed)[finite].all(), column
