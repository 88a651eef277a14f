"""Columns of an output of `score`, read again: for what can be found out of them without the logits."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from softmax_dask import number_keys
from softmax_dask_pipelines import arrow
from softmax_dask_pipelines.addresses import is_address
from softmax_dask_pipelines.errors import ColumnNotFoundError, ConfigError
from softmax_dask_pipelines.row_keys import Keys, keys_of_values

Block = tuple[NDArray[Any], NDArray[np.int8], Keys]
"""confidence; correct, -1 where it is not known; keys of the rows"""

_COLUMNS = ("confidence", "correct")
_MARK = "softmax_dask"
"""Where an output says what made it."""
_BLOCK_ROWS = 1 << 18


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """An output of `score` with the columns confidence and correct."""

    path: str
    temperature: float
    shift: str | None
    """A digest."""
    fitted_on: str | None
    """half or all, of these rows, if the temperature was fitted to them."""
    id: str | None
    """The column of ids."""
    rows: int

    def blocks(self) -> Iterator[Block]:
        """All rows, some at a time."""
        return _blocks_of_parquet(self) if _is_parquet(Path(self.path)) else _blocks_of_zarr(self)


def scored_rows(path: str, id_name: str | None) -> ScoredRows | None:
    """What is at a path, if `score` has written it; None if it is anything else.

    Raises
    ------
    ColumnNotFoundError
        It lacks the columns that say how right it is, or the named ids.
    """
    if is_address(path):
        return None
    folder = Path(path.removeprefix("file://"))
    if _is_parquet(folder):
        return _of_parquet(folder, id_name)
    return _of_zarr(folder, id_name) if (folder / "zarr.json").is_file() else None


def _is_parquet(folder: Path) -> bool:
    return folder.is_dir() and next(folder.glob("commit=*/*.parquet"), None) is not None


def _of_parquet(folder: Path, id_name: str | None) -> ScoredRows | None:
    files = _files(folder)
    schema = pq.read_schema(files[0])
    text = (schema.metadata or {}).get(_MARK.encode())
    if text is None:
        return None
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    return _known(folder, json.loads(text), schema.names, id_name, rows)


def _of_zarr(folder: Path, id_name: str | None) -> ScoredRows | None:
    facts = json.loads((folder / "zarr.json").read_bytes()).get("attributes", {}).get(_MARK)
    if facts is None:
        return None
    names = [entry.name for entry in folder.iterdir() if (entry / "zarr.json").is_file()]
    rows = zarr.open_array(folder / "confidence", mode="r").shape[0] if "confidence" in names else 0
    return _known(folder, facts, names, id_name, rows)


def _known(folder: Path, facts: dict[str, Any], names: list[str], id_name: str | None, rows: int) -> ScoredRows:
    for name in (*_COLUMNS, *([] if id_name is None else [id_name])):
        if name not in names:
            raise ColumnNotFoundError(
                f"{folder}: is an output of score without {name!r}; expected {' and '.join(_COLUMNS)}, and ids that "
                "are named. Score again with them and a target, or name the dump of logits."
            )
    temperature, fit = float(facts.get("temperature", 1.0)), facts.get("fitted", {})
    # The halves hang on the ids, so these must be those of the fit.
    found = fit.get("id") if fit else id_name or next((name for name in ("id", "ids") if name in names), None)
    return ScoredRows(str(folder), temperature, facts.get("shift"), fit.get("on"), found, rows)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("commit=*/*.parquet"))


def _blocks_of_parquet(scored: ScoredRows) -> Iterator[Block]:
    columns, row = [*_COLUMNS, *([] if scored.id is None else [scored.id])], 0
    for file in _files(Path(scored.path)):
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(_BLOCK_ROWS, columns=columns):
                confidence, correct = arrow.stored(batch.column("confidence")), batch.column("correct")
                truth = np.where(arrow.is_known(correct), arrow.stored(correct.cast(pa.int8())), np.int8(-1))
                keys = _keys(None if scored.id is None else batch.column(scored.id), row, len(batch))
                yield confidence, truth, keys
                row += len(batch)


def _blocks_of_zarr(scored: ScoredRows) -> Iterator[Block]:
    arrays = [zarr.open_array(Path(scored.path, name), mode="r") for name in _COLUMNS]
    ids = None if scored.id is None else zarr.open_array(Path(scored.path, scored.id), mode="r")
    for start in range(0, scored.rows, _BLOCK_ROWS):
        confidence, correct = (np.asarray(array[start : start + _BLOCK_ROWS]) for array in arrays)
        texts = None if ids is None else _arrow(np.asarray(ids[start : start + _BLOCK_ROWS]))
        yield confidence, correct, _keys(texts, start, len(correct))


def _arrow(values: NDArray[Any]) -> Any:
    return arrow.numbers(values) if values.dtype.kind in "iu" else arrow.texts(values.tolist())


def _keys(ids: Any, first: int, rows: int) -> Keys:
    return number_keys(np.arange(first, first + rows)) if ids is None else keys_of_values(ids)


def require_no_temperature(path: str, temperature: float, calibration: str | None) -> None:
    """Refuse to say what an output says already."""
    if temperature != 1.0 or calibration is not None:
        raise ConfigError(
            f"{'calibration' if calibration else 'temperature'}: is given, and {path} is an output of score, which has "
            "been written with its own; expected none. Leave it out, or name the dump of logits."
        )
