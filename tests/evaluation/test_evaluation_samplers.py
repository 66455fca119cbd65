"""Every sampler as a method of the benchmark, on records that differ in their noise."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ecgdiff.diffusion import GaussianPrior, LeadFrequencyCovariance, Schedule
from ecgdiff.evaluation.benchmark import SamplerMethod
from ecgdiff.evaluation.tasks import Case, NoisyTask, problem
from ecgdiff.samplers import SAMPLERS, named_sampler

LEAD = 0.2 + 0.8 * torch.eye(8).double()
PRIOR = GaussianPrior.from_covariance(
    LeadFrequencyCovariance(LEAD.expand(100, 8, 8).contiguous()), Schedule.linear()
)
BLIND = ("dps", "reddiff")
"""Their papers weigh the residual by constants, whatever the level of the noise."""


@pytest.mark.parametrize("name", SAMPLERS)
def test_records_of_other_noise_may_share_a_batch(name: str) -> None:
    prior = SimpleNamespace(denoiser=PRIOR, scale=0.25, name="p", config={})
    signals = PRIOR.sample(2, torch.Generator().manual_seed(0)).numpy() * prior.scale
    cases = [Case(k, k, (k + 1) * x.astype(np.float32)) for k, x in enumerate(signals)]
    problems = [problem(NoisyTask(), case, 0, 0.02) for case in cases]
    assert problems[1].noise > 1.3 * problems[0].noise
    sampler = named_sampler(f"{name}:steps=2")
    method = SamplerMethod(name, sampler, prior, 2, 0, {}, dtype=torch.float64)
    together = method(problems)
    for p, draws in zip(problems, together, strict=True):
        np.testing.assert_allclose(draws, method([p])[0], rtol=1e-9, atol=1e-12)
    other = method([problems[0], replace(problems[1], noise=problems[0].noise)])
    assert np.allclose(other[1], together[1]) == (name in BLIND)
