"""Runs every benchmark and writes `benchmarks/results.md`: figures, versions, and the processor they are from.

make bench
"""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parent
SCRIPTS = ("kernels", "memory", "startup")
PACKAGES = ("dask", "numba", "numpy", "pyarrow", "scipy", "zarr")


def main() -> None:
    parts = [
        "# Results\nWritten by `make bench`. Read ratios: machines differ, and this one was not idle.",
        f"{processor()}, Python {platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in PACKAGES),
        *(section(name) for name in SCRIPTS),
    ]
    (FOLDER / "results.md").write_text("\n\n".join(parts) + "\n")


def section(name: str) -> str:
    print(f"benchmarks/{name}.py", file=sys.stderr)
    script = FOLDER / f"{name}.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    return f"## {name}\n{docstring(script)}\n\n{done.stdout.strip()}"


def docstring(script: Path) -> str:
    """What the script says it measures."""
    return script.read_text().split('"""')[1].strip()


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
