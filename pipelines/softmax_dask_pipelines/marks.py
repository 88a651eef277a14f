"""Which partitions are done: a byte each, for a million of them in a set would take a hundred megabytes."""

from array import array
from collections.abc import Sequence


class Marks:
    """Numbers from 0 on, each marked or not."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __contains__(self, number: int) -> bool:
        """Whether it is marked."""
        return number < len(self._bytes) and self._bytes[number] == 1

    def add(self, number: int) -> None:
        """Mark it."""
        if number >= len(self._bytes):
            self._bytes.extend(bytes(max(number + 1, 2 * len(self._bytes)) - len(self._bytes)))
        self._bytes[number] = 1

    def rest(self, numbers: range) -> Sequence[int]:
        """Those that are not marked, in order."""
        return array("q", (number for number in numbers if number not in self)) if 1 in self._bytes else numbers
