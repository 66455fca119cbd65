"""What bfloat16 changes: CRPS, coverage and seconds of a sampler on records of fold 9.

    python benchmarks/precision.py --root PTBXL_FOLDER [--sampler mmps] [--threads 1] \\
        [--task leads] [--limit 12]

Prints one JSON line per precision and task. Both precisions see the same observations and seeds.
"""

import argparse
import json
import time

import numpy as np
import torch

from ecgdiff.data.ptbxl import PTBXL
from ecgdiff.evaluation.benchmark import SamplerMethod, score
from ecgdiff.evaluation.records import cases, read_list
from ecgdiff.evaluation.tasks import BlockTask, LeadTask, problem
from ecgdiff.prior import load_prior, needed_prior
from ecgdiff.samplers import named_sampler

NOISE_MV = 0.02


def main() -> None:
    """Runs both precisions, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, help="folder of PTB-XL 1.0.3")
    parser.add_argument("--sampler", default="conditional")
    parser.add_argument("--records", default="fold9_24", help="a list of records of fold 9")
    parser.add_argument("--limit", type=int, help="only the first of them")
    parser.add_argument("--task", choices=["leads", "block"], action="append")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    records = cases(PTBXL(options.root), read_list(options.records))[: options.limit]
    tasks = [t for t in (LeadTask(), BlockTask()) if t.name in (options.task or [t.name])]
    sampler = named_sampler(options.sampler)
    for precision in ("float32", "bfloat16"):
        prior = load_prior(needed_prior(sampler), precision)
        method = SamplerMethod(options.sampler, sampler, prior, options.draws, 0, {})
        for task in tasks:
            found, seconds = [], []
            for case in records:
                given = problem(task, case, 0, NOISE_MV)
                began = time.perf_counter()
                (draws,) = method([given])
                seconds.append(time.perf_counter() - began)
                found.append(score(draws, case.truth, task.masks(case, 0)[1]))
            line = {
                "sampler": options.sampler,
                "precision": precision,
                "task": task.name,
                "records": f"{len(records)} of {options.records}",
                "draws": options.draws,
                "threads": options.threads,
                "crps": round(float(np.mean([s["crps"] for s in found])), 6),
                "coverage_90": round(float(np.mean([s["coverage_90"] for s in found])), 4),
                "seconds_per_record": round(float(np.median(seconds)), 3),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
