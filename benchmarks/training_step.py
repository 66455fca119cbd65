"""One training step of the prior: milliseconds, signals per second, shares of the limits.

    python benchmarks/training_step.py [--preset base] [--batch 128] [--length 1000]
        [--device cuda] [--precision bfloat16] [--compile default] [--toeplitz 256] [--steps 50]

A step draws a batch of synthetic 16-bit signals that lie on the device, noise and levels, and
takes the loss that the prior is trained with, its gradient, clipped, and a step of AdamW: what a
training run does less its log, averages and validation. The shares are the least time in which the
machine could do a step's operations, or move its bytes, over the time that it took. Both are
counted as benchmarks/cost.py says; the machine's peaks are measured in the same run, by a large
matrix product in the same precision and by a large copy. Prints one JSON line.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from cost import (
    block_elements,
    forward_flops,
    peak_bytes,
    peak_flops,
    synchronize,
    training_bytes,
)
from torch import nn

from ecgdiff.lightning.losses import draw_sigma, edm_loss, parameter_groups
from ecgdiff.models import s4
from ecgdiff.models.sashimi import PRESETS, SaShiMi

LEADS, RECORDS, MICROVOLTS_PER_UNIT = 8, 4096, 236.0
# Large enough to leave every cache: rows of a square matrix, bytes of a copy.
SIZES = {"cpu": (2048, 2**30), "cuda": (16384, 2**32)}


def training_step(net: SaShiMi, options: argparse.Namespace) -> Callable[[], None]:
    """Makes the function that does one step."""
    device = options.device
    shape = (RECORDS, LEADS, options.length)
    data = torch.randint(-700, 700, shape, dtype=torch.int16, device=device)
    groups = parameter_groups(net, 1e-3, 0.01)
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    # As training/slot.py does it.
    mode = None if options.compile == "default" else options.compile
    train_net = torch.compile(net, mode=mode, dynamic=False) if options.compile else net
    bfloat16 = options.precision == "bfloat16"

    def step() -> None:
        picked = torch.randint(RECORDS, (options.batch,), device=device)
        x0 = data[picked].float() / MICROVOLTS_PER_UNIT
        sigma = draw_sigma(options.batch, device=device)[:, None, None]
        noise = torch.randn_like(x0)
        with torch.autocast(device, torch.bfloat16) if bfloat16 else nullcontext():
            loss = edm_loss(train_net, x0, sigma, noise)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds_per_step(step: Callable[[], None], options: argparse.Namespace) -> list[float]:
    """Times groups of steps: waiting for the device after every single one would slow it down."""
    device, each = torch.device(options.device), max(1, options.steps // 5)
    for _ in range(options.warmup):
        step()
    seconds = []
    for _ in range(options.steps // each):
        synchronize(device)
        began = time.perf_counter()
        for _ in range(each):
            step()
        synchronize(device)
        seconds.append((time.perf_counter() - began) / each)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="paper")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--compile", metavar="MODE", help="mode of torch.compile; eager without")
    parser.add_argument(
        "--toeplitz",
        type=int,
        default=s4.TOEPLITZ_LENGTH,
        metavar="LENGTH",
        help="the longest sequence that is convolved by matrices and not by FFT",
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--warmup", type=int, default=5, help="steps before, compilation included")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    s4.TOEPLITZ_LENGTH = options.toeplitz
    device, dtype = torch.device(options.device), getattr(torch, options.precision)
    net = SaShiMi(LEADS, **PRESETS[options.preset]).to(device).train()
    flops = 3 * options.batch * forward_flops(net, options.length)
    moved = options.batch * training_bytes(block_elements(net, options.length), dtype)
    seconds = seconds_per_step(training_step(net, options), options)
    rows, size = SIZES[options.device]
    most_flops, most_bytes = peak_flops(device, dtype, rows), peak_bytes(device, size)
    median = statistics.median(seconds)
    given = ("preset", "batch", "length", "device", "precision", "compile", "toeplitz", "threads")
    line = {name: getattr(options, name) for name in given} | {
        "ms_per_step": round(1e3 * median, 2),
        "ms_per_step_min": round(1e3 * min(seconds), 2),
        "samples_per_s": round(options.batch / median, 2),
        "gflop_per_step": round(1e-9 * flops, 2),
        "gb_per_step": round(1e-9 * moved, 3),
        "measured_gflop_per_s": round(1e-9 * most_flops, 1),
        "measured_gb_per_s": round(1e-9 * most_bytes, 2),
        "flop_limit_share": round(flops / most_flops / median, 4),
        "byte_limit_share": round(moved / most_bytes / median, 4),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
