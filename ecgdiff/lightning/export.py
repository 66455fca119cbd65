"""From a training run to a prior that can be shipped: weights chosen on fold 9, checks, a card.

    python -m ecgdiff.lightning.export --checkpoint last.ckpt --root PTBXL_FOLDER --name default
    --out FOLDER

Fits the lead x frequency covariance on the training folds, chooses the averaged weights by their
denoising loss on the whole of fold 9, runs the acceptance checks of
:mod:`ecgdiff.diffusion.quality` and writes the checkpoint folder with configuration and
card.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ecgdiff.data.training_set import load_fold_set
from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.diffusion.quality import BANDS, denoising_losses
from ecgdiff.ecg.leads import LEADS_8, LEADS_9
from ecgdiff.ecg.preprocess import CLIP_MV, CUTOFF_HZ
from ecgdiff.evaluation.outputs import check_folder
from ecgdiff.lightning.acceptance import acceptance
from ecgdiff.lightning.card import write_card
from ecgdiff.lightning.prior import DiffusionPrior
from ecgdiff.lightning.training_run import read_run, trained_folds
from ecgdiff.lightning.validation import band_losses
from ecgdiff.models.checkpoint import save_checkpoint, stored
from ecgdiff.models.crops import middle
from ecgdiff.models.sashimi import PRESETS

__all__ = ["export", "main"]

BATCH = 64


@dataclass(frozen=True)
class Candidate:
    """One averaged set of weights and its losses on fold 9, band by band."""

    decay: str
    weights: dict[str, Tensor]
    losses: list[float]


def export(
    checkpoint: Path, root: str, name: str, out: Path, draws: int = 512, device: str = "cpu"
) -> dict[str, Any]:
    """Writes the checkpoint folder `out` and returns its configuration.

    Arguments:
        checkpoint: A Lightning checkpoint of :class:`ecgdiff.lightning.prior.DiffusionPrior`, made
            by yourself: it is loaded without executing code.
        root: Folder of PTB-XL.
        name: The prior's name.
        out: Folder to write.
        draws: Unconditional draws for the acceptance check.
        device: Where losses and draws are computed.

    Raises:
        DataError: If `out` cannot be written.
    """
    check_folder(out)
    state, h = read_run(checkpoint)
    folds = trained_folds(state)
    module = DiffusionPrior(**{**h, "compile": False, "start": None}).to(device)
    leads = LEADS_8 if h["channels"] == len(LEADS_8) else LEADS_9
    whole, _ = load_fold_set(root, [9], leads)
    length = max(module.hparams["lengths"], default=whole.shape[-1])
    validation = module.to_units(middle(whole, length))
    module.net.eval()
    candidates = _candidates(module, state, validation)
    best = min(candidates, key=lambda c: sum(c.losses))
    _use(module, best.weights)
    train, clipped = load_fold_set(root, folds, leads)
    covariance = LeadFrequencyCovariance.fit(_InUnits(module, middle(train, length)), smooth=2)
    config = {
        "name": name,
        "objective": h["objective"],
        "inpainting": module.net.context > 0,
        "network": _network(module),
        "leads": list(leads),
        "sampling_rate_hz": 100.0,
        "n_samples": length,
        "scale_mv": h["scale"],
        "clip_mv": CLIP_MV,
        "highpass_hz": CUTOFF_HZ,
        "band": f"{CUTOFF_HZ:g}-42 Hz",
        "training": {
            "data": "PTB-XL 1.0.3, 100 Hz",
            "folds": folds,
            "records": len(train),
            "clipped_samples": clipped,
            "steps": state["global_step"],
            "earlier": state.get("earlier"),
            "hyperparameters": h,
            "ema_decay": best.decay,
            "ema_decays": [c.decay for c in candidates],
        },
    }
    numbers, _ = acceptance(module.denoiser(), validation, h["scale"], best.losses, draws, device)
    config["acceptance"] = numbers
    tensors = {**stored(module.net), "covariance.spectrum": covariance.spectrum.float()}
    save_checkpoint(out, config, tensors, write_card(config))
    return config


def _network(module: DiffusionPrior) -> dict[str, Any]:
    """What makes the network again."""
    h = module.hparams
    size = {"channels": h["channels"], "context": module.net.context}
    return {**size, "t_scale": module.t_scale, **PRESETS[h["preset"]]}


def _candidates(
    module: DiffusionPrior, state: dict[str, Any], validation: Tensor
) -> list[Candidate]:
    """The averages of a checkpoint, with their losses on all validation records."""
    callbacks = [v for v in state["callbacks"].values() if "averages" in v]
    found = []
    for decay, weights in callbacks[0]["averages"].items():
        _use(module, weights)
        losses = _losses(module, validation)
        found.append(Candidate(decay, weights, losses))
    return found


def _losses(module: DiffusionPrior, validation: Tensor) -> list[float]:
    """The losses per band on all validation records; on lost samples if the network is shown some.

    Every batch holds as many of either pattern, so the mean over batches is that over records.
    """
    if not module.hparams["inpainting"]:
        return denoising_losses(module.denoiser(), validation, BANDS, device=module.device)
    batches = validation.split(BATCH)
    found = [
        band_losses(*module.to_validate(x0.to(module.device), number), number)
        for number, x0 in enumerate(batches)
    ]
    return np.average(found, axis=0, weights=[len(x0) for x0 in batches]).tolist()


def _use(module: DiffusionPrior, weights: dict[str, Tensor]) -> None:
    module.load_state_dict(weights)
    module.eval()


class _InUnits:
    """Int16 microvolts read as model units, a slice at a time."""

    def __init__(self, module: DiffusionPrior, microvolts: Tensor) -> None:
        self.module, self.microvolts = module, microvolts
        self.shape = tuple(microvolts.shape)

    def __getitem__(self, index: slice) -> Tensor:
        return self.module.to_units(self.microvolts[index])


def main() -> None:
    """Runs the export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--name", default="default")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=512)
    parser.add_argument("--device", default="cpu", help="such as cuda")
    config = export(**vars(parser.parse_args()))
    print(np.round(config["acceptance"]["losses_fold9"], 4))


if __name__ == "__main__":
    main()
