"""Does the network of `conditional` know its own error, for what it is shown and at every level?

    python benchmarks/own_error.py --root PTBXL_FOLDER [--records fold9_100] [--prior inpainting]

The squared error on the lost samples over the one that the network's Jacobian implies, 1 if it is
perfect: a Markdown table on stdout, with 95 % bootstrap intervals over patients.
"""

import argparse

import numpy as np
import torch

from ecgdiff.data.ptbxl import PTBXL
from ecgdiff.diffusion.own_error import own_error
from ecgdiff.evaluation.bootstrap import replicates
from ecgdiff.evaluation.records import cases, read_list
from ecgdiff.evaluation.tasks import TASKS, Case, Task, problem
from ecgdiff.operators import Mask, Observation
from ecgdiff.prior import Prior, load_prior

LEVELS = (0.2, 0.6, 1.0, 1.5, 2.5, 4.0, 7.0, 12.0, 25.0)
NOISE_MV = 0.02


def errors(prior: Prior, task: Task, case: Case, seed: int) -> np.ndarray:
    """Error and implied error on one record, shape (levels, 2), in squared model units."""
    given = problem(task, case, 0, NOISE_MV)
    y = torch.from_numpy(given.y)[None] / prior.scale
    mask = torch.from_numpy(given.mask)[None]
    shown = prior.denoiser.condition(Observation(y, Mask(mask), NOISE_MV / prior.scale))
    x0 = torch.from_numpy(case.truth)[None] / prior.scale
    scored = torch.from_numpy(task.masks(case, 0)[1])[None]
    generator = torch.Generator().manual_seed(seed)
    found = [
        torch.cat(own_error(shown, x0, prior.denoiser.schedule.index(s), scored, generator))
        for s in LEVELS
    ]
    return torch.stack(found).double().numpy()


def cell(found: np.ndarray, patients: list[int]) -> str:
    """The ratio of means over records (records, 2) with its interval."""
    drawn = [float(np.divide(*found[at].mean(0))) for at in replicates(patients, 1000)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{np.divide(*found.mean(0)):.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, help="folder of PTB-XL 1.0.3")
    parser.add_argument("--records", default="fold9_100", help="a list of records of fold 9")
    parser.add_argument("--prior", default="inpainting")
    parser.add_argument("--tasks", nargs="+", default=["leads", "block", "precordial"])
    options = parser.parse_args()
    prior = load_prior(options.prior)
    records = cases(PTBXL(options.root), read_list(options.records))
    patients = [case.patient_id for case in records]
    print(f"| sigma, mV | {' | '.join(options.tasks)} |\n| --- |{' --- |' * len(options.tasks)}")
    found = [
        np.stack([errors(prior, TASKS[name], case, case.ecg_id) for case in records])
        for name in options.tasks
    ]
    for k, sigma in enumerate(LEVELS):
        cells = [cell(ratios[:, k], patients) for ratios in found]
        print(f"| {sigma * prior.scale:.2f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
