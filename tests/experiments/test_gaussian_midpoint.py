"""The midpoint experiment against published values and against sampling."""

import pytest
import torch

from ecgdiff.diffusion import Schedule
from ecgdiff.experiments import gaussian_midpoint as experiment
from ecgdiff.experiments.gaussian_midpoint import (
    Setting,
    distance,
    problem,
    published_grid,
    wasserstein,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SCHEDULE = Schedule.linear()


def test_published_values() -> None:
    """K = 100; instances differ by up to a quarter."""
    p, times = problem(0), published_grid(100)
    floors = [
        distance(p, SCHEDULE, times, eta, "exact kernel, exact potential") for eta in (0.3, 0.7)
    ]
    assert floors[0] == pytest.approx(0.235, rel=0.05)  # what the last D_{t_1} costs
    assert floors[1] == pytest.approx(floors[0], abs=1e-3)
    for eta, published in ((0.3, 1.15), (0.5, 0.487), (0.7, 1.03)):
        assert distance(p, SCHEDULE, times, eta) == pytest.approx(published, rel=0.25)
    rising = [
        distance(p, SCHEDULE, times, eta, "exact kernel, DPS potential") for eta in (0.1, 0.97)
    ]
    assert rising == pytest.approx([0.22, 2.6], rel=0.25)


def test_the_posterior_agrees_with_conditioning_the_joint_law() -> None:
    p = problem(1, d=6, m=3)
    mean, cov = p.posterior()
    precision = torch.diag(1 / p.values) + p.matrix.mT @ p.matrix / p.sigma**2
    torch.testing.assert_close(cov, torch.linalg.inv(precision))
    wanted = torch.linalg.solve(precision, p.mean / p.values + p.matrix.mT @ p.y / p.sigma**2)
    torch.testing.assert_close(mean, wanted)


def test_wasserstein_of_gaussians() -> None:
    one, two = torch.ones(2).double(), torch.zeros(2).double()
    eye = torch.eye(2, dtype=torch.float64)
    # |m1 - m2|^2 = 2, and (2 - 1)^2 for each of two standard deviations.
    assert wasserstein(one, 4 * eye, two, eye) == pytest.approx(2.0)


def test_the_command_s_result() -> None:
    result = experiment.run(Setting(steps=20, instances=1, etas=3, draws=2000))
    assert list(result["w2"]) == list(experiment.VARIANTS)
    assert result["eta"] == pytest.approx([0.25, 0.5, 0.75])
    assert result["best_eta"] in result["eta"]
    for row in result["sampled"]:
        # 100 correlated standard normal numbers, and 2000 draws of 100 variances.
        assert 0.7 < row["rms_z_of_mean"] < 1.3
        assert row["variance_ratio"] == pytest.approx(1, abs=0.03)
    text = experiment.table(result)
    assert "| | 0.250 | 0.500 | 0.750 |" in text
    assert f"best at {result['best_eta']:.3f}" in text
    assert len(experiment.figure(result)["data"]) == 4
