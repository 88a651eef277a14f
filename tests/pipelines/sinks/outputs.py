"""Specs of outputs, the values that belong in them, and a run that writes them."""

import dataclasses
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask.columns import COLUMNS
from softmax_dask_pipelines.sinks import (
    CarriedColumn,
    OutputSpec,
    PartitionWriter,
    Sink,
    job_folder,
    open_sink,
    partition_row_range,
)
from softmax_dask_pipelines.sinks.places import Increment, Place, Whole

NARROW = ("label", "confidence", "entropy")
CLASS_NAMES = ("Katze", "ein Hund", "crane", "crane", "鳥")
"""Two classes of one name, as in ImageNet; a blank; letters beyond ASCII."""

PLAIN = OutputSpec(
    path="",
    format="zarr",
    rows=50,
    classes=5,
    partition_rows=16,
    chunk_rows=8,
    columns=NARROW,
    float_dtype=np.dtype(np.float32),
    wide_dtype=np.dtype(np.float32),
    top_k=3,
    class_names=None,
    carried=(),
    has_targets=False,
    attributes={"temperature": 1.5, "source": "logits.zarr"},
)
"""50 rows: the last partition is partly filled, and its one chunk is."""

_WIDE = (*NARROW, "probabilities", "log_probabilities")
_EVERYTHING = tuple(COLUMNS)


def _id(kind: pa.DataType, name: str = "id") -> tuple[CarriedColumn, ...]:
    return (CarriedColumn(name, f"meta/{name}", kind, is_id=True),)


def _key(name: str, plain: pa.DataType, *, has_nulls: bool = False) -> CarriedColumn:
    return CarriedColumn(name, name, pa.dictionary(pa.int32(), plain), has_nulls=has_nulls)


_DAY, _SITE, _HOUR = _key("day", pa.int64()), _key("site", pa.string()), _key("hour", pa.int64(), has_nulls=True)

SPECS = {
    "narrow": PLAIN,
    "wide float32": dataclasses.replace(PLAIN, columns=_WIDE),
    "wide float16": dataclasses.replace(PLAIN, columns=_WIDE, wide_dtype=np.dtype(np.float16)),
    "wide only": dataclasses.replace(PLAIN, columns=("probabilities",), wide_dtype=np.dtype(np.float64)),
    "integer ids": dataclasses.replace(PLAIN, carried=_id(pa.int32(), "image")),
    "text ids": dataclasses.replace(PLAIN, columns=_WIDE, carried=_id(pa.string())),
    "keys": dataclasses.replace(PLAIN, carried=(_DAY, _SITE, _HOUR)),
    "wide, ids and keys": dataclasses.replace(PLAIN, columns=_WIDE, carried=(*_id(pa.string()), _DAY, _SITE, _HOUR)),
    "a key as id": dataclasses.replace(PLAIN, carried=(dataclasses.replace(_SITE, is_id=True), _DAY)),
    "targets": dataclasses.replace(PLAIN, columns=(*NARROW, "nll", "target_rank", "correct"), has_targets=True),
    "top k": dataclasses.replace(PLAIN, columns=("label", "top_k_labels", "top_k_probabilities")),
    "names": dataclasses.replace(PLAIN, columns=("confidence", "label_name"), class_names=CLASS_NAMES),
    "everything": dataclasses.replace(
        PLAIN,
        columns=_EVERYTHING,
        members=4,
        class_names=CLASS_NAMES,
        carried=(*_id(pa.large_string()), _DAY),
        has_targets=True,
        float_dtype=np.dtype(np.float64),
    ),
    "one partition": dataclasses.replace(PLAIN, columns=_WIDE, rows=16),
    "one row": dataclasses.replace(PLAIN, columns=_WIDE, rows=1, partition_rows=8),
    "no rows": dataclasses.replace(
        PLAIN,
        columns=_EVERYTHING,
        members=4,
        rows=0,
        class_names=CLASS_NAMES,
        carried=_id(pa.string()),
        has_targets=True,
    ),
}


@dataclass(frozen=True)
class Values:
    """What belongs in an output."""

    columns: dict[str, NDArray[Any]]
    carried: dict[str, pa.Array]
    """By name in the source."""
    targets: NDArray[np.int64] | None

    def label_names(self, names: tuple[str, ...]) -> list[str | None]:
        return [names[label] if label >= 0 else None for label in self.columns["label"]]


def values_of(spec: OutputSpec, *, seed: int = 0) -> Values:
    """Random values, every seventh row undecidable."""
    random = np.random.default_rng(seed)
    bad = np.arange(spec.rows) % 7 == 3
    columns = {name: _column(spec, name, random, bad) for name in COLUMNS if name != "label_name"}
    targets = random.integers(-1, spec.classes, spec.rows) if spec.has_targets else None
    return Values(columns, {column.source_name: _carried(spec, column) for column in spec.carried}, targets)


@dataclass(frozen=True)
class Output:
    """An output in the making, without a ledger."""

    sink: Sink
    place: Place

    def publish(self) -> None:
        if self.place.stage.exists():
            self.sink.seal()
        self.publish_sealed(self.place.made() if self.place.stage.exists() else None)

    def publish_sealed(self, made: int | None) -> None:
        self.place.publish(made)
        self.place.clear()
        with suppress(OSError):
            self.place.stage.parent.rmdir()


def opened(spec: OutputSpec, *, replace: bool = False) -> Output:
    """Nothing is written yet."""
    job = job_folder(Path(spec.path))
    place: Place = Whole(Path(spec.path), job / "stage-0", job / "scratch-0", replaces=replace)
    if spec.visible_rows:
        place = Increment(Path(spec.path), job / "stage-0", job / "scratch-0")
    return Output(open_sink(spec, place), place)


def write(spec: OutputSpec, *, values: Values | None = None, replace: bool = False, step: int = 3) -> Output:
    """Write all partitions, `step` rows at a time; not published."""
    output = opened(spec, replace=replace)
    output.sink.prepare()
    for number in range(spec.first_partition, -(-spec.rows // spec.partition_rows)):
        write_partition(output.sink, spec, number, values or values_of(spec), step=step)
    return output


def write_partition(sink: Sink, spec: OutputSpec, number: int, values: Values, *, step: int = 3) -> Any:
    writer = sink.writer(number)
    try:
        return _filled(writer, spec, number, values, step)
    except BaseException:
        writer.abandon()
        raise


def _filled(writer: PartitionWriter, spec: OutputSpec, number: int, values: Values, step: int) -> Any:
    rows = partition_row_range(spec, number)
    row = rows.start
    while row < rows.stop:
        views = writer.reserve(step)
        taken = len(next(iter(views.values())))
        for name, view in views.items():
            view[:] = values.columns[name][row : row + taken]
        carried = {name: whole[row : row + taken] for name, whole in values.carried.items()}
        targets = values.targets[row : row + taken] if values.targets is not None else None
        writer.advance(taken, carried, targets)
        row += taken
    return writer.close()


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _column(spec: OutputSpec, name: str, random: np.random.Generator, bad: NDArray[np.bool_]) -> NDArray[Any]:
    column = COLUMNS[name]
    shape = (spec.rows, *column.tail(spec.classes, spec.top_k, spec.members))
    if column.per == "member":
        return _sets(random, shape, bad)
    if column.kind == "int8":
        values = random.integers(0, 2, shape).astype(np.int8)
    elif column.kind == "int32":
        values = random.integers(0, spec.classes, shape).astype(np.int32)
    else:
        values = random.random(shape).astype(spec.float_dtype if column.kind == "float" else spec.wide_dtype)
    values[bad] = column.undecidable
    return values


def _sets(random: np.random.Generator, shape: tuple[int, ...], bad: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Sets of all sizes, none among them."""
    sizes = random.integers(0, shape[1] + 1, shape[0])
    sets = np.where(np.arange(shape[1]) < sizes[:, None], np.arange(shape[1]), -1).astype(np.int32)
    sets[bad] = -1
    return sets


def _carried(spec: OutputSpec, column: CarriedColumn) -> pa.Array:
    if column.is_repeated:
        return _repeated(spec, column)
    if pa.types.is_integer(column.type):
        return pa.array([1000 + 3 * row for row in range(spec.rows)], column.type)
    return pa.array([f"Bild-{row}-ü" if row % 5 else "" for row in range(spec.rows)], column.type)


def _repeated(spec: OutputSpec, column: CarriedColumn) -> pa.Array:
    """One value for 20 rows, as of files of 20 rows; the second is null where nulls are known to come."""
    values: list[Any] = [f"Köln {k}" if column.value_type == pa.string() else k - 1 for k in range(3)]
    if column.has_nulls:
        values[1] = None
    return pa.array([values[row // 20] for row in range(spec.rows)], column.value_type).dictionary_encode()
