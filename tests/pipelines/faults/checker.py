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
from numpy.typing import NDArray

from tests.pipelines.faults.looking import READERS, Found


def check(output: Path, logits: NDArray[np.float32], states: list[tuple[int, float]], reader: str | None) -> int | None:
    """Number of the state, (rows, temperature), that the output is in; None where there is no output.

    By one reader, or by all, which must agree; but who opens arrays by themselves may see the next state already, for
    the root's document comes last. Raises whatever a reader would meet, and AssertionError for rows that
    are wrong, lost, or there twice.
    """
    if not output.exists():
        return None
    readers = READERS[output.suffix]
    if reader is not None:
        return _state(readers[reader](output), logits, states)
    found = {name: _state(read(output), logits, states) for name, read in readers.items()}
    state = next(iter(found.values()))
    by_themselves = found.pop("dask") if output.suffix == ".zarr" else state
    assert set(found.values()) == {state}, f"readers differ: {found}"
    assert by_themselves in (state, state + 1), f"readers differ: {found}, arrays by themselves {by_themselves}"
    return state


def _state(found: Found, logits: NDArray[np.float32], states: list[tuple[int, float]]) -> int:
    rows = len(found["id"])
    order = np.argsort(found["id"], kind="stable")
    found = {name: values[order] for name, values in found.items()}
    assert found["id"].tolist() == list(range(rows)), f"ids {found['id'].tolist()}"
    for number, (expected, temperature) in enumerate(states):
        if expected == rows and _is_right(found, logits[:rows], temperature):
            return number
    raise AssertionError(f"{rows} rows that are in none of the states {states}")


def _is_right(found: Found, logits: NDArray[np.float32], temperature: float) -> bool:
    scaled = logits.astype(np.float64) / temperature
    exact = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)
    right = np.array_equal(found["label"], logits.argmax(axis=1))
    right &= np.allclose(found["confidence"], exact.max(axis=1), rtol=1e-6, atol=0)
    return bool(right and np.allclose(found["probabilities"], exact, rtol=1e-6, atol=1e-30))


def main() -> None:
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            states = [tuple(state) for state in asked["states"]]
            state = check(Path(asked["output"]), np.load(asked["logits"]), states, asked.get("reader"))
            answer: dict[str, Any] = {"state": state}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
