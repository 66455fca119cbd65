"""Our network against the published architecture at equal shapes: forward, and forward with VJP.

    python benchmarks/architecture.py [--preset paper] [--batch 1 10] [--length 256 1024]
        [--device cuda] [--precision bfloat16] [--threads 1] [--repeats 7] [--limit 120]

`plain` is benchmarks/plain_sashimi.py: S4-NPLR layers whose kernels every call generates anew,
layout (batch, channels, time), weight normalization, eager. `ours` keeps the spectra of its
kernels. Both predict without gradients (forward), and with one for the input only
(forward_and_vjp): the parameters of both are frozen, so neither differentiates its kernels.
Widths, pools, blocks, leads and inputs are the same. Calls alternate after a warm-up; ratio is
plain / ours of the median wall times.

Prints one JSON line per batch, length and pass, and a table. A line without times says why: one
call takes longer than the limit, or a VJP needs more memory than there is.
"""

import argparse
import json
import os
import statistics
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from cost import alternate, saved_bytes
from plain_sashimi import PlainSaShiMi
from torch import Tensor, nn

from ecgdiff.models.autocast import Autocast
from ecgdiff.models.sashimi import PRESETS, SaShiMi

LEADS = 8
COLUMNS = ("preset", "batch", "length", "pass", "ours_ms", "plain_ms", "ratio", "skipped")


def networks(preset: str, length: int, precision: str, device: str) -> dict[str, nn.Module]:
    """Both networks with frozen random weights; a head of zeros would give gradients of zero."""
    torch.manual_seed(0)
    nets: dict[str, Any] = {
        "ours": SaShiMi(LEADS, **PRESETS[preset]),
        "plain": PlainSaShiMi(length, LEADS, **PRESETS[preset]),
    }
    for name, net in nets.items():
        nn.init.normal_(net.output.weight, std=0.1)
        net.to(device).eval().requires_grad_(False)
        nets[name] = Autocast(net) if precision == "bfloat16" else net
    return nets


def inputs(batch: int, length: int, device: str) -> tuple[Tensor, Tensor]:
    """Signals and levels."""
    x = torch.randn(batch, LEADS, length, device=device)
    return x, 1000 * torch.rand(batch, device=device)


def forward(net: nn.Module, x: Tensor, level: Tensor) -> Tensor:
    """A prediction."""
    with torch.no_grad():
        out: Tensor = net(x, level)
    return out


def forward_and_vjp(net: nn.Module, x: Tensor, level: Tensor) -> Tensor:
    """A prediction, and its vector-Jacobian product with respect to the signals."""
    out = net(x.requires_grad_(), level)
    return torch.autograd.grad(out, x, x.detach())[0]


def needed_gb(nets: dict[str, nn.Module], length: int, device: str) -> dict[str, list[float]]:
    """Gigabytes of a VJP by network: for one signal, and for each further one.

    Extrapolated from what one and two signals keep, a quarter more for the gradients on their way.
    """
    needed = {}
    for name, net in nets.items():
        one, two = (
            1.25e-9 * saved_bytes(partial(net, x.requires_grad_(), level))
            for x, level in (inputs(1, length, device), inputs(2, length, device))
        )
        needed[name] = [one, two - one]
    return needed


def memory_gb(device: str) -> float:
    """Free memory of the device; of a CPU three quarters of what is built in."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] / 1e9
    return 0.75e-9 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def rows(nets: dict[str, nn.Module], length: int, options: Any) -> Iterator[dict[str, Any]]:
    """Times both networks at one length, for every batch and pass."""
    needed = needed_gb(nets, length, options.device)
    for batch in options.batch:
        x, level = inputs(batch, length, options.device)
        reason = ""
        for run in (forward, forward_and_vjp):
            row = {"batch": batch, "length": length, "pass": run.__name__}
            need = max(first + (batch - 1) * more for first, more in needed.values())
            if run is forward_and_vjp and not reason and need > options.memory:
                reason = f"needs {need:.1f} GB, of {options.memory:.1f} GB (--memory)"
            if not reason:
                try:
                    calls = {n: partial(run, net, x, level) for n, net in nets.items()}
                    row |= timed(calls, options)
                except TimeoutError as error:
                    reason = f"{run.__name__}: {error}"
                except torch.OutOfMemoryError:
                    reason = f"{run.__name__}: out of memory"
                    torch.cuda.empty_cache()
            yield row | ({"skipped": reason} if reason else {})


def timed(calls: dict[str, partial[Tensor]], options: Any) -> dict[str, Any]:
    """Median and least milliseconds of both, and the ratio of the medians."""
    seconds = alternate(calls, options.repeats, options.limit, torch.device(options.device))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    row: dict[str, Any] = {f"{name}_ms": round(1e3 * s, 2) for name, s in median.items()}
    row |= {f"{name}_ms_min": round(1e3 * min(values), 2) for name, values in seconds.items()}
    row |= {"ratio": round(median["plain"] / median["ours"], 2)}
    return row | {"repeats": len(seconds["ours"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", nargs="+", choices=PRESETS, default=["paper"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 10, 128])
    parser.add_argument("--length", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds per line")
    parser.add_argument("--memory", type=float, help="gigabytes that a VJP may take")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.memory = options.memory or memory_gb(options.device)
    machine = {k: getattr(options, k) for k in ("device", "precision", "threads")}
    table = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for preset, length in product(options.preset, options.length):
        nets = networks(preset, length, options.precision, options.device)
        for row in rows(nets, length, options):
            row = {"preset": preset, **machine, **row}
            print(json.dumps(row), flush=True)
            table.append("| " + " | ".join(str(row.get(name, "")) for name in COLUMNS) + " |")
    print("\n".join(table))


if __name__ == "__main__":
    main()
