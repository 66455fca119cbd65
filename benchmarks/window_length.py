"""Does a network know windows of another length? The block task in 10 s and in 2.56 s.

    python benchmarks/window_length.py --root PTBXL_DIR [--sampler conditional] [--records 40]

On records of fold 9 (`fold9_100`) one half of 2.56 s is lost on all leads. The same sampler draws
it in the prior's window of 10 s, of which nothing else is observed, and in a window of 2.56 s.
Prints the CRPS of both, their paired difference with its standard error, and the seconds.
"""

import argparse
import time
from dataclasses import replace

import numpy as np

from ecgdiff.data.ptbxl import PTBXL
from ecgdiff.evaluation.benchmark import SamplerMethod
from ecgdiff.evaluation.records import cases, read_list
from ecgdiff.evaluation.signal import crps
from ecgdiff.evaluation.tasks import TASKS, Case, Task, problem
from ecgdiff.prior import load_prior, needed_prior
from ecgdiff.samplers import named_sampler

NOISE = 0.02  # mV


def measure(method: SamplerMethod, task: Task, case: Case) -> tuple[list[float], list[float]]:
    """CRPS in mV and seconds, in the long window and in the short one."""
    whole = problem(task, case, 0, NOISE)
    _, scored = task.masks(case, 0)
    used = np.flatnonzero((whole.mask | scored).any(axis=0))
    crop = slice(used[0], used[-1] + 1)
    short = replace(whole, y=whole.y[:, crop], mask=whole.mask[:, crop])
    errors, seconds = [], []
    for hidden, part in ((whole, slice(None)), (short, crop)):
        begin = time.perf_counter()
        x = method([hidden])[0]
        seconds.append(time.perf_counter() - begin)
        lost = scored[:, part].any(axis=0)
        errors.append(float(crps(x[..., lost], case.truth[:, part][:, lost]).mean()))
    return errors, seconds


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, help="folder of PTB-XL")
    parser.add_argument("--sampler", default="conditional")
    parser.add_argument("--prior", help="name or folder; by default what the sampler needs")
    parser.add_argument("--records", type=int, default=40)
    parser.add_argument("--draws", type=int, default=5)
    args = parser.parse_args()
    sampler = named_sampler(args.sampler)
    prior = load_prior(args.prior or needed_prior(sampler))
    method = SamplerMethod(args.sampler, sampler, prior, args.draws, 0, {})
    found = cases(PTBXL(args.root), read_list("fold9_100"))[: args.records]
    measured = np.array([measure(method, TASKS["block"], case) for case in found])
    (long, short), seconds = measured[:, 0].mean(axis=0), np.median(measured[:, 1], axis=0)
    step = measured[:, 0, 1] - measured[:, 0, 0]
    print(f"{args.sampler}, prior {prior.name}, {len(found)} records of fold 9")
    print(f"CRPS 10 s window {long:.4f} mV, 2.56 s window {short:.4f} mV")
    print(f"difference {step.mean():+.4f} +- {step.std(ddof=1) / len(step) ** 0.5:.4f} mV")
    print(f"median seconds per record {seconds[0]:.2f}, {seconds[1]:.2f}")


if __name__ == "__main__":
    main()
