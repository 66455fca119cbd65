"""The published table of covariance models: rows whose solve knows variances alone.

Figures of the draws by exact affine propagation on a prior of 9 channels and 32 samples, at 32
levels; other rows are in the tests of MMPS, CA-DPS and the surrogate.
"""

import pytest
from ecg_like import accuracy, kronecker_mask, kronecker_prior
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior
from ecgdiff.experiments.oracles import DiagonalTypeII
from ecgdiff.samplers import PGDM

pytestmark = pytest.mark.usefixtures("one_thread")


class OneComponent:
    """A Gaussian prior as the mixture that type II asks for; its covariance is made once."""

    def __init__(self, prior: GaussianPrior) -> None:
        self.prior = prior

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        return self.prior(x_t, t)

    def tweedie_covariance(self, x_t: Tensor, t: int) -> Tensor:
        return self.prior.tweedie_covariance(t).expand(len(x_t), -1, -1)


@pytest.mark.parametrize(
    ("sampler", "name", "error", "spread"),
    [
        (PGDM(steps=32), "leads", 0.150, 0.96),
        (PGDM(steps=32), "block", 0.313, 0.91),
        (DiagonalTypeII(steps=32, grid="uniform"), "leads", 0.536, 1.73),
        (DiagonalTypeII(steps=32, grid="uniform"), "block", 0.526, 1.28),
    ],
)
def test_published_accuracy(
    sampler: PGDM | DiagonalTypeII,
    name: str,
    error: float,
    spread: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ecgdiff.experiments.oracles._mixture", OneComponent)
    found = accuracy(sampler, kronecker_prior(32), kronecker_mask(name))
    assert found[0] == pytest.approx(error, abs=6e-4)  # three digits were printed
    assert found[1] == pytest.approx(spread, abs=6e-3)  # two
