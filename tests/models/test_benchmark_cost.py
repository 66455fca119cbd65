"""What the benchmarks count, against closed forms and another counter; and that they run."""

import itertools
import json
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ecgdiff.models.sashimi import PRESETS, Block, SaShiMi

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
cost = import_module("cost")

CPU = torch.device("cpu")
TINY = {"d_model": 8, "n_layers": 1, "pool": (1, 2), "state": 4, "t_features": 8, "t_width": 16}


def _preset(name: str) -> SaShiMi:
    with torch.device("meta"):
        return SaShiMi(9, **PRESETS[name])


@pytest.mark.parametrize(
    ("name", "length", "gflop"),
    [("paper", 1024, 8.90), ("paper", 256, 2.23), ("base", 1024, 4.67), ("base", 256, 1.17)],
)
def test_operations_are_those_of_the_specification(name: str, length: int, gflop: float) -> None:
    assert cost.forward_flops(_preset(name), length) / 1e9 == pytest.approx(gflop, rel=0.01)


@pytest.mark.parametrize("size", [{}, {"pool": (2, 2)}, {"stem": 2, "n_layers": 2}])
def test_operations_and_elements_are_what_a_call_does(size: dict[str, object]) -> None:
    net, length, elements = SaShiMi(3, **{**TINY, **size}).eval(), 32, []
    for module in net.modules():
        if isinstance(module, Block):
            module.register_forward_hook(lambda _, given, __: elements.append(given[0].numel()))
    x, level = torch.randn(1, 3, length), torch.rand(1)
    with torch.no_grad():
        net(x, level)  # Makes the spectra, by matrix products of its own.
        elements.clear()
        with FlopCounterMode(display=False) as counter:
            net(x, level)
    assert cost.forward_flops(net, length) == counter.get_total_flops()
    assert cost.block_elements(net, length) == sum(elements)


def test_bytes_are_those_of_the_specification() -> None:
    paper, base = (cost.block_elements(_preset(name), 1024) for name in ("paper", "base"))
    assert paper == pytest.approx(3.15e6, rel=0.01)
    assert base / paper == pytest.approx(0.58, abs=0.005)
    assert cost.training_bytes(paper, torch.bfloat16) == 3 * 50 * 2 * paper
    assert cost.training_bytes(paper, torch.float32) == 3 * (31 * 2 + 19 * 4) * paper


def test_saved_bytes_counts_each_storage_once() -> None:
    x = torch.randn(100, requires_grad=True)
    assert cost.saved_bytes(lambda: x.sin()) == 400
    assert cost.saved_bytes(lambda: x * x) == 400
    assert cost.saved_bytes(lambda: x.sin().exp().exp()) == 3 * 400


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only those who write it move on."""
    time = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: time[0])
    return time


def _takes(seconds: float, clock: list[float], log: list[float]) -> Callable[[], None]:
    def call() -> None:
        clock[0] += seconds
        log.append(seconds)

    return call


def test_calls_alternate_and_stop_at_the_limit(clock: list[float]) -> None:
    log: list[float] = []
    calls = {"fast": _takes(1.0, clock, log), "slow": _takes(3.0, clock, log)}
    seconds = cost.alternate(calls, repeats=9, limit=13.0, device=CPU)
    assert seconds == {"fast": [1.0] * 3, "slow": [3.0] * 3}
    assert log == [1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 1.0, 3.0]
    assert len(cost.alternate(calls, repeats=2, limit=13.0, device=CPU)["fast"]) == 2
    with pytest.raises(TimeoutError, match=r"fast 1\.0 s and slow 3\.0 s; .* 2 s"):
        cost.alternate(calls, repeats=9, limit=2.0, device=CPU)


def test_peaks_are_operations_and_bytes_over_the_least_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = itertools.chain([0.0, 4.0, 10.0, 10.5], itertools.count(100.0, 1.0))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(ticks))
    assert cost.peak_flops(CPU, torch.float32, 16, repeats=2) == 2 * 16**3 / 0.5
    assert cost.peak_bytes(CPU, 1000, repeats=2) == 2000


def _run(
    name: str, arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    monkeypatch.setitem(PRESETS, "small", TINY)
    script = import_module(name)
    for constant, value in {"RECORDS": 8, "SIZES": {"cpu": (16, 1024)}}.items():
        if hasattr(script, constant):
            monkeypatch.setattr(script, constant, value)
    given = f"{name}.py --preset small --threads {torch.get_num_threads()} {arguments}"
    monkeypatch.setattr(sys, "argv", given.split())
    script.main()
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_architecture_times_both_networks(
    precision: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = f"--batch 1 2 --length 16 --repeats 2 --precision {precision}"
    lines = _run("architecture", arguments, monkeypatch, capsys)
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert [(row["batch"], row["pass"]) for row in rows] == list(
        itertools.product((1, 2), ("forward", "forward_and_vjp"))
    )
    for row in rows:
        assert "skipped" not in row
        assert 0 < row["ours_ms_min"] <= row["ours_ms"]
        assert row["ratio"] == pytest.approx(row["plain_ms"] / row["ours_ms"], rel=0.05)
    assert len(lines) == 4 + 2 + 4


def test_architecture_says_what_it_leaves_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = "--batch 1 --length 16 --repeats 1"
    lines = _run("architecture", f"{few} --limit 1e-9", monkeypatch, capsys)
    assert all("one call took" in json.loads(line)["skipped"] for line in lines[:2])
    lines = _run("architecture", f"{few} --memory 1e-9", monkeypatch, capsys)
    assert "skipped" not in json.loads(lines[0])
    assert "--memory" in json.loads(lines[1])["skipped"]


def test_training_step_reports_shares_of_the_limits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = import_module("training_step")
    monkeypatch.setattr(script, "peak_flops", lambda *_: 1e6)
    monkeypatch.setattr(script, "peak_bytes", lambda *_: 1e5)
    arguments = "--batch 2 --length 16 --steps 2 --warmup 1"
    (line,) = _run("training_step", arguments, monkeypatch, capsys)
    row, net = json.loads(line), SaShiMi(8, **TINY)
    per_s = row["samples_per_s"]
    assert per_s == pytest.approx(2000 / row["ms_per_step"], rel=0.01)
    flops, moved = 3 * cost.forward_flops(net, 16), 300 * cost.block_elements(net, 16)
    assert row["flop_limit_share"] == pytest.approx(per_s * flops / 1e6, rel=0.01)
    assert row["byte_limit_share"] == pytest.approx(per_s * moved / 1e5, rel=0.01)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_step_trains(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script, net = import_module("training_step"), SaShiMi(8, **TINY)
    monkeypatch.setattr(script, "RECORDS", 4)
    given = {"device": "cpu", "length": 16, "batch": 2, "compile": None, "precision": precision}
    step = script.training_step(net, Namespace(**given))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    step()  # The head starts at zero: what comes before it has no gradient yet.
    step()
    assert all((p != before[name]).any() for name, p in net.named_parameters())
