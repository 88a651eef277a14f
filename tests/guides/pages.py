"""The guides' Python, block by block, and running it."""

import re
from pathlib import Path
from typing import Any

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
PAGES = [path.name for path in sorted(GUIDES.glob("*.md"))]

Names = dict[str, Any]


def blocks(page: str, heading: str = "") -> list[str]:
    """Python blocks below the heading, down to the next of its level or a higher one; without heading of the page."""
    text = (GUIDES / page).read_text()
    if heading:
        level = heading.partition(" ")[0]
        _, found, text = text.partition(f"\n{heading}\n")
        assert found, f"{page} has no heading {heading!r}"
        text = re.split(rf"^#{{1,{len(level)}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run(code: str, names: Names) -> Names:
    """The names after the code has run; it reads and writes below the working directory."""
    exec(compile(code, "<guide>", "exec"), names)
    return names


def writers() -> Names:
    """The functions of the page on dumps; calls them as the page does, below the working directory."""
    page = "writing-dumps.md"
    names: Names = {}
    for code in (blocks(page)[0], blocks(page, "## Zarr")[0], blocks(page, "## Parquet")[0]):
        run(code, names)
    return names
