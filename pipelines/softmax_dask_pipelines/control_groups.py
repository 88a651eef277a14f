"""Memory that Linux's control groups allow this process: its own group, and all that this one lies in.

In a container the group is the root of what can be seen; that of a Slurm job or of a unit of systemd lies further
down. Both versions are read, as cgroups(7) and the kernel's admin-guide describe them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc/self")
_NO_LIMIT = 1 << 60
"""Version 1 has no word for none: it gives the largest number of pages."""


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """What one group may have, and has."""

    most_bytes: int
    used_bytes: int
    """Without pages of files, which the system takes back when it needs them: all that was read lately is in these."""


@dataclass(frozen=True, slots=True)
class _Names:
    """What a version calls its files, and a prefix of the counters that hold for a group and those inside of it."""

    most: tuple[str, ...]
    used: str
    counters: str = ""


_VERSION_1 = _Names(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_")
_VERSION_2 = _Names(("memory.max", "memory.high"), "memory.current")


def memory_groups() -> list[MemoryGroup]:
    """Those with a limit, the innermost first; none where the system is another, or does not say."""
    return [group for folder, names in _folders() if (group := _group(folder, names)) is not None]


def _folders() -> Iterator[tuple[Path, _Names]]:
    own = dict(_own_paths())
    for version_1, root, mounted in _mounts():
        path = own.get("memory" if version_1 else "")
        if path is None:
            continue
        # Without a namespace of its own a container sees its group mounted, and is told the path outside.
        inside = path.relative_to(root) if path.is_relative_to(root) else Path()
        folder = mounted / inside
        for outer in (folder, *folder.parents):
            if outer.is_relative_to(mounted):
                yield outer, _VERSION_1 if version_1 else _VERSION_2


def _own_paths() -> Iterator[tuple[str, Path]]:
    """Controller -> path of this process' group; version 2 has no name there."""
    for line in _lines(_PROC / "cgroup"):
        _, controllers, path = line.split(":", 2)
        yield from ((controller, Path(path)) for controller in controllers.split(","))


def _mounts() -> Iterator[tuple[bool, Path, Path]]:
    """Whether it is of version 1, what of its tree is mounted, and where: of all mounts with a memory controller."""
    for line in _lines(_PROC / "mountinfo"):
        mount, _, system = line.partition(" - ")
        root, mounted = mount.split()[3:5]
        kind, _, options = system.split(" ", 2)
        version_1 = kind == "cgroup" and "memory" in options.split(",")
        if version_1 or kind == "cgroup2":
            yield version_1, Path(root), Path(mounted)


def _group(folder: Path, names: _Names) -> MemoryGroup | None:
    limits = [limit for name in names.most if (limit := _number(folder / name)) is not None and limit < _NO_LIMIT]
    used = _number(folder / names.used)
    if not limits or used is None:
        return None
    counters = dict(line.split() for line in _lines(folder / "memory.stat"))
    files = sum(int(counters.get(f"{names.counters}{kind}_file", 0)) for kind in ("active", "inactive"))
    return MemoryGroup(min(limits), max(0, used - files))


def _number(path: Path) -> int | None:
    text = "".join(_lines(path))
    return int(text) if text.isdecimal() else None  # "max", or nothing there


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
