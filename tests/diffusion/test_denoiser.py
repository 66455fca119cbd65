from math import log

import pytest
import torch
from torch import Tensor, nn

from ecgdiff.diffusion import (
    Denoiser,
    EpsDenoiser,
    GaussianMixturePrior,
    NetworkDenoiser,
    Schedule,
)
from ecgdiff.diffusion.denoiser import (
    call_network,
    eps_from_x0,
    score_from_x0,
    v_from_x0,
    x0_from_eps,
    x0_from_v,
)
from ecgdiff.models.autocast import Autocast
from ecgdiff.testing import check_denoiser

SCHEDULE = Schedule.linear()
TIMES = [1, 37, 500, 1000]


class Probe(nn.Module):
    """Returns a fixed tensor and remembers its inputs."""

    def __init__(self, out: Tensor) -> None:
        super().__init__()
        self.out = out

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        self.x, self.c = x, c
        return self.out


def _normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("t", [*TIMES, torch.tensor([1, 500, 1000])])
def test_conversions_are_the_definitions(t: int | Tensor) -> None:
    x0, eps = _normal(3, 2, 5), _normal(3, 2, 5, seed=1)
    shape = (-1, 1, 1) if isinstance(t, Tensor) else ()
    alpha, std = SCHEDULE.alpha(t).reshape(shape), SCHEDULE.std(t).reshape(shape)
    x_t = alpha * x0 + std * eps
    close = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(eps_from_x0(x_t, x0, t, SCHEDULE), eps, **close)
    torch.testing.assert_close(x0_from_eps(x_t, eps, t, SCHEDULE), x0, **close)
    v = alpha * eps - std * x0
    torch.testing.assert_close(v_from_x0(x_t, x0, t, SCHEDULE), v, **close)
    torch.testing.assert_close(x0_from_v(x_t, v, t, SCHEDULE), x0, **close)
    score = score_from_x0(x_t, x0, t, SCHEDULE)
    torch.testing.assert_close(score * std, -eps, **close)
    torch.testing.assert_close((x_t + std**2 * score) / alpha, x0, **close)


@pytest.mark.parametrize("t", TIMES)
def test_preconditioning_with_unit_data_is_v_prediction(t: int) -> None:
    x_t, out = _normal(3, 2, 5), _normal(3, 2, 5, seed=1)
    net = Probe(out)
    x0 = NetworkDenoiser(net, SCHEDULE)(x_t, t)
    torch.testing.assert_close(net.x, x_t, rtol=0, atol=1e-12)
    expected = x0_from_v(x_t, -out, t, SCHEDULE)
    torch.testing.assert_close(x0, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma_data", [0.5, 2.0])
def test_preconditioning_follows_its_formula(sigma_data: float) -> None:
    x_t, out = _normal(3, 2, 5), _normal(3, 2, 5, seed=1)
    t = torch.tensor([1, 300, 1000])
    net = Probe(out)
    denoiser = NetworkDenoiser(net, SCHEDULE, sigma_data)
    x0 = denoiser(x_t, t)
    for b, level in enumerate(t.tolist()):
        sigma = float(SCHEDULE.sigma(level))
        x = x_t[b] / float(SCHEDULE.alpha(level))
        total = sigma**2 + sigma_data**2
        torch.testing.assert_close(net.x[b], x / total**0.5)
        assert float(net.c[b]) == pytest.approx(log(sigma) / 4, abs=1e-12)
        expected = sigma_data**2 / total * x + sigma * sigma_data / total**0.5 * out[b]
        torch.testing.assert_close(x0[b], expected)
    one = torch.cat([denoiser(x_t, int(level))[b : b + 1] for b, level in enumerate(t)])
    torch.testing.assert_close(one, x0, rtol=0, atol=1e-12)


def test_clean_level_returns_the_signal() -> None:
    x = _normal(2, 2, 5)
    for t in (0, torch.tensor([0, 0])):
        net = Probe(_normal(2, 2, 5, seed=1))
        torch.testing.assert_close(NetworkDenoiser(net, SCHEDULE, 0.7)(x, t), x)
        assert net.c.isfinite().all()
        torch.testing.assert_close(EpsDenoiser(net, SCHEDULE)(x, t), x)


def test_eps_network_gets_the_index_of_its_level() -> None:
    x_t, eps = _normal(2, 2, 5), _normal(2, 2, 5, seed=1)
    net = Probe(eps)
    torch.testing.assert_close(
        EpsDenoiser(net, SCHEDULE)(x_t, 1000), x0_from_eps(x_t, eps, 1000, SCHEDULE)
    )
    assert net.c.tolist() == [999, 999]
    EpsDenoiser(net, SCHEDULE)(x_t, torch.tensor([1, 4]))
    assert net.c.tolist() == [0, 3] and net.c.dtype == torch.long


def test_single_precision_stays_single_and_gradients_flow() -> None:
    x_t = _normal(2, 2, 5).float().requires_grad_()
    net = Probe(_normal(2, 2, 5, seed=1).float())
    for denoiser in (NetworkDenoiser(net, SCHEDULE), EpsDenoiser(net, SCHEDULE)):
        for t in (5, torch.tensor([5, 1000])):
            x0 = denoiser(x_t, t)
            assert x0.dtype == torch.float32
            assert torch.autograd.grad(x0.sum(), x_t)[0].abs().min() > 0


class Small(nn.Module):
    """A network of items alone: its answer depends on the signal and its level, smoothly."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return torch.tanh(x + x.roll(1, -1) + torch.cos(c.to(x))[:, None, None])


def denoisers() -> dict[str, Denoiser]:
    b = _normal(3, 10, 10)
    return {
        "network": NetworkDenoiser(Small(), SCHEDULE),
        "network of other data": NetworkDenoiser(Small(), SCHEDULE, 0.5),
        "eps": EpsDenoiser(Small(), SCHEDULE),
        "mixture": GaussianMixturePrior(
            torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
            _normal(3, 10, seed=1),
            b @ b.mT / 10 + 0.1 * torch.eye(10, dtype=torch.float64),
            SCHEDULE,
            (2, 5),
        ),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", list(denoisers()))
def test_the_contract_holds(name: str, dtype: torch.dtype) -> None:
    check_denoiser(denoisers()[name], (3, 2, 5), dtype)


def test_data_spread_must_be_positive() -> None:
    with pytest.raises(ValueError, match="sigma_data"):
        NetworkDenoiser(nn.Identity(), SCHEDULE, 0.0)


class Affine(nn.Module):
    """A network of single precision, which keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x: Tensor, c: Tensor, *others: Tensor) -> Tensor:
        self.given = x, c, *others
        out: Tensor = self.layer(x)
        return out


@pytest.mark.parametrize("t", [5, torch.tensor([5, 500, 1000])])
@pytest.mark.parametrize("kind", [NetworkDenoiser, EpsDenoiser])
def test_a_network_computes_in_its_own_type(
    kind: type[NetworkDenoiser | EpsDenoiser], t: int | Tensor
) -> None:
    net = Affine()
    denoiser = kind(net, SCHEDULE)
    x = _normal(3, 2, 5).requires_grad_()
    x0 = denoiser(x, t)
    assert x0.dtype == torch.float64
    assert net.given[0].dtype == torch.float32
    assert net.given[1].dtype == (torch.float32 if kind is NetworkDenoiser else torch.long)
    (gradient,) = torch.autograd.grad(x0.square().sum(), x)
    truth = kind(net.double(), SCHEDULE)(x, t)
    (wanted,) = torch.autograd.grad(truth.square().sum(), x)
    assert gradient.dtype == torch.float64
    # At t = 1000 the eps-form divides by alpha = 0.006, which takes its share of the rounding.
    torch.testing.assert_close(x0, truth, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_a_network_of_the_same_type_is_called_as_it_is() -> None:
    net, x, c = Affine(), _normal(3, 2, 5).float(), torch.zeros(3, dtype=torch.float64)
    assert torch.equal(call_network(net, x, c), net(x, c))
    call_network(net, x, c)
    assert net.given[0] is x and net.given[1] is c
    # One of both types may cast by itself, one without parameters has no type of its own.
    net.scale = nn.Parameter(torch.ones(1, dtype=torch.float16))
    assert next(net.parameters()).dtype == torch.float16
    call_network(net, x, c)
    assert net.given[0] is x
    probe = Probe(x)
    call_network(probe, x.double(), c)
    assert probe.x.dtype == torch.float64
    assert call_network(lambda u, v: u, x, c) is x  # type: ignore[arg-type]


def test_products_in_bfloat16_stay_what_they_were() -> None:
    net = Autocast(Affine())
    x, c = _normal(3, 2, 5).float(), torch.zeros(3)
    found = call_network(net, x, c)
    assert torch.equal(found, net(x, c))
    assert net.net.given[0] is x and found.dtype == torch.float32
    double = call_network(net, x.double(), c)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, found.double(), rtol=0, atol=0)
