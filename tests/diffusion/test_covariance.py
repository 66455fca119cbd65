import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, LeadFrequencyCovariance, Schedule
from ecgdiff.diffusion._dct import dct
from ecgdiff.diffusion._solve import conjugate_gradient
from ecgdiff.operators import Mask, RotatedMask, observe
from ecgdiff.random import streams

CHANNELS, TIME = 3, 16
SHAPE = (CHANNELS, TIME)
N = CHANNELS * TIME


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=_generator(seed), dtype=torch.float64)


def _spectrum(time: int = TIME) -> Tensor:
    b = _normal(time, CHANNELS, CHANNELS)
    decay = 20 / (1 + torch.arange(time, dtype=torch.float64)) ** 2
    return decay[:, None, None] * (b @ b.mT / CHANNELS) + 1e-3 * torch.eye(CHANNELS)


@pytest.fixture(scope="module")
def covariance() -> LeadFrequencyCovariance:
    return LeadFrequencyCovariance(_spectrum())


def _masks() -> dict[str, Tensor]:
    leads = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 1, 1]]).bool()[..., None].expand(3, *SHAPE)
    block = torch.ones(3, *SHAPE, dtype=torch.bool)
    block[0, :, 5:9], block[1, :, :3], block[2, 1] = False, False, False
    points = torch.rand(3, *SHAPE, generator=_generator(8)) > 0.5
    return {"leads": leads, "shared leads": leads[:1], "block": block, "points": points}


@pytest.fixture(params=["leads", "shared leads", "block", "points"])
def mask(request: pytest.FixtureRequest) -> Tensor:
    return _masks()[request.param]


VARIANCES = {
    "number": torch.tensor(0.04),
    "per channel": torch.tensor([[0.01], [0.1], [0.5]]),
    "per item": torch.tensor([0.01, 0.1, 0.5]).reshape(3, 1, 1),
    "per entry": torch.linspace(0.01, 0.5, 3 * N).reshape(3, *SHAPE),
}


@pytest.fixture(params=list(VARIANCES))
def variance(request: pytest.FixtureRequest) -> Tensor:
    return VARIANCES[request.param].double()


def _dense_gram(dense: Tensor, mask: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """M and R + M Sigma M as matrices, per item."""
    m = torch.diag_embed(mask.expand(3, *SHAPE).flatten(1).double())
    return m, m @ dense @ m + torch.diag_embed(variance.expand(3, *SHAPE).flatten(1))


def test_matrix_is_block_diagonal_in_frequency(covariance: LeadFrequencyCovariance) -> None:
    w = dct(torch.eye(TIME, dtype=torch.float64)).mT
    lead = torch.einsum("fij,ft,fu->itju", _spectrum(), w, w).reshape(N, N)
    torch.testing.assert_close(covariance.dense(), lead, rtol=0, atol=1e-11)
    x = _normal(4, *SHAPE)
    expected = (x.flatten(1) @ lead).reshape(x.shape)
    torch.testing.assert_close(covariance.matvec(x), expected, rtol=0, atol=1e-11)
    assert (covariance.channels, covariance.n_samples) == SHAPE
    torch.testing.assert_close(covariance.spectrum, _spectrum(), rtol=0, atol=1e-12)


def test_basis_diagonalizes(covariance: LeadFrequencyCovariance) -> None:
    x = _normal(4, *SHAPE)
    z = covariance.to_basis(x)
    torch.testing.assert_close(covariance.from_basis(z), x, rtol=0, atol=1e-12)
    product = covariance.from_basis(z * covariance.eigenvalues.flatten())
    torch.testing.assert_close(product, covariance.matvec(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("sigma", [1e-4, 0.1, 1.0, 10.0, 1e4])
def test_tweedie_is_the_matrix_formula(covariance: LeadFrequencyCovariance, sigma: float) -> None:
    c, eye = covariance.dense(), torch.eye(N, dtype=torch.float64)
    expected = (c.inverse() + eye / sigma**2).inverse()
    got = covariance.tweedie(sigma)
    torch.testing.assert_close(got.dense(), expected, rtol=1e-8, atol=1e-9)
    again = got.tweedie(0.5).dense()
    torch.testing.assert_close(again, (expected.inverse() + 4 * eye).inverse(), rtol=0, atol=1e-8)
    assert (covariance.tweedie(0.0).eigenvalues == 0).all()


def test_draws_have_the_covariance_and_their_own_streams(
    covariance: LeadFrequencyCovariance,
) -> None:
    x = covariance.sample((20_000, *SHAPE), _generator(), torch.float64).flatten(1)
    c = covariance.dense()
    limit = 5.5 * ((c.diagonal()[:, None] * c.diagonal() + c**2) / len(x)).sqrt()
    assert ((x.mT.cov() - c).abs() < limit).all()
    both = covariance.sample((2, *SHAPE), streams(0, "a", [0, 1]))
    one = covariance.sample((1, *SHAPE), streams(0, "a", [1]))
    torch.testing.assert_close(one[0], both[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dense_samples", [1200, 20, 0])
def test_solve_and_gain_are_dense_algebra(
    covariance: LeadFrequencyCovariance,
    mask: Tensor,
    variance: Tensor,
    dense_samples: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a dense matrix of observed samples, or of lost ones where they are few, or iterated."""
    monkeypatch.setattr("ecgdiff.diffusion.covariance.DENSE", dense_samples)
    v = _normal(3, *SHAPE) * mask
    dense = covariance.dense()
    m, gram = _dense_gram(dense, mask, variance)
    expected = (m @ torch.linalg.solve(gram, v.flatten(1))[..., None])[..., 0]
    got = covariance.solve(v, mask, variance, rtol=1e-12)
    torch.testing.assert_close(got.flatten(1), expected, rtol=1e-8, atol=1e-8)
    gain = covariance.gain(v, mask, variance, rtol=1e-12)
    torch.testing.assert_close(gain.flatten(1), expected @ dense, rtol=1e-8, atol=1e-8)
    coarse = covariance.solve(v, mask, variance)
    error = (gram @ (coarse.flatten(1)[..., None]) - v.flatten(1)[..., None]).flatten(1)
    assert ((error.norm(dim=1) / v.flatten(1).norm(dim=1)) < 2e-6).all()


@pytest.mark.parametrize("dense_samples", [1200, 0])
def test_items_do_not_depend_on_their_batch(
    covariance: LeadFrequencyCovariance, dense_samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the direct solution serves one item and only iterations serve another."""
    monkeypatch.setattr("ecgdiff.diffusion.covariance.DENSE", dense_samples)
    mask = torch.stack([_masks()["leads"][0], _masks()["block"][0], _masks()["points"][0]])
    v, variance = _normal(3, *SHAPE) * mask, torch.tensor(0.01)
    together = covariance.solve(v, mask, variance)
    for i in range(3):
        alone = covariance.solve(v[i : i + 1], mask[i : i + 1], variance)
        torch.testing.assert_close(together[i], alone[0], rtol=0, atol=1e-11)


def test_condition_draws_the_posterior(covariance: LeadFrequencyCovariance) -> None:
    draws, dense = 2_000, covariance.dense()
    for name, noise in (("leads", "per channel"), ("block", "number")):
        mask, variance = _masks()[name][:1], VARIANCES[noise].double()
        residual = _normal(1, *SHAPE) * mask
        got = covariance.condition(
            residual.expand(draws, *SHAPE), mask, variance, _generator(1)
        ).flatten(1)
        m, gram = _dense_gram(dense, mask, variance)
        k = dense @ m[0] @ gram[0].inverse()
        expected = dense - k @ dense
        spread = expected.diagonal()
        error = (got.mean(0) - k @ residual.flatten()).abs() / (spread / draws).sqrt()
        assert error.max() < 5
        limit = 5.5 * ((spread[:, None] * spread + expected**2) / draws).sqrt()
        assert ((got.mT.cov() - expected).abs() < limit).all()


def test_surrogate_is_exact_for_its_prior(covariance: LeadFrequencyCovariance) -> None:
    """x0hat + gain of the Tweedie covariance = conditional denoiser, also behind a rotation."""
    schedule = Schedule.linear()
    prior = GaussianPrior.from_covariance(covariance, schedule, mean=0.3)
    assert prior.covariance is covariance
    q = torch.linalg.qr(_normal(CHANNELS, CHANNELS, seed=4))[0]
    truth, x_t = prior.sample(1, _generator()), _normal(1, *SHAPE, seed=2)
    for mask in (_masks()["leads"][:1], _masks()["block"][:1]):
        for t in (5, 400, 1000):
            tweedie = covariance.tweedie(float(schedule.sigma(t)))
            plain = observe(Mask(mask), truth, 0.1, _generator(3))
            x0 = prior(x_t, t)
            got = x0 + tweedie.gain(plain.residual(x0), mask, plain.variance, rtol=1e-12)
            expected = prior.condition(plain)(x_t, t)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-8)
            mixed = observe(RotatedMask(mask, q), truth, 0.1, _generator(3))
            rotated = tweedie.rotate(q)
            gain = rotated.gain(mixed.residual(x0), mask, mixed.variance, rtol=1e-12)
            expected = prior.condition(mixed)(x_t, t)
            torch.testing.assert_close(x0 + q.mT @ gain, expected, rtol=0, atol=1e-8)


def test_fit_is_the_sample_covariance_of_coefficients() -> None:
    x = _normal(700, *SHAPE) * torch.tensor([[1.0], [2.0], [3.0]]) + 5
    fitted = LeadFrequencyCovariance.fit(x, shrink=0.0)
    z = dct(x)
    for f in (0, 7, TIME - 1):
        expected = z[:, :, f].mT.cov()
        torch.testing.assert_close(fitted.spectrum[f], expected, rtol=0, atol=1e-10)
    shrunk = LeadFrequencyCovariance.fit(x, shrink=0.3).spectrum - fitted.spectrum
    trace = fitted.spectrum.diagonal(dim1=1, dim2=2).sum(1)
    isotropic = 0.3 * trace[:, None, None] / CHANNELS * torch.eye(CHANNELS)
    torch.testing.assert_close(shrunk, isotropic, rtol=0, atol=1e-10)
    arrays = LeadFrequencyCovariance.fit(x.float().numpy())
    torch.testing.assert_close(arrays.spectrum, LeadFrequencyCovariance.fit(x).spectrum)


def test_smoothing_averages_neighbors() -> None:
    x = _normal(300, *SHAPE)
    rough = LeadFrequencyCovariance.fit(x, shrink=0.0).spectrum
    smooth = LeadFrequencyCovariance.fit(x, shrink=0.0, smooth=2).spectrum
    torch.testing.assert_close(smooth[5], rough[3:8].mean(0), rtol=0, atol=1e-11)
    torch.testing.assert_close(smooth[0], rough[:3].mean(0), rtol=0, atol=1e-11)
    torch.testing.assert_close(smooth[-1], rough[-3:].mean(0), rtol=0, atol=1e-11)


def test_fit_recovers_a_known_covariance(covariance: LeadFrequencyCovariance) -> None:
    x = covariance.sample((8_000, *SHAPE), _generator(), torch.float64)
    fitted = LeadFrequencyCovariance.fit(x).spectrum
    scale = covariance.spectrum.diagonal(dim1=1, dim2=2).amax(1)[:, None, None]
    assert ((fitted - covariance.spectrum) / scale).abs().max() < 0.09


def test_other_lengths_keep_the_process(covariance: LeadFrequencyCovariance) -> None:
    assert covariance.for_length(TIME) is covariance
    double, half = covariance.for_length(2 * TIME), covariance.for_length(TIME // 2)
    torch.testing.assert_close(double.spectrum[::2], covariance.spectrum, rtol=0, atol=1e-12)
    torch.testing.assert_close(half.spectrum, covariance.spectrum[::2], rtol=0, atol=1e-12)
    between = (covariance.spectrum[2] + covariance.spectrum[3]) / 2
    torch.testing.assert_close(double.spectrum[5], between, rtol=0, atol=1e-12)
    white = LeadFrequencyCovariance(torch.eye(2)[None].expand(8, 2, 2)).for_length(11)
    torch.testing.assert_close(white.dense(), torch.eye(22).double(), rtol=0, atol=1e-12)


def test_single_precision_and_gradients(covariance: LeadFrequencyCovariance) -> None:
    mask, variance = _masks()["points"], torch.tensor(0.01)
    v = _normal(3, *SHAPE) * mask
    single = covariance.solve(v.float(), mask, variance)
    assert single.dtype == torch.float32
    double = covariance.solve(v, mask, variance)
    error = (single.double() - double).flatten(1).norm(dim=1) / double.flatten(1).norm(dim=1)
    assert error.max() < 1e-4
    fresh = LeadFrequencyCovariance(_spectrum())
    with torch.inference_mode():
        fresh.gain(v, mask, variance)
    x = v.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((fresh.matvec(x) * v).sum(), x)
    torch.testing.assert_close(gradient, fresh.matvec(v), rtol=0, atol=1e-10)


def test_preconditioner_needs_few_iterations() -> None:
    """The setting of an ECG-like prior: 9 channels, 32 samples, noise 0.05 (at most 5 at 1e-2)."""
    b = _normal(9, 3)
    lead = b @ b.mT
    lead = 0.95 * lead / (lead.diagonal()[:, None] * lead.diagonal()).sqrt() + 0.05 * torch.eye(9)
    lag = (torch.arange(32)[:, None] - torch.arange(32)).double()
    time = (
        0.9 * torch.exp(-(lag**2) / 32) + 0.098 * torch.exp(-(lag**2) / 2) + 0.002 * torch.eye(32)
    )
    spectrum = dct(dct(time).mT).diagonal()[:, None, None] * lead
    exact = torch.kron(lead.contiguous(), time)
    mask = torch.ones(2, 9, 32, dtype=torch.bool)
    mask[0, 3:], mask[1, :, 12:20] = False, False
    v, variance = _normal(2, 9, 32) * mask, torch.tensor([[[0.0025]]]).double()
    for sigma in (10.0, 1.0, 0.1):
        eye = torch.eye(288, dtype=torch.float64)
        tweedie = sigma**2 * exact @ (exact + sigma**2 * eye).inverse()
        surrogate = LeadFrequencyCovariance(spectrum).tweedie(sigma)

        def matvec(u: Tensor, tweedie: Tensor = tweedie) -> Tensor:
            return (u.flatten(1) @ tweedie).reshape(u.shape) * mask + variance * u

        def precondition(u: Tensor, s: LeadFrequencyCovariance = surrogate) -> Tensor:
            return s.solve(u, mask, variance)

        solution = conjugate_gradient(matvec, v, precondition=precondition, rtol=1e-2)
        assert solution.iterations.max() <= 5


def test_refusals_name_the_problem() -> None:
    with pytest.raises(ValueError, match=r"give \(freq, channels, channels\)"):
        LeadFrequencyCovariance(torch.eye(3))
    with pytest.raises(ValueError, match="negative eigenvalue"):
        LeadFrequencyCovariance(-torch.eye(3)[None])
    with pytest.raises(ValueError, match="symmetric"):
        LeadFrequencyCovariance(torch.ones(1, 3, 3).triu())
    with pytest.raises(ValueError, match="finite"):
        LeadFrequencyCovariance(torch.full((1, 3, 3), float("nan")))
    with pytest.raises(ValueError, match="at least two records"):
        LeadFrequencyCovariance.fit(torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="leave such records out"):
        LeadFrequencyCovariance.fit(torch.full((2, 3, 4), float("nan")))
