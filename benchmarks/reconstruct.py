"""Seconds and peak memory of `ecgdiff.reconstruct`: lead I of a 10 s ECG, ten draws.

    python benchmarks/reconstruct.py [--hours 1]

Prints one JSON line per sampler. Each sampler runs in a process of its own, so that its peak
memory is its own; the first run, which loads the weights, is not timed.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch

import ecgdiff
from ecgdiff.demo import load_truth
from ecgdiff.ecg.recording import Recording
from ecgdiff.samplers import MGPS, MMPS, Conditional, Sampler, Surrogate

SAMPLERS: dict[str, Sampler] = {
    "conditional (default)": Conditional(),
    "mmps": MMPS(),
    "mmps, 2 iterations": MMPS(iterations=2),
    "surrogate": Surrogate(),
    "mgps, 50 steps": MGPS(steps=50),
    "mgps, 50 steps, 2 gradient steps": MGPS(steps=50, gradient_steps=2),
    "mgps, 50 steps, published ECG setting": MGPS.ecg_leads(std=0.236),
}


def main() -> None:
    """Runs every sampler, or the one named, and prints what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=SAMPLERS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hours", type=float, help="time one long recording, two draws, instead")
    options = parser.parse_args()
    if options.hours:
        print(json.dumps(long_recording(options.hours)))
    elif options.only:
        print(json.dumps(one(options.only, options.repeats)))
    else:
        for name in SAMPLERS:
            command = [sys.executable, __file__, "--only", name]
            subprocess.run([*command, "--repeats", str(options.repeats)], check=True)


def one(name: str, repeats: int) -> dict[str, object]:
    """Times one sampler: median of the repeats."""
    recording = load_truth().select(["I"])
    ecgdiff.reconstruct(recording, draws=1, sampler=Surrogate(steps=2))
    seconds = []
    for seed in range(repeats):
        began = time.perf_counter()
        ecgdiff.reconstruct(recording, draws=10, sampler=SAMPLERS[name], seed=seed)
        seconds.append(time.perf_counter() - began)
    nfe = SAMPLERS[name].nfe()
    return {
        "sampler": name,
        "seconds": round(float(np.median(seconds)), 2),
        "forward_per_draw": nfe.forward,
        "vjp_per_draw": nfe.vjp,
        "peak_memory_mb": peak_memory(),
        "threads": torch.get_num_threads(),
    }


def long_recording(hours: float) -> dict[str, object]:
    """Times two draws of a long lead I, made by repeating the demo's ten seconds."""
    lead = load_truth().lead("I")
    signal = np.tile(lead, round(hours * 360))[None]
    ecgdiff.reconstruct(Recording(lead[None], 100.0, ("I",)), draws=1, sampler=Surrogate(steps=2))
    before, began = peak_memory(), time.perf_counter()
    result = ecgdiff.reconstruct(
        Recording(signal, 100.0, ("I",)), draws=2, sampler=Surrogate(steps=4)
    )
    return {
        "hours": hours,
        "windows": result.meta["windows"],
        "seconds": round(time.perf_counter() - began, 1),
        "result_mb": round(result.draws.nbytes / 1e6),
        "peak_memory_before_mb": before,
        "peak_memory_mb": peak_memory(),
    }


def peak_memory() -> int:
    """The largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
