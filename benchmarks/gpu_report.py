"""What `benchmarks.gpu` measured, for people."""

from collections.abc import Iterator, Mapping
from typing import Any

PEERS = {"torch.softmax": 1.0, "Triton, fused": None, "cupyx.scipy.special.softmax": 3.0}
"""Those whose rate stands beside ours, and how many times as fast ours must be."""
_HEAD = ["what", "classes", "dtype", "GB/s", "of the ceiling", "asked for", *(f"times {name}" for name in PEERS), ""]

Row = Mapping[str, Any]


def text_of(results: Mapping[str, Any]) -> str:
    """A page of Markdown."""
    rows = [line for rate in results["rates"] for line in _line(rate, results["rates"])]
    verdicts = [row[-1] for row in rows]
    lines = [
        f"# On {results['card']}",
        f"Written by `make gpu-bench`. {', '.join(results['versions'])}. A copy from the device to itself moves "
        f"{results['copy_gigabytes_per_s']:.0f} GB/s, read and written bytes together: the ceiling of softmax. A sum "
        f"reads {results['read_gigabytes_per_s']:.0f} GB/s: the ceiling of decisions.",
        "",
        "Wrong results: " + ("none." if not results["wrong"] else "; ".join(results["wrong"])),
        "",
        f"{verdicts.count('met')} of {len(verdicts) - verdicts.count('')} targets met.",
        "",
        *("| " + " | ".join(row) + " |" for row in [_HEAD, ["---"] * len(_HEAD), *rows]),
        "",
        *(f"{name}: {rate:.1f} GB/s of logits  " for name, rate in results["streaming_gigabytes_per_s"].items()),
        *([f"Left out for lack of time: {', '.join(results['left_out'])}"] if results["left_out"] else []),
    ]
    return "\n".join(lines) + "\n"


def _line(rate: Row, rates: list[Row]) -> Iterator[list[str]]:
    if rate["what"] in PEERS:
        return
    beside = _beside(rate, rates)
    target = rate["target"]
    figures = [f"{rate['gigabytes_per_s']:.0f}", f"{rate['of_ceiling']:.2f}", "" if target is None else f"{target:.2f}"]
    ratios = ["" if name not in beside else f"{beside[name]:.2f}" for name in PEERS]
    yield [rate["what"], str(rate["classes"]), rate["dtype"], *figures, *ratios, _verdict(rate, beside)]


def _beside(rate: Row, rates: list[Row]) -> dict[str, float]:
    """How many times as fast as each peer."""
    if rate["what"].startswith("decisions"):
        return {}
    same = [r for r in rates if (r["classes"], r["dtype"]) == (rate["classes"], rate["dtype"]) and r["what"] in PEERS]
    return {r["what"]: rate["gigabytes_per_s"] / r["gigabytes_per_s"] for r in same}


def _verdict(rate: Row, beside: Mapping[str, float]) -> str:
    asked = [(ratio, least) for name, ratio in beside.items() if (least := PEERS[name]) is not None]
    if rate["target"] is not None:
        asked.append((rate["of_ceiling"], rate["target"]))
    return "" if not asked else "met" if all(found >= least for found, least in asked) else "not met"
