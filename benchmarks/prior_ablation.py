"""One thing changed at a time: priors that were trained equally long, compared on fold 9.

    python benchmarks/prior_ablation.py --root PTBXL_DIR --out results/ablation \
        --run "EDM, 8 leads=edm8/last.ckpt" --run "noise in mV=eps8/last.ckpt" ...

Takes the checkpoints of `ecgdiff-train`. Every run is measured with its averaged weights (the
first average) and with those of the last step, in common units, on the eight leads that all of
them model: the denoising loss MSE (1 / 0.236^2 + 1 / sigma^2) at noise levels sigma in mV, and
draws without any observation against real records: spread, Frechet distance on the features of
the embedded classifier, variation of RR intervals, and, for nine leads, how far III is from
II - I. Losses after the first row are paired differences from it; brackets are 95 % bootstrap
intervals over patients. Writes OUT/ablation.json and OUT/ablation.md. Needs neurokit2.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgdiff.classifier import load_classifier
from ecgdiff.diffusion.quality import QUANTILES, std_quantiles, unconditional_draws
from ecgdiff.ecg.leads import LEADS_8, LEADS_9, derive_12
from ecgdiff.evaluation.bootstrap import intervals, replicates
from ecgdiff.evaluation.distributions import rhythms
from ecgdiff.evaluation.frechet import frechet_distance, pooled_features
from ecgdiff.evaluation.quality_records import FoldRecords, Folds, halves
from ecgdiff.lightning.prior import DiffusionPrior
from ecgdiff.lightning.training_run import read_run

SCALE = 0.236  # mV, the standard deviation of the training signals
LEVELS = tuple(SCALE * s for s in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0))  # mV
"""Noise levels in mV. The schedule of the run in mV begins at 0.01 mV."""


def main() -> None:
    """Measures all runs and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--root", required=True, help="folder of PTB-XL")
    add("--run", action="append", required=True, metavar="NAME=CHECKPOINT")
    add("--records", type=int, default=512, help="of fold 9, for the losses")
    add("--draws", type=int, default=256)
    add("--steps", type=int, default=32, help="denoiser calls per draw")
    add("--out", type=Path, required=True)
    args = parser.parse_args()
    real = Folds(args.root, LEADS_9).read(9)
    rows: list[dict[str, Any]] = []
    first: list[NDArray[np.float64]] = []
    for text in args.run:
        name, path = text.rsplit("=", 1)
        for weights, module, steps in variants(Path(path)):
            losses, found = measure(module, real, first, args)
            first = first or losses
            rows.append({"run": name, "weights": weights, "steps": steps, **found})
            print(json.dumps(rows[-1]), flush=True)
    floor = reference(real, args.draws)
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {"records": args.records, "draws": args.draws, "calls": args.steps}
    document = {"settings": settings, "levels_mv": LEVELS, "fold9": floor, "runs": rows}
    (args.out / "ablation.json").write_text(json.dumps(document, indent=1) + "\n")
    (args.out / "ablation.md").write_text(markdown(document))


def variants(checkpoint: Path) -> Iterator[tuple[str, DiffusionPrior, int]]:
    """The run's module with its first average, then with the weights of the last step."""
    state, h = read_run(checkpoint)
    module = DiffusionPrior(**{**h, "compile": False, "start": None})
    averages = next(v["averages"] for v in state["callbacks"].values() if "averages" in v)
    decay, average = next(iter(averages.items()))
    for name, weights in ((f"average {decay}", average), ("last step", state["state_dict"])):
        module.load_state_dict(weights)
        module.eval().requires_grad_(False)
        yield name, module, state["global_step"]


def measure(
    module: DiffusionPrior,
    real: FoldRecords,
    first: list[NDArray[np.float64]],
    args: argparse.Namespace,
) -> tuple[list[NDArray[np.float64]], dict[str, Any]]:
    """The losses per level and record of one set of weights, and its numbers."""
    leads = LEADS_8 if module.hparams["channels"] == len(LEADS_8) else LEADS_9
    scale, denoiser = module.hparams["scale"], module.denoiser()
    chosen = np.random.default_rng(0).permutation(len(real.signal))[: args.records]
    losses = [loss(module, rows_of(real.signal[chosen], leads), leads, s) for s in LEVELS]
    shape = (len(leads), real.signal.shape[-1])
    drawn = unconditional_draws(denoiser, shape, args.draws, args.steps).numpy() * scale
    eight = drawn[:, [leads.index(lead) for lead in LEADS_8]]
    people = real.patients[chosen]
    return losses, {
        "loss": [interval(v, people) for v in losses],
        "difference": [interval(v - w, people) for v, w in zip(losses, first, strict=False)],
        **compared(eight, real),
        "einthoven_error": einthoven(drawn, leads),
    }


def loss(
    module: DiffusionPrior, truth: NDArray[np.float32], leads: tuple[str, ...], sigma: float
) -> NDArray[np.float64]:
    """The denoising loss per record at a noise level in mV, on the eight leads."""
    denoiser, scale = module.denoiser(), module.hparams["scale"]
    t = denoiser.schedule.index(sigma / scale)
    alpha, std = float(denoiser.schedule.alpha(t)), float(denoiser.schedule.std(t))
    generator = torch.Generator().manual_seed(round(1e6 * sigma))
    shared, parts = [leads.index(lead) for lead in LEADS_8], []
    for x in torch.from_numpy(truth / np.float32(scale)).split(64):
        noise: Tensor = torch.randn(x.shape, generator=generator)
        error = denoiser(alpha * x + std * noise, t) - x
        parts.append(error[:, shared].square().mean(dim=(1, 2)).double().numpy())
    at = float(denoiser.schedule.sigma(t)) * scale
    weighted: NDArray[np.float64] = np.concatenate(parts) * scale**2 * (SCALE**-2 + at**-2)
    return weighted


def compared(drawn: NDArray[np.float32], real: FoldRecords) -> dict[str, Any]:
    """Draws of eight leads against real records."""
    truth = rows_of(real.signal, LEADS_8)
    ratio = std_quantiles(drawn) / std_quantiles(truth)
    features = {k: pooled(x) for k, x in (("draws", drawn), ("real", truth))}
    pairs = halves(real.patients, len(drawn))
    distances = [
        frechet_distance(features["draws"][: len(a)], features["real"][a]) for a, _ in pairs
    ]
    _, variation = rhythms(drawn[:, LEADS_8.index("II")], 100.0)
    return {
        "spread_ratio": {
            f"{q:g}": float(np.median(r)) for q, r in zip(QUANTILES, ratio, strict=True)
        },
        "frechet": float(np.mean(distances)),
        "rr_variation_percent": float(np.nanmedian(variation)),
        "without_beats": int(np.isnan(variation).sum()),
    }


def reference(real: FoldRecords, draws: int) -> dict[str, float]:
    """What real records have: the distance of two halves of the fold, and their rhythm."""
    truth = rows_of(real.signal, LEADS_8)
    features, pairs = pooled(truth), halves(real.patients, draws)
    _, variation = rhythms(truth[:, LEADS_8.index("II")], 100.0)
    return {
        "frechet": float(np.mean([frechet_distance(features[b], features[a]) for a, b in pairs])),
        "rr_variation_percent": float(np.nanmedian(variation)),
    }


def pooled(signal: NDArray[np.float32]) -> NDArray[np.float64]:
    """The classifier's features of eight leads."""
    return pooled_features(load_classifier("default"), derive_12(signal))


def rows_of(signal: NDArray[np.float32], leads: tuple[str, ...]) -> NDArray[np.float32]:
    """Some leads of records that have nine."""
    return signal[:, [LEADS_9.index(lead) for lead in leads]]


def einthoven(drawn: NDArray[np.float32], leads: tuple[str, ...]) -> float | None:
    """The root mean square of III - (II - I) over that of III."""
    if "III" not in leads:
        return None
    one, two, three = (drawn[:, leads.index(lead)] for lead in ("I", "II", "III"))
    return float(np.sqrt(np.mean((three - two + one) ** 2) / np.mean(three**2)))


def interval(values: NDArray[np.float64], patients: NDArray[np.int64]) -> dict[str, float]:
    """A mean with its bootstrap interval over patients."""
    ends = intervals(lambda rows: {"mean": values[rows].mean()}, replicates(patients.tolist()))
    low, high = map(float, ends["mean"])
    return {"value": float(values.mean()), "low": low, "high": high}


def markdown(document: dict[str, Any]) -> str:
    """The table: losses of the first row, and paired differences from it in the others."""
    levels = " | ".join(f"loss at {s:.2g} mV" for s in document["levels_mv"])
    lines = [
        f"| run | weights | {levels} | spread, 10 / 50 / 90 % | Fréchet | RR variation "
        "| III error |",
        "| --- | --- |" + " --- |" * (len(document["levels_mv"]) + 4),
    ]
    for row in document["runs"]:
        losses = " | ".join(
            f"{v['value']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for v in row["loss"]
        )
        if row["difference"]:
            losses = " | ".join(
                f"{v['value']:+.3f} [{v['low']:+.3f}, {v['high']:+.3f}]" for v in row["difference"]
            )
        spread = " / ".join(f"{v:.2f}" for v in row["spread_ratio"].values())
        wrong = "-" if row["einthoven_error"] is None else f"{100 * row['einthoven_error']:.0f} %"
        lines.append(
            f"| {row['run']} | {row['weights']} | {losses} | {spread} | {row['frechet']:.0f} | "
            f"{row['rr_variation_percent']:.0f} % | {wrong} |"
        )
    floor = document["fold9"]
    columns = " | -" * len(document["levels_mv"])
    lines.append(
        f"| fold 9 | -{columns} | 1 / 1 / 1 | {floor['frechet']:.0f} | "
        f"{floor['rr_variation_percent']:.0f} % | - |"
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
