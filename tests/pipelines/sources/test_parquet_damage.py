"""Damaged footers: whichever byte is wrong, the rows are right or an error says that the file is damaged."""

import json
import subprocess
import sys

import pytest

from tests.pipelines import dumps

SEEDS = 400

LAYOUTS = {
    "fixed lists": {"logits": dumps.fixed_lists(dumps.logits())},
    "lists": {"logits": dumps.lists(dumps.logits())},
    "columns": dumps.wide(dumps.logits()),
}

READ = """
import json, pathlib, random, sys
import numpy as np
from softmax_dask_pipelines.errors import DataError
from softmax_dask_pipelines.sources import SourceRequest, open_source

def logits():
    source = open_source(SourceRequest(sys.argv[1]))
    blocks = [block.logits for block in source.read(0, source.facts.rows)]
    return np.concatenate(blocks).tobytes() if blocks else b""

path, right = pathlib.Path(sys.argv[1]), logits()
whole = path.read_bytes()
footer = int.from_bytes(whole[-8:-4], "little")
for seed in range(int(sys.argv[2])):
    chance = random.Random(seed)
    damaged = bytearray(whole)
    at = len(whole) - 8 - chance.randrange(footer) - 1
    damaged[at] = (damaged[at] + chance.randrange(1, 256)) % 256
    path.write_bytes(damaged)
    try:
        came = "right" if logits() == right else "wrong"
    except DataError as error:
        came = "refused"
    print(json.dumps([seed, came]), flush=True)
"""


@pytest.fixture(scope="module", params=LAYOUTS)
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    """Number and outcome of each damaged copy, up to one that ends the process."""
    columns = dumps.parquet_table(LAYOUTS[request.param])
    path = dumps.parquet_file(tmp_path_factory.mktemp("damage") / "dump.parquet", columns, row_group_size=60)
    done = subprocess.run([sys.executable, "-c", READ, str(path), str(SEEDS)], stdout=subprocess.PIPE, text=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_no_damaged_footer_ends_the_process(outcomes: list[tuple[int, str]]) -> None:
    assert [seed for seed, _ in outcomes] == list(range(SEEDS))


@pytest.mark.slow
def test_no_damaged_footer_gives_wrong_rows(outcomes: list[tuple[int, str]]) -> None:
    assert [seed for seed, came in outcomes if came == "wrong"] == []


@pytest.mark.slow
def test_most_damaged_footers_are_found(outcomes: list[tuple[int, str]]) -> None:
    """What is left is text that nothing depends on: names of writers, statistics."""
    assert sum(came == "refused" for _, came in outcomes) > SEEDS / 2
