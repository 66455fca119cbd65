import itertools
from math import sqrt

import pytest
import torch

from ecgdiff.diffusion import Schedule


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return Schedule.linear()


def test_linear_schedule_is_the_product_of_one_minus_beta(schedule: Schedule) -> None:
    assert schedule.T == 1000
    assert schedule.alpha_bar[0] == 1 and schedule.alpha_bar.dtype == torch.float64
    assert float(schedule.alpha_bar[1]) == pytest.approx(1 - 1e-4, abs=1e-15)
    beta = 1 - schedule.alpha_bar[1:] / schedule.alpha_bar[:-1]
    expected = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(beta, expected, rtol=0, atol=1e-12)


def test_factors_of_integers_and_tensors_agree(schedule: Schedule) -> None:
    t = torch.tensor([0, 1, 500, 1000])
    for f in (schedule.alpha, schedule.std, schedule.sigma):
        values = f(t)
        assert values.dtype == torch.float64 and values.shape == (4,)
        assert values.tolist() == [float(f(int(i))) for i in t]
    one = schedule.alpha(t) ** 2 + schedule.std(t) ** 2
    torch.testing.assert_close(one, torch.ones_like(one), rtol=0, atol=1e-15)
    torch.testing.assert_close(schedule.sigma(t), schedule.std(t) / schedule.alpha(t))


def test_index_inverts_sigma(schedule: Schedule) -> None:
    t = torch.arange(1001)
    assert torch.equal(schedule.index(schedule.sigma(t)), t)
    assert schedule.index(0.0) == 0
    assert schedule.index(1e9) == 1000
    between = float(schedule.sigma(10) * 0.9 + schedule.sigma(11) * 0.1)
    assert schedule.index(between) == 10


def _direct(a: torch.Tensor, l: int, s: int, k: int) -> tuple[float, float, float]:
    """Conditions the Gaussian x_l | x_s on x_k = sqrt(B) x_l + noise, in natural parameters."""
    A, B = float(a[l] / a[s]), float(a[k] / a[l])
    precision = 1 / (1 - A) + B / (1 - B)
    return sqrt(A) / (1 - A) / precision, sqrt(B) / (1 - B) / precision, sqrt(1 / precision)


@pytest.mark.parametrize(("s", "l", "k"), [(0, 1, 2), (0, 300, 900), (10, 400, 401), (5, 6, 1000)])
def test_bridge_is_direct_gaussian_conditioning(
    schedule: Schedule, s: int, l: int, k: int
) -> None:
    assert schedule.bridge(l, s, k) == pytest.approx(_direct(schedule.alpha_bar, l, s, k), 1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5, 0.85, 1.0])
def test_bridge_keeps_the_marginal(schedule: Schedule, eta: float) -> None:
    a = schedule.alpha_bar.tolist()
    for s, l, k in itertools.combinations([0, 1, 2, 100, 500, 999, 1000], 3):
        c_lo, c_hi, std = schedule.bridge(l, s, k, eta)
        not_a, not_c = 1 - a[l] / a[s], 1 - a[k] / a[s]
        assert c_hi**2 * not_c + std**2 == pytest.approx(not_a, abs=1e-12)
        assert c_lo + c_hi * sqrt(a[k] / a[s]) == pytest.approx(sqrt(a[l] / a[s]), abs=1e-12)


def test_two_bridges_compose(schedule: Schedule) -> None:
    """Drawing l and then m < l gives m the same law as drawing it at once."""
    s, m, l, k = 0, 200, 500, 900
    first, second, once = (schedule.bridge(*b) for b in [(l, s, k), (m, s, l), (m, s, k)])
    assert second.c_lo + second.c_hi * first.c_lo == pytest.approx(once.c_lo, abs=1e-12)
    assert second.c_hi * first.c_hi == pytest.approx(once.c_hi, abs=1e-12)
    variance = second.c_hi**2 * first.std**2 + second.std**2
    assert variance == pytest.approx(once.std**2, abs=1e-12)


def test_bridge_limits_are_exact(schedule: Schedule) -> None:
    for eta in (0.0, 0.7, 1.0):
        assert schedule.bridge(0, 0, 500, eta) == (1.0, 0.0, 0.0)
        assert schedule.bridge(7, 7, 500, eta) == (1.0, 0.0, 0.0)
        assert schedule.bridge(500, 7, 500, eta) == (0.0, 1.0, 0.0)
    assert schedule.bridge(3, 0, 10, 0.0).std == 0
    nearly_one = schedule.bridge(300, 0, 900, 1 - 1e-12)
    assert nearly_one == pytest.approx(schedule.bridge(300, 0, 900), abs=1e-9)


def test_refusals_name_the_problem(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match="s <= l <= k"):
        schedule.bridge(3, 4, 5)
    with pytest.raises(ValueError, match=r"outside 0\.\.1000"):
        schedule.bridge(3, 0, 1001)
    with pytest.raises(ValueError, match="outside"):
        schedule.alpha(-1)
    with pytest.raises(ValueError, match="eta"):
        schedule.bridge(100, 0, 1000, 50.0)
    with pytest.raises(ValueError, match="eta"):
        schedule.bridge(100, 0, 1000, -0.1)
    for bad in ([1.0], [0.9, 0.5], [1.0, 0.5, 0.5], [1.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="alpha_bar"):
            Schedule(torch.tensor(bad))
