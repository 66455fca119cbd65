"""The acceptance checks of a slot's weights, while the fast device is still there."""

import json

import numpy as np
from join import read_shards
from slot_run import Run, band_losses

from ecgdiff.diffusion.denoiser import NetworkDenoiser
from ecgdiff.diffusion.inpainting import InpaintingDenoiser
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.lightning.acceptance import acceptance
from ecgdiff.models.sashimi import SaShiMi

__all__ = ["write_acceptance"]


def write_acceptance(run: Run, draws: int) -> None:
    """Writes `acceptance.json`, the numbers of a prior's card, and `draws.npz`, in half precision.

    They are those of the weights that were written, on all of fold 9 that was carried; without
    covariance, which needs the export.

    Arguments:
        run: The run.
        draws: How many unconditional draws.
    """
    config, tensors = read_shards(run.a.out / "weights")
    net = SaShiMi(**config["network"])
    net.load_state_dict(tensors)
    net.to(run.device).eval().requires_grad_(False)
    denoiser = (InpaintingDenoiser if net.context else NetworkDenoiser)(net, Schedule.linear())
    held = run.unit * run.held.float()
    (losses,) = band_losses([net], held, run.device, shown=net.context > 0)
    scale = run.h["scale"]
    numbers, sample = acceptance(denoiser, held, scale, losses, draws, run.device)
    path = run.a.out / "acceptance.json"
    path.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    np.savez(run.a.out / "draws.npz", draws_mv=(sample * scale).numpy().astype(np.float16))
    for row in numbers["total_variance_fold9"]:
        print(f"sigma {row['sigma']:.3g}: total {row['total']:.3f}, slope {row['slope']:.3f}")
