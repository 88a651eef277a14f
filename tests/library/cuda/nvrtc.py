"""NVIDIA's compiler and disassembler without a GPU, a driver or a CUDA toolkit: two packages of PyPI."""

import ctypes
import re
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple


class Compiled(NamedTuple):
    """What became of a text."""

    cubin: bytes
    log: str

    def registers(self) -> dict[str, int]:
        """Of a thread, by kernel."""
        return {name: int(found[0]) for name, found in self._facts(r"Used (\d+) registers").items()}

    def spills(self) -> dict[str, int]:
        """Bytes that went to memory because registers were too few, by kernel."""
        found = self._facts(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
        return {name: sum(map(int, counts)) for name, counts in found.items()}

    def _facts(self, pattern: str) -> dict[str, tuple[str, ...]]:
        _, *parts = re.split(r"Compiling entry function '(\w+)'", self.log)
        found = {name: re.search(pattern, part) for name, part in zip(parts[::2], parts[1::2], strict=True)}
        return {name: match.groups() for name, match in found.items() if match}


def _file_of(package: str, name: str) -> Path | None:
    try:
        found = next((f for f in files(package) or () if f.name.startswith(name)), None)
    except PackageNotFoundError:
        return None
    return None if found is None else Path(str(found.locate()))


NVRTC = _file_of("nvidia-cuda-nvrtc-cu12", "libnvrtc.so")
NVDISASM = _file_of("nvidia-cuda-nvdisasm", "nvdisasm") or which("nvdisasm")


@cache
def _library() -> Any:
    return ctypes.CDLL(str(NVRTC))


def compiled(code: str, architecture: int, options: tuple[str, ...]) -> Compiled:
    """The text for GPUs of an architecture, with the option that CuPy always adds."""
    library, program = _library(), ctypes.c_void_p()
    flags = [f"-arch=sm_{architecture}", *options, "-ftz=true", "--ptxas-options=-v"]
    library.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None)
    status = library.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*map(str.encode, flags)))
    log = _bytes(program, "ProgramLog").decode().rstrip("\0")
    assert status == 0, log
    result = Compiled(_bytes(program, "CUBIN"), log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return result


def _bytes(program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(_library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(_library(), f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def instructions(cubin: bytes, folder: Path) -> dict[str, list[str]]:
    """The machine code of each kernel, labels among it, a line an item."""
    path = folder / "kernels.cubin"
    path.write_bytes(cubin)
    command = [str(NVDISASM), "-c", str(path)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in listing.splitlines():
        if section := re.match(r"\s*\.text\.(\w+):", line):
            lines = found.setdefault(section[1], [])
        elif item := re.match(r"\s*(\.L_\w+):", line) or re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            lines.append(item[1])
    return found


def innermost_loop(lines: list[str], holds: str) -> list[str]:
    """The shortest loop with an instruction that `holds` matches."""
    labels = {line: i for i, line in enumerate(lines) if line.startswith(".L_")}
    loops = []
    for i, line in enumerate(lines):
        jump = re.search(r"BRA.*?(\.L_\w+)", line)
        if jump and labels.get(jump[1], i) < i:
            body = [item for item in lines[labels[jump[1]] : i + 1] if not item.startswith(".L_")]
            if any(re.search(holds, item) for item in body):
                loops.append(body)
    return min(loops, key=len)
