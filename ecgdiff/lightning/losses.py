r"""What a training step of the prior computes: windows, noise levels, loss, parameter groups.

Nothing here needs Lightning.

The preconditioned objective: with :math:`x = x_0 + \sigma \epsilon` and data of unit variance the
network F fits

.. math:: (x_0 - c_{skip} x) / c_{out}, \qquad c_{skip} = \frac{1}{1 + \sigma^2},
          \quad c_{out} = \frac{\sigma}{\sqrt{1 + \sigma^2}},
          \quad c_{in} = \frac{1}{\sqrt{1 + \sigma^2}},

which weights the denoising error by :math:`1 / c_{out}^2`.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
      arXiv:2206.00364
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ecgdiff.lightning.share import Share
from ecgdiff.models.crops import crops

__all__ = ["draw_sigma", "edm_loss", "edm_pair", "parameter_groups", "varied"]


def varied(x0: Tensor, length: int, gain: tuple[float, float], share: Share) -> Tensor:
    """Cuts a window out of each record, anywhere in it, and varies its amplitude.

    Arguments:
        x0: The records, with shape (batch, leads, time).
        length: The length of a window in samples.
        gain: Range of a factor common to the leads of a record; none is drawn if its ends are one.
        share: The random numbers of the step.

    Returns:
        The windows, with shape (batch, leads, length).
    """
    if length != x0.shape[-1]:
        x0 = crops(x0, share.integers(x0.shape[-1] - length + 1, len(x0)), length)
    low, high = gain
    if low < high:
        # Uniform in the logarithm, so that the median amplitude stays where it is.
        u = share.uniform((len(x0), 1, 1))
        x0 = x0 * (math.log(low) + math.log(high / low) * u).exp()
    return x0


def draw_sigma(
    count: int,
    log_mean: float = 0.9,
    log_std: float = 1.6,
    uniform_share: float = 0.2,
    uniform_range: tuple[float, float] = (0.005, 160.0),
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draws noise levels: ln sigma is normal, for some items uniform over a range instead.

    Arguments:
        count: How many.
        log_mean: Mean of ln sigma.
        log_std: Its standard deviation.
        uniform_share: The share of items whose ln sigma is uniform.
        uniform_range: Smallest and largest sigma of that share.
        generator: The source of randomness, on `device`.
        device: Where to draw.

    Returns:
        The levels, shape (count,).
    """
    low, high = (math.log(v) for v in uniform_range)
    normal = log_mean + log_std * torch.randn(count, generator=generator, device=device)
    uniform = low + (high - low) * torch.rand(count, generator=generator, device=device)
    picked = torch.rand(count, generator=generator, device=device) < uniform_share
    return torch.where(picked, uniform, normal).exp()


def edm_pair(x0: Tensor, sigma: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy signal and what the network shall give for it.

    Arguments:
        x0: Clean signals of unit variance, shape (batch, leads, time).
        sigma: Noise levels, shape (batch, 1, 1).
        noise: Standard normal, shape of `x0`.

    Returns:
        x, not yet scaled by c_in, and the target, both with the shape of `x0`.
    """
    x = x0 + sigma * noise
    total = torch.hypot(sigma, torch.ones_like(sigma))
    return x, (x0 - x / total**2) * total / sigma


def edm_loss(
    net: Callable[[Tensor, Tensor], Tensor], x0: Tensor, sigma: Tensor, noise: Tensor
) -> Tensor:
    """Mean square error of the network's output, a scalar.

    Arguments:
        net: Maps scaled noisy signals and ln(sigma) / 4 to the shape of the signals.
        x0: Clean signals of unit variance, shape (batch, leads, time).
        sigma: Noise levels, shape (batch, 1, 1).
        noise: Standard normal, shape of `x0`.
    """
    x, target = edm_pair(x0, sigma, noise)
    total = torch.hypot(sigma, torch.ones_like(sigma))
    return nn.functional.mse_loss(net(x / total, sigma.flatten().log() / 4), target)


def parameter_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: matrices, state-space parameters, the rest.

    Arguments:
        module: The network. State-space parameters carry an attribute `state_space`.
        lr: The learning rate; state-space parameters get at most 1e-3.
        weight_decay: Of matrices only.
    """
    groups: dict[str, list[nn.Parameter]] = {"matrix": [], "plain": [], "ssm": []}
    for parameter in module.parameters():
        if getattr(parameter, "state_space", False):
            groups["ssm"].append(parameter)
        else:
            groups["matrix" if parameter.ndim == 2 else "plain"].append(parameter)
    return [
        {"params": groups["matrix"], "weight_decay": weight_decay, "lr": lr},
        {"params": groups["plain"], "weight_decay": 0.0, "lr": lr},
        {"params": groups["ssm"], "weight_decay": 0.0, "lr": min(1e-3, lr)},
    ]
