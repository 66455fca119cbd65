"""One thing changed at a time: priors that were trained equally long, compared on fold 9.

    python benchmarks/prior_ablation.py --root PTBXL_DIR --out results/ablation \
        --run "EDM, 8 leads=edm8/last.ckpt" --run "noise in mV=eps8/last.ckpt" ...

Takes the checkpoints of `ecgdiff-train`. Every run is measured with its averaged weights (the
first average) and with those of the last step, in common units, on the eight leads that all of
them model: the denoising loss MSE (1 / 0.236^2 + 1 / sigma^2) at noise levels sigma in mV and its
mean over them, of whole records and of the 2.56 s in their middle, and draws without any
observation against real records: spread, Frechet distance on the features of the embedded
classifier, variation of RR intervals, and, for nine leads, how far III is from II - I. Losses
after the first row are paired differences from it; brackets are 95 % bootstrap intervals over
patients. Runs with Lightning's Timer, which `--trainer.max_time` adds, say how long they trained.
Writes OUT/ablation.json and OUT/ablation.md. Needs neurokit2.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecgdiff.classifier import load_classifier
from ecgdiff.diffusion.quality import QUANTILES, std_quantiles, unconditional_draws
from ecgdiff.ecg.leads import LEADS_8, LEADS_9, derive_12
from ecgdiff.evaluation.bootstrap import intervals, replicates
from ecgdiff.evaluation.distributions import rhythms
from ecgdiff.evaluation.frechet import frechet_distance, pooled_features
from ecgdiff.evaluation.quality_records import FoldRecords, Folds, halves
from ecgdiff.lightning.prior import DiffusionPrior
from ecgdiff.lightning.training_run import read_run
from ecgdiff.models.crops import middle

SCALE = 0.236  # mV, the standard deviation of the training signals
LEVELS = tuple(SCALE * s for s in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0))  # mV
"""Noise levels in mV. The schedule of the run in mV begins at 0.01 mV."""
SHORT = 256
"""Samples of the short window: 2.56 s at 100 Hz."""


def main() -> None:
    """Measures all runs and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--root", required=True, help="folder of PTB-XL")
    add("--run", action="append", required=True, type=named, metavar="NAME=CHECKPOINT")
    add("--records", type=int, default=512, help="of fold 9, for the losses")
    add("--draws", type=int, default=256)
    add("--steps", type=int, default=32, help="denoiser calls per draw")
    add("--out", type=Path, required=True)
    args = parser.parse_args()
    real = Folds(args.root, LEADS_9).read(9)
    rows: list[dict[str, Any]] = []
    first: NDArray[np.float64] | None = None
    for name, path in args.run:
        for module, facts in variants(path):
            losses, found = measure(module, real, first, args)
            first = losses if first is None else first
            rows.append({"run": name, **facts, **found})
            print(json.dumps(rows[-1]), flush=True)
    floor = reference(real, args.draws)
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {"records": args.records, "draws": args.draws, "calls": args.steps, "short": SHORT}
    document = {"settings": settings, "levels_mv": LEVELS, "fold9": floor, "runs": rows}
    (args.out / "ablation.json").write_text(json.dumps(document, indent=1) + "\n")
    (args.out / "ablation.md").write_text(markdown(document), encoding="utf-8")


def named(text: str) -> tuple[str, Path]:
    """A run's name and checkpoint; Lightning's own names of checkpoints have "=" in them."""
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"give NAME=CHECKPOINT, got {text}")
    return name, Path(path)


def variants(checkpoint: Path) -> Iterator[tuple[DiffusionPrior, dict[str, Any]]]:
    """The run's module with its first average, then with the weights of the last step."""
    state, h = read_run(checkpoint)
    module = DiffusionPrior(**{**h, "compile": False, "start": None})
    averages = next(v["averages"] for v in state["callbacks"].values() if "averages" in v)
    decay, average = next(iter(averages.items()))
    for name, weights in ((f"average {decay}", average), ("last step", state["state_dict"])):
        module.load_state_dict(weights)
        module.eval().requires_grad_(False)
        yield module, {"weights": name, "steps": state["global_step"], **train_seconds(state)}


def train_seconds(state: Mapping[str, Any]) -> dict[str, float]:
    """How long the run trained, validation included, if Lightning's timer was there to tell."""
    clocks = [v["time_elapsed"] for v in state["callbacks"].values() if "time_elapsed" in v]
    return {"train_seconds": clocks[0]["train"]} if clocks else {}


def measure(
    module: DiffusionPrior,
    real: FoldRecords,
    first: NDArray[np.float64] | None,
    args: argparse.Namespace,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """The losses of one set of weights, (10 s or 2.56 s, levels, records), and its numbers."""
    leads = LEADS_8 if module.hparams["channels"] == len(LEADS_8) else LEADS_9
    scale, denoiser = module.hparams["scale"], module.denoiser()
    chosen = np.random.default_rng(0).permutation(len(real.signal))[: args.records]
    truth, people = rows_of(real.signal[chosen], leads), real.patients[chosen]
    windows = (truth.shape[-1], SHORT)
    losses = np.array([[loss(module, truth, leads, s, n) for s in LEVELS] for n in windows])
    shape = (len(leads), truth.shape[-1])
    drawn = unconditional_draws(denoiser, shape, args.draws, args.steps).numpy() * scale
    eight = drawn[:, [leads.index(lead) for lead in LEADS_8]]
    return losses, {
        **summary("loss", losses, people),
        **summary("difference", None if first is None else losses - first, people),
        **compared(eight, real),
        "einthoven_error": einthoven(drawn, leads),
    }


def summary(
    name: str, losses: NDArray[np.float64] | None, patients: NDArray[np.int64]
) -> dict[str, Any]:
    """Losses of 10 s per level and their mean, and the mean of those of 2.56 s."""
    if losses is None:
        return {name: [], f"{name}_mean": None, f"{name}_short": None}
    long, short = losses
    return {
        name: [interval(v, patients) for v in long],
        f"{name}_mean": interval(long.mean(axis=0), patients),
        f"{name}_short": interval(short.mean(axis=0), patients),
    }


# `record_losses` of ecgdiff.diffusion.quality cannot stand in: its mean over the leads of a
# network counts III of nine, and its noise on the eight others is not that of a network of eight.
def loss(
    module: DiffusionPrior,
    truth: NDArray[np.float32],
    leads: tuple[str, ...],
    sigma: float,
    length: int,
) -> NDArray[np.float64]:
    """The loss per record at a noise level in mV, on eight leads and the middle samples."""
    denoiser, scale = module.denoiser(), module.hparams["scale"]
    t = denoiser.schedule.index(sigma / scale)
    alpha, std = float(denoiser.schedule.alpha(t)), float(denoiser.schedule.std(t))
    # Whatever leads and samples a network is given, the eight leads get the same noise.
    generator, other = (torch.Generator().manual_seed(round(1e6 * sigma) + k) for k in (0, 1))
    shared, parts = [leads.index(lead) for lead in LEADS_8], []
    for whole in torch.from_numpy(truth / np.float32(scale)).split(64):
        noise = torch.randn(whole.shape, generator=other)
        noise[:, shared] = torch.randn(whole[:, shared].shape, generator=generator)
        x = middle(whole, length)
        error = denoiser(alpha * x + std * middle(noise, length), t) - x
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
        "rr_variation_percent": typical(variation),
        "without_beats": int(np.isnan(variation).sum()),
    }


def reference(real: FoldRecords, draws: int) -> dict[str, float | None]:
    """What real records have: the distance of two halves of the fold, and their rhythm."""
    truth = rows_of(real.signal, LEADS_8)
    features, pairs = pooled(truth), halves(real.patients, draws)
    _, variation = rhythms(truth[:, LEADS_8.index("II")], 100.0)
    return {
        "frechet": float(np.mean([frechet_distance(features[b], features[a]) for a, b in pairs])),
        "rr_variation_percent": typical(variation),
    }


def typical(variation: NDArray[np.float64]) -> float | None:
    """The median over records; none if no record has beats, as early in training."""
    known = variation[np.isfinite(variation)]
    return float(np.median(known)) if len(known) else None


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


def cell(found: Mapping[str, float], form: str) -> str:
    """A number and its interval."""
    return f"{found['value']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def percent(value: float | None) -> str:
    """A number in percent, if there is one."""
    return "-" if value is None else f"{value:.0f} %"


def markdown(document: dict[str, Any]) -> str:
    """The table: losses of the first row, and paired differences from it in the others."""
    heads = [f"loss at {s:.2g} mV" for s in document["levels_mv"]]
    heads += ["mean of levels", "loss of 2.56 s, mean of levels"]
    lines = [
        f"| run | weights | {' | '.join(heads)} | spread, 10 / 50 / 90 % | Fréchet "
        "| RR variation | III error |",
        "| --- | --- |" + " --- |" * (len(heads) + 4),
    ]
    for row in document["runs"]:
        kind, form = ("difference", "+.3f") if row["difference"] else ("loss", ".3f")
        found = [*row[kind], row[f"{kind}_mean"], row[f"{kind}_short"]]
        losses = " | ".join(cell(v, form) for v in found)
        wrong = row["einthoven_error"] and 100 * row["einthoven_error"]
        spread = " / ".join(f"{v:.2f}" for v in row["spread_ratio"].values())
        lines.append(
            f"| {row['run']} | {row['weights']} | {losses} | {spread} | {row['frechet']:.0f} | "
            f"{percent(row['rr_variation_percent'])} | {percent(wrong)} |"
        )
    floor = document["fold9"]
    lines.append(
        f"| fold 9 | -{' | -' * len(heads)} | 1 / 1 / 1 | {floor['frechet']:.0f} | "
        f"{percent(floor['rr_variation_percent'])} | - |"
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
