r"""Denoisers: anything that gives the posterior mean :math:`\hat x_0 = E[x_0 | x_t]`.

With :math:`x_t = \alpha x_0 + s \epsilon` and :math:`\sigma = s / \alpha` (Tweedie and its
equivalents):

.. math::
    \hat x_0 = (x_t - s\,\hat\epsilon) / \alpha = \alpha x_t - s\,\hat v
             = (x_t + s^2 \nabla \log p_t(x_t)) / \alpha .

A network F is wrapped with the preconditioning of EDM, in which x is the variance-exploding state
:math:`x_t / \alpha`:

.. math::
    D(x; \sigma) = \frac{\sigma_d^2}{\sigma^2 + \sigma_d^2}\, x
      + \frac{\sigma\,\sigma_d}{\sqrt{\sigma^2 + \sigma_d^2}}\,
        F\!\left(\frac{x}{\sqrt{\sigma^2 + \sigma_d^2}},\ \tfrac14 \ln \sigma\right) .

For :math:`\sigma_d = 1` the input of F is :math:`x_t` itself and :math:`-F` is the v-prediction.

Signals may have another floating-point type than a network's parameters: the network then computes
in its own, and everything around it in that of the signals.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
    | arXiv:2206.00364
    | Progressive Distillation for Fast Sampling of Diffusion Models (Salimans and Ho, 2022),
    | arXiv:2202.00512
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.errors import OperatorError

__all__ = [
    "Denoiser",
    "EpsDenoiser",
    "LinearObservation",
    "NetworkDenoiser",
    "call_network",
    "eps_from_x0",
    "score_from_x0",
    "v_from_x0",
    "x0_from_eps",
    "x0_from_v",
]


class LinearObservation(Protocol):
    """What a posterior needs of an observation: data, linear operator and noise variance."""

    @property
    def y(self) -> Tensor:
        """The data, with shape (batch, ...)."""

    @property
    def operator(self) -> Callable[[Tensor], Tensor]:
        """The linear operator A on signals (batch, channels, time)."""

    @property
    def variance(self) -> Tensor:
        """The noise variance, broadcastable to `y`."""


class Denoiser(ABC):
    r"""A prior, given by its posterior mean at every noise level.

    Attributes:
        schedule: The noise levels it knows.
        covariance: A Gaussian approximation of the prior's covariance, for the samplers that use
            one; None if unknown.
    """

    schedule: Schedule
    covariance: LeadFrequencyCovariance | None = None

    @abstractmethod
    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        r"""The posterior mean :math:`E[x_0 | x_t]`, in model units.

        Arguments:
            x_t: The noisy signals, with shape (batch, channels, time).
            t: Their level: one integer for all, or a long tensor of shape (batch,).

        Returns:
            A tensor with the shape, dtype and device of `x_t`, differentiable in `x_t`.
        """

    def condition(self, observation: LinearObservation) -> "Denoiser":
        """The denoiser E[x_0 | x_t, y] that has seen an observation, where the prior has one.

        Closed-form priors have it exactly; networks that were trained to see observations have
        learned it. All other priors are guided instead (:mod:`ecgdiff.samplers`).

        Arguments:
            observation: The measurement, with one item or as many as the batches to come.

        Raises:
            OperatorError: If this prior cannot be shown this observation.
        """
        raise OperatorError(
            f"A {type(self).__name__} cannot be shown an observation; use a sampler that guides "
            "it, such as MMPS, or a prior whose network was trained to see observations."
        )


class NetworkDenoiser(Denoiser):
    r"""Creates a denoiser from a network trained with EDM preconditioning.

    Arguments:
        net: The network F; called as net(x_in, c_noise) with shapes (batch, channels, time) and
            (batch,), it returns the shape of x_in.
        schedule: The noise levels.
        sigma_data: The standard deviation :math:`\sigma_d` of the data, in model units.
        covariance: The Gaussian approximation of the prior's covariance, if one was fitted.
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule,
        sigma_data: float = 1.0,
        covariance: LeadFrequencyCovariance | None = None,
    ) -> None:
        if sigma_data <= 0:
            raise ValueError(f"sigma_data is {sigma_data}; it must be positive.")
        self.net = net
        self.schedule = schedule
        self.sigma_data = sigma_data
        self.covariance = covariance

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """The posterior mean; see :class:`Denoiser`."""
        alpha, sigma = (
            _per_item(self.schedule.alpha(t), x_t),
            _per_item(self.schedule.sigma(t), x_t),
        )
        total = torch.hypot(sigma, torch.full_like(sigma, self.sigma_data))
        # At t = 0 the network's share is exactly zero, so its noise input only has to be finite.
        level = max(t, 1) if isinstance(t, int) else t.clamp(min=1)
        c_noise = self.schedule.sigma(level).log() / 4
        x = x_t / alpha
        out = call_network(self.net, x / total, c_noise.to(x_t).expand(len(x_t)))
        return (self.sigma_data / total) ** 2 * x + sigma * self.sigma_data / total * out


class EpsDenoiser(Denoiser):
    r"""Creates a denoiser from a network that predicts the noise of discrete levels.

    Arguments:
        net: The network; called as net(x_t, j) with a long tensor j of shape (batch,), where
                j = t - 1 counts levels from zero, it returns the noise with the shape of `x_t`.
        schedule: The noise levels it was trained on.
        covariance: The Gaussian approximation of the prior's covariance, if one was fitted.
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule,
        covariance: LeadFrequencyCovariance | None = None,
    ) -> None:
        self.net = net
        self.schedule = schedule
        self.covariance = covariance

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """The posterior mean; see :class:`Denoiser`. At t = 0 it is `x_t`."""
        levels = torch.as_tensor(t, device=x_t.device).expand(len(x_t))
        eps = call_network(self.net, x_t, (levels - 1).clamp(min=0))
        return x0_from_eps(x_t, eps, t, self.schedule)


def call_network(net: nn.Module, x: Tensor, *others: Tensor) -> Tensor:
    """Calls a network in the type of its parameters, and gives its answer in that of `x`.

    Where one of its parameters has the type of `x`, or it has none, it is called as it is.

    Arguments:
        net: The network.
        x: Its first input, a floating-point tensor.
        others: Its other inputs; those that are floating-point change their type with `x`.
    """
    if (own := _own_type(net, x.dtype)) == x.dtype:
        plain: Tensor = net(x, *others)
        return plain
    cast = [other.to(own) if other.is_floating_point() else other for other in others]
    out: Tensor = net(x.to(own), *cast)
    return out.to(x.dtype)


def _own_type(net: nn.Module, wanted: torch.dtype) -> torch.dtype:
    """The type of a network's parameters: `wanted` if one has it, else that of the first."""
    first = None
    # Any callable serves as a network, and one that is no module keeps its types to itself.
    for parameter in net.parameters() if isinstance(net, nn.Module) else ():
        if parameter.dtype == wanted:
            return wanted
        if first is None and parameter.is_floating_point():
            first = parameter.dtype
    return wanted if first is None else first


def _per_item(value: Tensor, x: Tensor) -> Tensor:
    """A coefficient of shape () or (batch,), ready to multiply x."""
    value = value.to(x)
    return value if value.ndim == 0 else value.reshape(-1, *[1] * (x.ndim - 1))


def _alpha_std(t: int | Tensor, schedule: Schedule, x: Tensor) -> tuple[Tensor, Tensor]:
    return _per_item(schedule.alpha(t), x), _per_item(schedule.std(t), x)


def eps_from_x0(x_t: Tensor, x0: Tensor, t: int | Tensor, schedule: Schedule) -> Tensor:
    r"""Noise :math:`\hat\epsilon = (x_t - \alpha \hat x_0) / s`, shaped as `x_t`; t >= 1."""
    alpha, std = _alpha_std(t, schedule, x_t)
    return (x_t - alpha * x0) / std


def x0_from_eps(x_t: Tensor, eps: Tensor, t: int | Tensor, schedule: Schedule) -> Tensor:
    r"""Clean signal :math:`\hat x_0 = (x_t - s \hat\epsilon) / \alpha`, shaped as `x_t`."""
    alpha, std = _alpha_std(t, schedule, x_t)
    return (x_t - std * eps) / alpha


def v_from_x0(x_t: Tensor, x0: Tensor, t: int | Tensor, schedule: Schedule) -> Tensor:
    r"""Velocity :math:`\hat v = (\alpha x_t - \hat x_0) / s`, shaped as `x_t`; t >= 1."""
    alpha, std = _alpha_std(t, schedule, x_t)
    return (alpha * x_t - x0) / std


def x0_from_v(x_t: Tensor, v: Tensor, t: int | Tensor, schedule: Schedule) -> Tensor:
    r"""Clean signal :math:`\hat x_0 = \alpha x_t - s \hat v`, shaped as `x_t`."""
    alpha, std = _alpha_std(t, schedule, x_t)
    return alpha * x_t - std * v


def score_from_x0(x_t: Tensor, x0: Tensor, t: int | Tensor, schedule: Schedule) -> Tensor:
    r"""Score :math:`\nabla \log p_t = (\alpha \hat x_0 - x_t) / s^2`, shaped as `x_t`; t >= 1."""
    alpha, std = _alpha_std(t, schedule, x_t)
    return (alpha * x0 - x_t) / std**2
