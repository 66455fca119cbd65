"""Time per network call, and what each sampler needs beyond its calls: ten draws of 10 s.

    python benchmarks/samplers.py [--only mmps surrogate] [--steps 10] [--measured half]

Measured is lead I, or all leads in 1.28 s of the 10 s (`half`), which the surrogate solves for as
a dense matrix at every step. Each sampler runs with the embedded prior that it needs:
`conditional` with one whose network sees the observation, the others with the default one.

Prints one JSON line for each network, one per sampler, and a table. Overhead is (total - network)
/ network. Time stamps before and after the network, in the forward and in the backward pass, tell
the two apart. All runs on one thread; CPU time counts, since other programs may share the machine.
"""

import argparse
import json
import time
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import ecgdiff
from ecgdiff.demo import load_truth
from ecgdiff.errors import EcgDiffError
from ecgdiff.prior import Prior, load_prior, needed_prior
from ecgdiff.samplers import NFE, SAMPLERS, Sampler


def now() -> np.ndarray:
    """CPU seconds of the process, seconds on the wall."""
    return np.array([time.process_time(), time.perf_counter()])


class Mark(torch.autograd.Function):
    """The identity, which calls a function when a pass back goes through it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, passed: Callable[[], None]) -> Tensor:
        ctx.passed = passed
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        ctx.passed()
        return gradient, None


class Timed(nn.Module):
    """A network that counts its calls and passes back, and the time that they take."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.reset()

    def reset(self) -> None:
        self.forwards = self.vjps = 0
        self.spent, self.began = np.zeros(2), now()

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        begin = now()
        out: Tensor = self.net(Mark.apply(x, self._end_back), *rest)
        self.spent += now() - begin
        self.forwards += 1
        return Mark.apply(out, lambda: setattr(self, "began", now()))  # type: ignore[no-any-return]

    def _end_back(self) -> None:
        self.spent += now() - self.began
        self.vjps += 1


class Clocked(Sampler):
    """A sampler that notes how long it ran."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.total = sampler, np.zeros(2)

    def nfe(self) -> NFE:
        return self.sampler.nfe()

    def _sample(self, denoiser: Any, observation: Any, shape: Any, *rest: Any) -> Tensor:
        begin = now()
        draws = self.sampler(denoiser, observation, shape, generator=rest[0], progress=rest[1])
        self.total = now() - begin
        return draws


@cache
def timed_prior(name: str) -> Prior:
    """An embedded prior whose network is timed and warmed up; prints what one call costs."""
    prior = load_prior(name)
    prior = replace(prior, denoiser=copy(prior.denoiser))
    prior.denoiser.net = Timed(prior.denoiser.net)
    warm_up = next(kind for kind in SAMPLERS.values() if needed_prior(kind()) == name)
    ecgdiff.reconstruct(**observed("lead_I"), sampler=warm_up(steps=2), prior=prior)
    cost = {"forward": call(prior, back=False), "forward_and_vjp": call(prior, back=True)}
    print(json.dumps({"prior": name, "network_call_cpu_and_wall_ms": cost}), flush=True)
    return prior


def call(prior: Prior, *, back: bool, repeats: int = 7) -> list[float]:
    """CPU and wall milliseconds of one network call for ten draws, medians."""
    timed, spent = prior.denoiser.net, []
    x = torch.randn(10, len(prior.leads), prior.n_samples)
    for _ in range(repeats):
        timed.reset()
        with torch.set_grad_enabled(back):
            out = prior.denoiser(x.requires_grad_(back), 500)
        if back:
            torch.autograd.grad(out, x, out)
        spent.append(timed.spent)
    return [round(1e3 * float(s), 1) for s in np.median(spent, axis=0)]


def observed(what: str) -> dict[str, Any]:
    """The arguments of `reconstruct` that say what was measured."""
    if what == "lead_I":
        return {"recording": load_truth().select(["I"])}
    return {"recording": load_truth(), "lost": [(1.28, 10.0)], "allow": "too-short"}


def one(name: str, steps: int | None, measured: str) -> dict[str, Any]:
    """Runs one sampler by `reconstruct`, which gives it its observation."""
    prior = timed_prior(needed_prior(SAMPLERS[name]()))
    sampler = Clocked(SAMPLERS[name](**({} if steps is None else {"steps": steps})))
    prior.denoiser.net.reset()
    try:
        ecgdiff.reconstruct(**observed(measured), draws=10, sampler=sampler, prior=prior)
    except EcgDiffError as error:
        return {"sampler": name, "refused": str(error)}
    timed, nfe = prior.denoiser.net, sampler.nfe()
    if (timed.forwards, timed.vjps) != nfe:
        raise RuntimeError(f"{name} says {nfe} and made {timed.forwards} and {timed.vjps} calls.")
    cpu, wall = zip(sampler.total, timed.spent, strict=True)
    return {
        "sampler": name,
        "measured": measured,
        "prior": prior.name,
        "steps": sampler.sampler.steps,
        **nfe._asdict(),
        "cpu_s": round(cpu[0], 3),
        "network_cpu_s": round(cpu[1], 3),
        "overhead_percent": round(100 * (cpu[0] / cpu[1] - 1), 1),
        "wall_s": round(wall[0], 3),
        "network_wall_s": round(wall[1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--steps", type=int, help="levels, for a quicker run; else the defaults")
    parser.add_argument("--measured", choices=("lead_I", "half"), default="lead_I")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.only:
        rows.append(one(name, options.steps, options.measured))
        print(json.dumps(rows[-1]), flush=True)
    rows = [row for row in rows if "refused" not in row]
    for line in [[list(row), ["---"] * len(row)] for row in rows[:1]] + [
        [r.values()] for r in rows
    ]:
        print("\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in line))


if __name__ == "__main__":
    main()
