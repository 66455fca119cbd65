"""The Fréchet distance against closed forms, the matrix square root, and samples of Gaussians."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.errors import CheckpointError
from ecgdiff.evaluation.frechet import frechet_distance, gaussian_distance, pooled_features
from ecgdiff.models.xresnet1d import XResNet1d

RNG = np.random.default_rng(0)


def covariance(size: int, rank: int | None = None) -> np.ndarray:
    root = RNG.normal(size=(size, rank or 2 * size))
    return root @ root.T / root.shape[1]


def test_equal_gaussians_are_at_distance_zero() -> None:
    for rank in (None, 3):
        cov = covariance(20, rank)
        assert gaussian_distance(np.ones(20), cov, np.ones(20), cov) < 1e-12 * np.trace(cov)


def test_a_translation_costs_its_square() -> None:
    cov, shift = covariance(12), RNG.normal(size=12)
    found = gaussian_distance(np.zeros(12), cov, shift, cov)
    assert found == pytest.approx(shift @ shift, rel=1e-12)


def test_commuting_covariances_differ_by_their_standard_deviations() -> None:
    basis, _ = np.linalg.qr(RNG.normal(size=(9, 9)))
    a, b = RNG.uniform(0, 3, size=(2, 9))
    a[:2] = b[-2:] = 0.0  # singular, in different directions
    found = gaussian_distance(
        np.zeros(9), basis * a**2 @ basis.T, np.zeros(9), basis * b**2 @ basis.T
    )
    assert found == pytest.approx(np.square(a - b).sum(), rel=1e-9)


@pytest.mark.parametrize("size", [2, 40])
def test_it_is_the_formula_with_the_matrix_root(size: int) -> None:
    m1, m2 = RNG.normal(size=(2, size))
    s1, s2 = covariance(size), 3 * covariance(size)
    expected = np.square(m1 - m2).sum() + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)
    assert gaussian_distance(m1, s1, m2, s2) == pytest.approx(expected, rel=1e-8)
    assert gaussian_distance(m2, s2, m1, s1) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("count", [15, 60, 200])
def test_of_samples_it_is_that_of_their_moments(count: int) -> None:
    """Fewer records than features go another way than more."""
    a, b = RNG.normal(size=(2, count, 60)) @ np.diag(np.linspace(0.01, 5, 60))
    moments = [m for x in (a, b) for m in (x.mean(axis=0), np.cov(x, rowvar=False))]
    assert frechet_distance(a, b) == pytest.approx(gaussian_distance(*moments), rel=1e-7)


def test_few_records_look_farther_apart_and_many_do_not() -> None:
    few = frechet_distance(*RNG.normal(size=(2, 20, 5)))
    many = frechet_distance(*RNG.normal(size=(2, 20_000, 5)))
    assert many < 0.01 < few
    shifted = frechet_distance(RNG.normal(2.0, size=(20_000, 5)), RNG.normal(size=(20_000, 5)))
    assert shifted == pytest.approx(20.0, rel=0.02)


def test_unequal_sizes_and_matrices_that_are_no_covariances_are_refused() -> None:
    with pytest.raises(ValueError, match="got 4 and 5"):
        frechet_distance(np.zeros((4, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="negative eigenvalues"):
        gaussian_distance(np.zeros(2), np.diag([1.0, -0.1]), np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="same features"):
        gaussian_distance(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2))


def test_features_are_those_of_the_network_with_leads_by_name() -> None:
    net = XResNet1d(2, 3, layers=(1, 1)).eval()
    classifier: Any = SimpleNamespace(net=net, leads=("V2", "I"), scale=0.5, name="small")
    signal = RNG.normal(size=(40, 12, 128))
    picked = signal[:, [LEADS_12.index("V2"), 0]] / 0.5
    with torch.no_grad():
        expected = net.features(torch.from_numpy(picked).float())
    seen = []
    found = pooled_features(classifier, signal, progress=lambda done, total: seen.append(done))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert found.shape == (40, 512) and seen == [32, 40]
    classifier.net = torch.nn.Identity()
    with pytest.raises(CheckpointError, match="small"):
        pooled_features(classifier, signal)
