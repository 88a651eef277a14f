"""The machinery of the benchmarks: ratios, targets, the results' files, the comparison; and that scripts run at all."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    compare,
    exactness,
    figures,
    gpu,
    gpu_report,
    machine,
    measure,
    partitions,
    peers,
    report,
    run,
    targets,
)
from benchmarks.figures import Figure
from benchmarks.measure import EFFORTS, Effort, Spread
from benchmarks.report import Results

ROOT = Path(__file__).parents[1]
TINY = EFFORTS["tiny"]


def figure(middle, *, low=None, high=None, better="more", row="10 classes", column="faster than torch", unit="x"):
    spread = Spread(middle if low is None else low, middle, middle if high is None else high)
    return Figure("softmax", row, column, spread, better, unit)


def results(*found, instruction_set="AVX2"):
    facts = {
        "processor": "a processor",
        "instruction_set": instruction_set,
        "cores": 2,
        "python": "3.11.7",
        "versions": {"numpy": "2.4.6"},
        "missing": ["jax"],
        "load": [0.25, 1.5],
    }
    return Results("tiny", facts, {"kernels": list(found)})


# ---- measuring


def test_contenders_take_turns():
    order = []

    measure.in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, Effort("", 0, 0, 2, 0.0))

    assert order == ["a", "b"] * 3  # the first pair is not timed


def test_what_comes_before_a_run_is_not_timed(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(measure, "perf_counter", lambda: float(next(clock)))
    readings = []

    seconds = measure.in_turns({"a": lambda: None}, TINY, before=lambda: readings.append(next(clock)))

    assert readings  # it took a tick of the clock each time
    assert set(seconds["a"]) == {1.0}


def test_more_turns_are_taken_while_there_is_time():
    seconds = measure.in_turns({"a": lambda: None}, replace(TINY, seconds=60.0))

    assert len(seconds["a"]) == 4 * TINY.turns


def test_the_garbage_collector_is_on_again_after_an_error():
    def fail():
        raise ZeroDivisionError

    calls = iter([lambda: None, fail])

    with pytest.raises(ZeroDivisionError):
        measure.in_turns({"a": lambda: next(calls)()}, TINY)

    assert measure.gc.isenabled()


def test_a_ratio_is_of_runs_in_the_same_turn():
    # A busy second turn: three times slower for both.
    seconds = {"peer": [4.0, 12.0, 4.0], "ours": [2.0, 6.0, 2.0]}

    assert measure.ratio(seconds, "peer", "ours") == Spread(2.0, 2.0, 2.0)


def test_the_spread_is_that_of_numpy():
    values = [5.0, 1.0, 3.0, 8.0, 2.0]

    found = Spread.of(values)

    assert [found.low, found.middle, found.high] == pytest.approx(np.quantile(values, [0.25, 0.5, 0.75]))


# ---- figures


def test_a_table_has_a_line_a_row_and_a_cell_a_figure():
    found = [figure(2.0), figure(3.0, column="faster than jax"), figure(0.5, row="1000 classes")]

    assert figures.table(found).splitlines() == [
        "| softmax | faster than torch | faster than jax |",
        "| --- | --- | --- |",
        "| 10 classes | 2x | 3x |",
        "| 1000 classes | 0.5x |  |",
    ]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (figure(1.2345), "1.23x"),
        (figure(1.2345, low=1.0, high=1.5), "1.23x (1 to 1.5)"),
        (figure(3.81e-7, unit=""), "3.8e-07"),
        (figure(0.0, unit="MiB"), "0 MiB"),
        (figure(12345.6, unit="ms"), "12,346 ms"),
    ],
)
def test_a_figure_is_shown_with_its_quartiles(given, text):
    assert given.text() == text


def test_figures_come_back_from_json():
    found = [figure(1.5, low=1.25, high=2.0), figure(3.8e-7, better="less", unit="")]

    assert figures.from_json(figures.to_json(found)) == found


# ---- targets


@pytest.mark.parametrize(
    ("better", "found", "met"), [("more", 2.1, True), ("more", 1.9, False), ("less", 1.9, True), ("less", 2.1, False)]
)
def test_a_target_is_met_on_the_better_side(better, found, met):
    judged = targets.Verdict(targets.Target("any", {"": 2.0}), 2.0, figure(found, better=better))

    assert (judged.margin >= 1) is met


@pytest.mark.parametrize(("instruction_set", "limit"), [("AVX-512", 15), ("AVX2", 2), ("neither", 15)])
def test_limits_hang_on_the_instruction_set(instruction_set, limit):
    [found] = [t for t in targets.TARGETS if t.name == "softmax | 10 classes | faster than torch"]

    assert found.limit(instruction_set) == limit


def test_a_limit_of_another_instruction_set_says_so():
    target = targets.Target("any", {"AVX-512": 15.0})

    assert not target.is_for("AVX2")


def test_the_worst_target_stands_first_and_what_was_not_measured_last():
    found = [figure(10.0), figure(0.3, row="16 classes")]  # of 2 and 1.4

    judged = targets.verdicts(found, "AVX2")

    assert [verdict.figure for verdict in judged[:2]] == [found[1], found[0]]
    assert {verdict.figure for verdict in judged[2:]} == {None}


def test_each_target_has_a_name_of_its_own():
    names = [target.name for target in targets.TARGETS]

    assert len(set(names)) == len(names)


# ---- files


def test_results_come_back_from_their_file(tmp_path):
    written = results(figure(1.5, low=1.25, high=2.0))

    report.write(written, tmp_path)

    assert report.read(tmp_path / "results.json") == written


@pytest.mark.parametrize(
    "text",
    [
        "Written by `python -m benchmarks.run --effort tiny`",
        "a processor, **AVX2**, 2 cores.",
        "Load average 0.25 at the beginning, 1.5 at the end.",
        "numpy 2.4.6",
        "Not installed, so skipped: jax",
        "1 of 2 met, 1 not; ",
        "| **NOT met** | softmax, 16 classes, faster than torch | at least 1.4 | 0.3x |",
        "| met | softmax, 10 classes, faster than torch | at least 2 | 10x |",
        "| 10 classes | 10x |",
    ],
)
def test_the_page_says(tmp_path, text):
    report.write(results(figure(10.0), figure(0.3, row="16 classes")), tmp_path)

    assert text in (tmp_path / "results.md").read_text()


def test_a_trial_is_no_result(tmp_path):
    report.write(results(figure(10.0)), tmp_path)

    assert "**These are no results.**" in (tmp_path / "results.md").read_text()


def test_the_page_says_of_each_script_what_it_measures(tmp_path):
    report.write(results(figure(10.0)), tmp_path)

    assert "beside `torch.softmax(x, 1, out=)`" in (tmp_path / "results.md").read_text()


def test_the_committed_page_is_that_of_the_committed_figures():
    assert report.PAGE.read_text() == report.page(report.read()) + "\n"


# ---- comparing


def compared(then, now):
    """The exit code, without measuring again."""
    return compare.verdict(compare.Comparison(then, None, [now]))


class Machine:
    """Measures figures that it makes up: given runs, the last one again and again."""

    def __init__(self, *runs):
        self.asked = []
        self._runs = runs

    def __call__(self, names):
        self.asked.append(list(names))
        found = self._runs[min(len(self.asked), len(self._runs)) - 1]
        return replace(found, sections={name: found.sections[name] for name in names})


@pytest.fixture
def idle(monkeypatch):
    """No other work, whatever this machine does meanwhile."""
    monkeypatch.setattr(machine, "others_share", lambda: lambda: 0.0)


def of_scripts(**sections):
    return replace(results(), effort="quick", sections=sections)


@pytest.mark.parametrize(
    ("then", "now", "code"),
    [
        (figure(2.0), figure(2.0), 0),
        (figure(2.0), figure(1.7), 0),  # within the tolerance
        (figure(2.0), figure(1.4), 1),
        (figure(2.0, low=1.3, high=2.2), figure(1.4, low=1.3, high=1.5), 0),  # within the spread
        (figure(2.0, better="less"), figure(1.0, better="less"), 0),
        (figure(2.0, better="less"), figure(3.0, better="less"), 1),
        (figure(0.0, better="less"), figure(3.0, better="less"), 0),
        (figure(2.0, better="shown"), figure(2.0, better="shown"), 2),
        (figure(2.0, better="less", unit="ms"), figure(9.0, better="less", unit="ms"), 2),
    ],
)
def test_the_exit_code_says_whether_a_ratio_became_worse(then, now, code):
    assert compared(of_scripts(kernels=[then]), of_scripts(kernels=[now])) == code


@pytest.mark.parametrize(("effort", "code"), [("full", 1), ("quick", 0), ("tiny", 0)])
def test_the_tolerance_is_that_of_the_effort(effort, code):
    then, now = (replace(of_scripts(kernels=[figure(value)]), effort=effort) for value in (2.0, 1.6))

    assert compared(then, now) == code


def test_another_instruction_set_is_not_compared(capsys):
    code = compared(results(figure(2.0), instruction_set="AVX-512"), results(figure(2.0)))

    assert code == 2
    assert "of AVX-512, and this machine has AVX2" in capsys.readouterr().out


def test_the_comparison_names_what_became_worse(capsys):
    compared(of_scripts(kernels=[figure(2.0), figure(2.0, row="16 classes")]), of_scripts(kernels=[figure(1.0)]))

    assert "| **WORSE** | softmax, 10 classes, faster than torch | 2x | 1x | 0.50 |" in capsys.readouterr().out


@pytest.mark.usefixtures("idle")
def test_only_scripts_that_look_worse_are_measured_again():
    then = of_scripts(kernels=[figure(2.0)], score=[figure(2.0, row="lz4")])
    slower = of_scripts(kernels=[figure(2.0)], score=[figure(1.0, row="lz4")])
    there = Machine(slower, then)

    code = compare.measured_verdict(then, there, ["kernels", "score"])

    assert code == 0
    assert there.asked == [["kernels", "score"], ["score"]]


@pytest.mark.usefixtures("idle")
def test_what_is_worse_three_times_is_worse():
    then, now = (of_scripts(kernels=[figure(value)]) for value in (3.0, 2.0))
    there = Machine(now)

    code = compare.measured_verdict(then, there, ["kernels"])

    assert code == 1
    assert len(there.asked) == 3


def test_there_is_no_verdict_on_a_machine_that_does_other_work(monkeypatch, capsys):
    monkeypatch.setattr(machine, "others_share", lambda: lambda: 0.4)
    then, now = (of_scripts(kernels=[figure(value)]) for value in (3.0, 2.0))

    code = compare.measured_verdict(then, Machine(now), ["kernels"])

    assert code == 2
    assert "No telling: other work took 40% of the machine." in capsys.readouterr().out


def noisy(random, names, slower=()):
    """A run on a noisy machine: 8 % from run to run, 3 % within one. The ratios of `slower` are 1.5 times worse."""
    middles = {name: 2.0 * random.lognormal(0, 0.08) / (1.5 if name in slower else 1) for name in names}
    found = [figure(m, low=0.97 * m, high=1.03 * m, row=name) for name, m in middles.items()]
    return of_scripts(kernels=found)


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("seed", range(10))
def test_noise_is_no_regression(seed):
    random, names = np.random.default_rng(seed), [str(i) for i in range(190)]
    then, *now = (noisy(random, names) for _ in range(4))

    assert compare.measured_verdict(then, Machine(*now), ["kernels"]) == 0


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("seed", range(10))
def test_a_kernel_that_is_1_5_times_slower_is_a_regression(seed):
    # As many of them as have a kernel in their row: each class count has four ratios or more.
    random, names = np.random.default_rng(seed), [str(i) for i in range(190)]
    then, *now = (noisy(random, names, slower) for slower in ((), names[:10], names[:10], names[:10]))

    assert compare.measured_verdict(then, Machine(*now), ["kernels"]) == 1


def test_the_share_of_others_is_what_is_busy_and_not_ours(monkeypatch):
    seconds = {"perf_counter": [0.0, 10.0], "_busy_s": [100.0, 112.0], "_our_s": [3.0, 9.0]}
    for name, values in seconds.items():
        monkeypatch.setattr(machine, name, iter(values).__next__)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)

    share = machine.others_share()

    assert share() == pytest.approx((12 - 6) / (10 * 2))


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="has no /proc/stat")
def test_work_of_a_child_is_not_that_of_others():
    busy, ours = machine._busy_s(), machine._our_s()

    subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)

    assert machine._our_s() - ours > 0.1
    assert machine._busy_s() - busy >= machine._our_s() - ours - 0.05  # ticks of 10 ms a core


def test_compare_ends_with_its_exit_code(tmp_path):
    for name, value in (("then", 2.0), ("now", 1.0)):
        report.write(of_scripts(kernels=[figure(value)]), tmp_path / name)
    given = [argument for name in ("then", "now") for argument in (f"--{name}", str(tmp_path / name / "results.json"))]

    done = subprocess.run([sys.executable, "-m", "benchmarks.compare", *given], cwd=ROOT, capture_output=True)

    assert done.returncode == 1


# ---- peers and scripts


def test_a_package_that_is_missing_is_no_contender(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)

    assert peers.contenders("torch", work="softmax", x=np.zeros((2, 2), np.float32)) == {}


def test_wrong_results_are_not_timed():
    with pytest.raises(AssertionError, match="torch gives other results"):
        peers.require_equal(np.array([0.5]), np.array([0.51]), who="torch")


def test_a_machine_has_an_instruction_set_and_versions():
    found = machine.description()

    assert found["instruction_set"].startswith(("AVX", "neither"))
    assert "numpy" in found["versions"]


def test_the_error_is_the_largest_of_those_above_the_smallest():
    exact = np.array([0.5, 0.25, 1e-40], np.longdouble)

    found = exactness.error(np.array([0.5, 0.25 * 1.001, 0.0]), exact)

    assert found == pytest.approx(1e-3)


@pytest.mark.parametrize("name", run.SCRIPTS)
def test_each_script_says_what_it_measures_and_how_to_run_it(name):
    assert f"python -m benchmarks.{name}" in report.about(name)


def test_the_longer_scripts_are_left_to_the_full_effort():
    assert run.scripts_of("full") == run.SCRIPTS
    assert set(run.SCRIPTS) - set(run.scripts_of("quick")) == run.LONGER
    assert set(run.SCRIPTS) > run.LONGER


def test_sections_that_are_not_measured_again_stay(tmp_path):
    report.write(replace(results(figure(2.0)), sections={"growth": [figure(3.0)], "kernels": [figure(2.0)]}), tmp_path)

    found = run.completed(results(figure(5.0)), tmp_path)

    assert {name: [each.spread.middle for each in part] for name, part in found.sections.items()} == {
        "kernels": [5.0],
        "growth": [3.0],
    }


@pytest.mark.parametrize("change", [{"effort": "tiny"}, {"machine": {"instruction_set": "another"}}])
def test_sections_of_another_machine_or_of_a_trial_do_not_stay(change, tmp_path):
    old = replace(results(figure(2.0)), effort="quick", sections={"growth": [figure(3.0)]})
    report.write(replace(old, **(change | {"machine": {**old.machine, **change.get("machine", {})}})), tmp_path)

    found = run.completed(replace(results(figure(5.0)), effort="quick"), tmp_path)

    assert found.sections.keys() == {"kernels"}


def test_a_section_that_was_measured_with_another_effort_says_so(tmp_path):
    report.write(replace(results(figure(2.0)), effort="quick"), tmp_path)
    full = replace(results(), effort="full", sections={"growth": [figure(3.0, row="16 classes")]})

    report.write(run.completed(full, tmp_path), tmp_path)

    found = report.read(tmp_path / "results.json")
    assert [found.effort, found.effort_of("kernels"), found.effort_of("growth")] == ["quick", "quick", "full"]
    assert report.page(found).count("Measured with full effort.") == 1
    assert "Measured with full effort. Others used it too." in report.page(
        replace(found, notes={"growth": "Others used it too."})
    )
    assert found.small == {figure(2.0).name}


def test_sections_of_the_full_effort_outlive_a_run_that_leaves_them_out(tmp_path):
    full = replace(results(), effort="full", sections={"growth": [figure(3.0)]})
    report.write(full, tmp_path)
    sections = {name: [figure(2.0, row=name)] for name in run.scripts_of("quick")}

    found = run.completed(replace(results(), effort="quick", sections=sections), tmp_path)

    assert (found.effort, found.efforts) == ("quick", {"growth": "full"})


def test_what_is_asked_of_large_dumps_is_not_judged_of_small_ones():
    [target] = [t for t in targets.TARGETS if t.name == "score decisions | lz4 | faster than Dask"]
    found = Figure("score decisions", "lz4", "faster than Dask", Spread.exactly(2.0), "more")

    large, small = (targets.verdicts([found], "AVX-512", small=names) for names in ((), {found.name}))

    assert (large[0].target, large[0].is_small, large[0].margin) == (target, False, 0.25)
    assert (small[0].target, small[0].is_small) == (target, True)


SCRIPTS = [
    "kernels",
    "variants",
    "products",
    "exactness",
    "score",
    "parquet",
    pytest.param("few", marks=pytest.mark.long),
    pytest.param("carried", marks=pytest.mark.long),
    pytest.param("stages", marks=pytest.mark.long),
]


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.slow
def test_a_script_runs_at_a_tiny_size(name):
    found = run._figures(name, "tiny")

    assert all(f.spread.low <= f.spread.middle <= f.spread.high for f in found)
    assert found


@pytest.mark.slow
def test_as_many_partitions_are_planned_as_there_are_chunks(tmp_path):
    assert partitions.planned(tmp_path, 1000)["partitions"] == 1000


def test_every_target_is_a_figure_of_the_full_results():
    found = report.read()
    if found.effort != "full" or found.machine["missing"]:
        pytest.skip("the committed results are not full")

    missing = {target.name for target in targets.TARGETS} - {f.name for f in found.figures}

    assert missing == set()


# ---- on a GPU


def test_the_gpu_benchmark_says_without_a_gpu_what_it_would_measure():
    line = [sys.executable, "-m", "benchmarks.gpu", "--dry-run"]

    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.count("classes, ") == len(gpu.CLASSES) * len(gpu.DTYPES)


class StandIn:
    """As much of a GPU as the story of the benchmark asks of one; its clock is slow."""

    card, versions = "a card", ["CuPy 14"]

    def __init__(self, seconds):
        self.seconds = lambda run, repeats, warm_up: seconds
        self.free = lambda: None
        self.wrong_results = lambda classes, dtypes: ["labels of 3 classes of float32"]
        self.copy_rate = lambda size, repeats: 1000.0
        self.read_rate = lambda size, repeats: 800.0
        self.stream_rates = lambda size: {"decided": 5.0}
        self.random = lambda shape, dtype: shape
        self.softmaxes = lambda logits: {"softmax-dask": (None, 10**9), "torch.softmax": (None, 10**9)}
        self.decisions = lambda logits, columns: (None, 10**9)


def test_rates_on_a_gpu_are_fractions_of_its_copy_or_of_its_reading():
    found = gpu.measured(StandIn(seconds=0.002), until=float("inf"))

    assert {rate["gigabytes_per_s"] for rate in found["rates"]} == {500.0}
    assert {rate["of_ceiling"] for rate in found["rates"] if rate["what"].startswith("decisions")} == {0.625}
    assert {rate["of_ceiling"] for rate in found["rates"] if rate["what"].startswith("softmax")} == {0.5}


def test_results_of_a_gpu_name_the_card_what_is_wrong_and_which_targets_are_met():
    text = gpu_report.text_of(gpu.measured(StandIn(seconds=0.0011), until=float("inf")))

    assert text.startswith("# On a card\n")
    assert "Wrong results: labels of 3 classes of float32" in text
    assert "| softmax-dask | 1000 | float32 | 909 | 0.91 | 0.93 | 1.00 |  |  | not met |" in text
    assert "| decisions, all | 1000 | float32 | 909 | 1.14 | 0.90 |  |  |  | met |" in text


def test_softmax_on_a_gpu_must_not_be_slower_than_torch():
    rates = {"dtype": "float32", "classes": 100, "target": 0.5, "of_ceiling": 0.9}
    ours, torchs = (
        {"what": "softmax-dask", "gigabytes_per_s": 90.0},
        {"what": "torch.softmax", "gigabytes_per_s": 100.0},
    )
    empty = gpu.measured(StandIn(seconds=1), until=0)

    text = gpu_report.text_of(empty | {"rates": [rates | ours, rates | torchs]})

    assert "| softmax-dask | 100 | float32 | 90 | 0.90 | 0.50 | 0.90 |  |  | not met |" in text


def test_float64_on_a_gpu_is_judged_by_its_peers():
    rates = {"dtype": "float64", "classes": 100, "target": None, "of_ceiling": 0.5}
    ours = {"what": "softmax-dask", "gigabytes_per_s": 50.0}
    cupys = {"what": "cupyx.scipy.special.softmax", "gigabytes_per_s": 20.0}
    empty = gpu.measured(StandIn(seconds=1), until=0)

    text = gpu_report.text_of(empty | {"rates": [rates | ours, rates | cupys]})

    assert "| softmax-dask | 100 | float64 | 50 | 0.50 |  |  |  | 2.50 | not met |" in text


def test_what_does_not_fit_the_time_on_a_gpu_is_listed():
    found = gpu.measured(StandIn(seconds=0.001), until=0)

    assert len(found["left_out"]) == len(gpu.CLASSES) * len(gpu.DTYPES)
