"""Gaussian priors that look like ECGs, correlated channels and smooth in time, and the exact law
of the draws of samplers that are affine in what they see and draw."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from bias import kalman
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, LeadFrequencyCovariance, Schedule
from ecgdiff.diffusion._dct import dct
from ecgdiff.experiments.gaussian_ecg import Mirrored
from ecgdiff.operators import Mask, Observation, observe
from ecgdiff.random import Streams
from ecgdiff.samplers import Sampler
from ecgdiff.samplers.guided import GuidedSampler


def channel_covariance(channels: int) -> Tensor:
    """0.95 corr(B B^T) + 0.05 I for a random B with three columns."""
    b = torch.randn(channels, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c = b @ b.mT
    d = c.diagonal().sqrt()
    return 0.95 * c / d / d[:, None] + 0.05 * torch.eye(channels, dtype=torch.float64)


def time_covariance(n: int) -> Tensor:
    """0.9 RBF(4) + 0.098 RBF(1) + 0.002 I, lengths in samples."""
    k = torch.arange(n, dtype=torch.float64)
    lag = (k[:, None] - k) ** 2
    smooth = 0.9 * torch.exp(-lag / 32) + 0.098 * torch.exp(-lag / 2)
    return smooth + 0.002 * torch.eye(n, dtype=torch.float64)


def model(channels: Tensor, time: Tensor) -> LeadFrequencyCovariance:
    """The lead-frequency model of a Kronecker covariance; it drops correlations of frequencies."""
    w = dct(torch.eye(len(time), dtype=torch.float64)).mT
    power = (w @ time @ w.mT).diagonal()
    return LeadFrequencyCovariance(power[:, None, None] * channels)


def karras_schedule(steps: int) -> Schedule:
    """The levels sigma 0.002..80, rho 7, themselves as a schedule."""
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    sigma = torch.linspace(low, high, steps, dtype=torch.float64) ** 7
    return Schedule(torch.cat([torch.ones(1, dtype=torch.float64), 1 / (1 + sigma**2)]))


def kronecker_prior(steps: int) -> GaussianPrior:
    """The 9 x 32 prior of the published tables; its model is approximate (not stationary)."""
    numpy = pytest.importorskip("numpy")
    b = torch.from_numpy(numpy.random.default_rng(0).standard_normal((9, 3)))
    c = b @ b.mT
    d = c.diagonal().sqrt()
    channels = 0.95 * c / d / d[:, None] + 0.05 * torch.eye(9, dtype=torch.float64)
    time = time_covariance(32)
    prior = GaussianPrior(torch.zeros(9, 32), torch.kron(channels, time), karras_schedule(steps))
    prior.covariance = model(channels, time)
    return prior


def kronecker_mask(name: str) -> Tensor:
    """For 9 x 32: channels 0..2 kept ("leads"), or samples 12..19 lost in all ("block")."""
    mask = torch.zeros(9, 32, dtype=torch.bool)
    if name == "leads":
        mask[:3] = True
    else:
        mask[:, :12] = mask[:, 20:] = True
    return mask


class Basis(Streams):
    """Affine propagation: item i draws the i-th unit vector of all noise, the last item zeros."""

    def __init__(self, calls: int, n: int) -> None:
        self.calls, self.n, self.done = calls, n, 0

    def __len__(self) -> int:
        return self.calls * self.n + 1

    def normal(
        self,
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        z = torch.zeros(len(self), self.n, dtype=dtype)
        z[self.done * self.n : (self.done + 1) * self.n] = torch.eye(self.n, dtype=dtype)
        self.done += 1
        return z.view(tuple(shape)).to(device)


def law(
    sampler: Sampler, prior: GaussianPrior, observation: Observation, calls: int
) -> tuple[Tensor, Tensor]:
    """The exact mean (n,) and covariance (n, n) of a sampler that draws noise `calls` times."""
    n = prior.mean.numel()
    noise = Basis(calls, n)
    draws = sampler(prior, observation, (len(noise), *prior.shape), generator=noise).flatten(1)
    assert noise.done == noise.calls
    columns = draws[:-1] - draws[-1]
    return draws[-1], columns.mT @ columns


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def guided_law(
    sampler: GuidedSampler,
    prior: GaussianPrior,
    mask: Tensor,
    sigma: float,
    *,
    drawn: bool = False,
) -> tuple[Tensor, Tensor]:
    """The matrix from y's observed samples to the mean of the draws, and their covariance.

    For priors of zero mean and corrections that are linear in the residual: each level then takes
    one item per observed sample. `drawn` adds what `predict` draws (twice per level).
    """
    n, seen = mask.numel(), mask.flatten()
    eye = torch.eye(n, dtype=torch.float64)
    y = eye[seen].view(-1, *mask.shape)
    guided = sampler.guide(prior, Observation(y, Mask(mask), sigma))
    blind = sampler.guide(prior, Observation(0 * y[:1], Mask(mask), sigma))
    gain, covariance = torch.zeros_like(eye[:, seen]), eye
    for t, s in pairwise([*sampler.levels(prior), 0]):
        shift = guided(torch.zeros_like(y), t).flatten(1).mT
        jacobian = prior(eye.view(-1, *mask.shape), t).flatten(1).mT
        c_lo, c_hi, std = prior.schedule.bridge(s, 0, t)
        step = c_lo * (jacobian - shift @ jacobian[seen]) + c_hi * eye
        gain = step @ gain + c_lo * shift
        covariance = step @ covariance @ step.mT + std**2 * eye
        if drawn:
            noise = Basis(2, n)
            zeros = torch.zeros(len(noise), *mask.shape, dtype=torch.float64)
            w = blind.predict(zeros, t, noise).flatten(1)
            covariance = covariance + c_lo**2 * w.mT @ w
    return gain, covariance


def accuracy(
    sampler: GuidedSampler, prior: GaussianPrior, mask: Tensor, *, drawn: bool = False
) -> tuple[float, float, float]:
    """The figures of the published table, for a noise of 0.05.

    They are the RMS over y of the mean's error on missing samples, in prior standard deviations;
    the ratio of the draws' standard deviation to the posterior's there; and the same ratio on
    observed samples.
    """
    seen, (g, gain, exact) = mask.flatten(), kalman(prior, mask, 0.05)
    found_gain, found = guided_law(sampler, prior, mask, 0.05, drawn=drawn)
    wrong = (found_gain - gain)[~seen]
    error = (wrong @ g @ wrong.mT).diagonal().mean().sqrt()
    ratio = [
        float((found.diagonal()[where].mean() / exact[where].mean()).sqrt())
        for where in (~seen, seen)
    ]
    return float(error), ratio[0], ratio[1]


def sampled_accuracy(
    sampler: Sampler, prior: GaussianPrior, mask: Tensor, count: int
) -> tuple[float, float, float]:
    """The figures of :func:`accuracy` from two mirrored pairs of draws per observation.

    The mean of a pair is the mean of the draws as far as a sampler is affine, and the mean product
    of two pairs' errors is the mean square of the bias in any case.
    """
    x = prior.sample(count, torch.Generator().manual_seed(1))
    y = observe(Mask(mask), x, 0.05, torch.Generator().manual_seed(2)).y.repeat(4, 1, 1)
    seen, mean = mask.flatten(), prior.mean.flatten()
    _, gain, exact = kalman(prior, mask, 0.05)
    shape = (4 * count, *prior.shape)
    draws = sampler(prior, Observation(y, Mask(mask), 0.05), shape, generator=Mirrored(3))
    wanted = mean + (y.flatten(1) - mean)[:, seen] @ gain.mT
    off = (draws.flatten(1) - wanted).view(2, 2, count, -1)
    first, second = off.mean(0)
    error = (first * second).mean(0)[~seen].mean().clamp(min=0).sqrt()
    variance = (off[:, 0] - off[:, 1]).square().mean((0, 1)) / 2
    ratio = [float((variance[s].mean() / exact[s].mean()).sqrt()) for s in (~seen, seen)]
    return float(error), ratio[0], ratio[1]
