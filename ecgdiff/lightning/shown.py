"""Training of a network that is shown observations: its loss, its validation, its first weights.

Nothing here needs Lightning.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ecgdiff.diffusion.inpainting import NOISE, InpaintingDenoiser, Seen, network_input, trust
from ecgdiff.lightning.losses import edm_pair
from ecgdiff.lightning.masks import draw_masks, validation_masks
from ecgdiff.lightning.share import Share

__all__ = ["VALIDATION_SIGMA_Y", "inpainting_loss", "validation_view", "widened"]

VALIDATION_SIGMA_Y = 0.085
"""Noise of observations shown in validation, in standard deviations of the data (0.02 mV)."""


def inpainting_loss(
    net: Callable[[Tensor, Tensor, Tensor], Tensor],
    x0: Tensor,
    sigma: Tensor,
    noise: Tensor,
    share: Share,
    patterns: Sequence[str] = (),
    shown: float | None = None,
) -> Tensor:
    """Mean square error of the network's output over what was lost, a scalar.

    Arguments:
        net: Maps the network's input, ln(sigma) / 4 and trust to the shape of the signals.
        x0: Clean signals of unit variance, shape (batch, leads, time).
        sigma: Noise levels, shape (batch, 1, 1).
        noise: Standard normal, shape of `x0`.
        share: The random numbers of the step: patterns and noise of the observations.
        patterns: As :func:`ecgdiff.lightning.masks.draw_masks` has them.
        shown: As there.
    """
    shape = (share.count(x0), x0.shape[1], x0.shape[2])
    whole = draw_masks(shape, share.host, patterns, shown)
    mask = _moved(share.mine(whole), x0.device)
    low, high = (math.log(v) for v in NOISE)
    sigma_y = share.uniform((len(x0), 1, 1)).mul(high - low).add(low).exp()
    y = x0 + sigma_y * share.normal(x0.shape)
    x, target = edm_pair(x0, sigma, noise)
    out = net(network_input(x, sigma, y, mask), sigma.flatten().log() / 4, trust(mask, sigma_y))
    # The mean over what is lost on all processes, whose gradients are averaged.
    return ((out - target).square() * ~mask).sum() * share.ranks / int((~whole).sum())


def _moved(mask: Tensor, device: torch.device) -> Tensor:
    # From pageable memory the host would wait until the device has finished the step before, and
    # draw no pattern meanwhile.
    if device.type == "cuda":
        mask = mask.pin_memory()
    return mask.to(device, non_blocking=True)


def validation_view(
    denoiser: InpaintingDenoiser, x0: Tensor, number: int
) -> tuple[Seen, Tensor, Tensor]:
    """What validation shows of a batch: the denoiser that sees it, the batch, what it lost.

    Arguments:
        denoiser: The denoiser.
        x0: Clean signals in model units, shape (batch, leads, time).
        number: The number of the batch, which fixes what is shown.
    """
    generator = torch.Generator().manual_seed(number)
    mask = validation_masks((x0.shape[0], x0.shape[1], x0.shape[2]), generator).to(x0.device)
    y = x0 + VALIDATION_SIGMA_Y * torch.randn(x0.shape, generator=generator).to(x0)
    return Seen(denoiser, y, mask, VALIDATION_SIGMA_Y), x0, ~mask


def widened(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Weights of a network without a second input, ignoring it where `net` has one.

    Arguments:
        state: The weights by name, those of a SaShiMi network.
        net: The network that they are for.
    """
    wanted = net.state_dict()["input.weight"]
    missing = wanted.shape[1] - state["input.weight"].shape[1]
    padded = nn.functional.pad(state["input.weight"], (0, max(missing, 0)))
    return {**state, "input.weight": padded}
