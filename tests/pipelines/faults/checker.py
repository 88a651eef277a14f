"""What a reader finds in an output, judged by NumPy alone: a process of its own that never imports the program.

Reads questions, one JSON object a line, and answers each with one: which of the allowed states it found, or what is
wrong.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

COLUMNS = ("label", "confidence", "probabilities")


def check(output: Path, logits: NDArray[np.float32], states: list[tuple[int, float]]) -> int | None:
    """Number of the state, (rows, temperature), that the output is in; None where there is no output.

    Raises whatever a reader would meet, and AssertionError for rows that are wrong, lost, or there twice.
    """
    found = _zarr(output) if output.suffix == ".zarr" else _parquet(output)
    if found is None:
        return None
    rows = len(found["id"])
    order = np.argsort(found["id"], kind="stable")
    found = {name: values[order] for name, values in found.items()}
    assert found["id"].tolist() == list(range(rows)), f"ids {found['id'].tolist()}"
    for number, (expected, temperature) in enumerate(states):
        if expected == rows and _is_right(found, logits[:rows], temperature):
            return number
    raise AssertionError(f"{rows} rows that are in none of the states {states}")


def _is_right(found: dict[str, NDArray[Any]], logits: NDArray[np.float32], temperature: float) -> bool:
    scaled = logits.astype(np.float64) / temperature
    exact = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)
    right = np.array_equal(found["label"], logits.argmax(axis=1))
    right &= np.allclose(found["confidence"], exact.max(axis=1), rtol=1e-6, atol=0)
    return bool(right and np.allclose(found["probabilities"], exact, rtol=1e-6, atol=1e-30))


def _zarr(output: Path) -> dict[str, NDArray[Any]] | None:
    try:
        group = zarr.open_group(output, mode="r")
    except FileNotFoundError:
        return None
    found = {name: np.asarray(group[name][...]) for name in ("id", *COLUMNS)}
    plain = zarr.open_group(output, mode="r", use_consolidated=False)
    for name, values in found.items():
        # Between two moves of documents an array may be longer than its group says; what it has is whole.
        longer = np.asarray(plain[name][...])
        assert len(longer) >= len(values), f"{name} has {len(longer)} rows unconsolidated, {len(values)} consolidated"
        assert np.array_equal(longer[: len(values)], values), f"{name} differs between consolidated and not"
    return found


def _parquet(output: Path) -> dict[str, NDArray[Any]] | None:
    if not output.exists() or not list(output.rglob("*.parquet")):
        return None
    table = pq.read_table(output, partitioning=None)
    found = {name: table[name].to_numpy() for name in ("id", "label", "confidence")}
    lists = pa.concat_arrays(table["probabilities"].chunks)
    return found | {"probabilities": lists.flatten().to_numpy().reshape(table.num_rows, -1)}


def main() -> None:
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            states = [tuple(state) for state in asked["states"]]
            answer: dict[str, Any] = {"state": check(Path(asked["output"]), np.load(asked["logits"]), states)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
