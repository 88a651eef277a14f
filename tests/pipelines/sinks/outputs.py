"""Specs of outputs, the values that belong in them, and a run that writes them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask.columns import COLUMNS
from softmax_dask_pipelines.sinks import OutputSpec, Sink, open_sink, partition_row_range

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
    id_name=None,
    id_type=None,
    has_targets=False,
    attributes={"temperature": 1.5, "source": "logits.zarr"},
)
"""50 rows: the last partition is partly filled, and its one chunk is."""

_WIDE = (*NARROW, "probabilities", "log_probabilities")
_EVERYTHING = tuple(COLUMNS)

SPECS = {
    "narrow": PLAIN,
    "wide float32": dataclasses.replace(PLAIN, columns=_WIDE),
    "wide float16": dataclasses.replace(PLAIN, columns=_WIDE, wide_dtype=np.dtype(np.float16)),
    "wide only": dataclasses.replace(PLAIN, columns=("probabilities",), wide_dtype=np.dtype(np.float64)),
    "integer ids": dataclasses.replace(PLAIN, id_name="image", id_type=pa.int32()),
    "text ids": dataclasses.replace(PLAIN, columns=_WIDE, id_name="id", id_type=pa.string()),
    "targets": dataclasses.replace(PLAIN, columns=(*NARROW, "nll", "target_rank", "correct"), has_targets=True),
    "top k": dataclasses.replace(PLAIN, columns=("label", "top_k_labels", "top_k_probabilities")),
    "names": dataclasses.replace(PLAIN, columns=("confidence", "label_name"), class_names=CLASS_NAMES),
    "everything": dataclasses.replace(
        PLAIN,
        columns=_EVERYTHING,
        class_names=CLASS_NAMES,
        id_name="id",
        id_type=pa.large_string(),
        has_targets=True,
        float_dtype=np.dtype(np.float64),
    ),
    "one partition": dataclasses.replace(PLAIN, columns=_WIDE, rows=16),
    "one row": dataclasses.replace(PLAIN, columns=_WIDE, rows=1, partition_rows=8),
    "no rows": dataclasses.replace(
        PLAIN,
        columns=_EVERYTHING,
        rows=0,
        class_names=CLASS_NAMES,
        id_name="id",
        id_type=pa.string(),
        has_targets=True,
    ),
}


@dataclass(frozen=True)
class Values:
    """What belongs in an output."""

    columns: dict[str, NDArray[Any]]
    ids: pa.Array | None
    targets: NDArray[np.int64] | None

    def label_names(self, names: tuple[str, ...]) -> list[str | None]:
        return [names[label] if label >= 0 else None for label in self.columns["label"]]


def values_of(spec: OutputSpec, *, seed: int = 0) -> Values:
    """Random values, every seventh row undecidable."""
    random = np.random.default_rng(seed)
    bad = np.arange(spec.rows) % 7 == 3
    columns = {name: _column(spec, name, random, bad) for name in COLUMNS if name != "label_name"}
    targets = random.integers(-1, spec.classes, spec.rows) if spec.has_targets else None
    return Values(columns, _ids(spec), targets)


def write(spec: OutputSpec, *, values: Values | None = None, replace: bool = False, step: int = 3) -> Sink:
    """Write all partitions, `step` rows at a time; not published."""
    sink = open_sink(spec, replace=replace)
    sink.prepare()
    for number in range(-(-spec.rows // spec.partition_rows)):
        write_partition(sink, spec, number, values or values_of(spec), step=step)
    return sink


def write_partition(sink: Sink, spec: OutputSpec, number: int, values: Values, *, step: int = 3) -> Any:
    writer = sink.writer(number)
    rows = partition_row_range(spec, number)
    row = rows.start
    while row < rows.stop:
        views = writer.reserve(step)
        taken = len(next(iter(views.values())))
        for name, view in views.items():
            view[:] = values.columns[name][row : row + taken]
        ids = values.ids[row : row + taken] if values.ids is not None else None
        targets = values.targets[row : row + taken] if values.targets is not None else None
        writer.advance(taken, ids, targets)
        row += taken
    return writer.close()


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _column(spec: OutputSpec, name: str, random: np.random.Generator, bad: NDArray[np.bool_]) -> NDArray[Any]:
    column = COLUMNS[name]
    shape = (spec.rows, *column.tail(spec.classes, spec.top_k))
    if column.kind == "int8":
        values = random.integers(0, 2, shape).astype(np.int8)
    elif column.kind == "int32":
        values = random.integers(0, spec.classes, shape).astype(np.int32)
    else:
        values = random.random(shape).astype(spec.float_dtype if column.kind == "float" else spec.wide_dtype)
    values[bad] = column.undecidable
    return values


def _ids(spec: OutputSpec) -> pa.Array | None:
    if spec.id_name is None:
        return None
    if pa.types.is_integer(spec.id_type):
        return pa.array([1000 + 3 * row for row in range(spec.rows)], spec.id_type)
    return pa.array([f"Bild-{row}-ü" if row % 5 else "" for row in range(spec.rows)], spec.id_type)
