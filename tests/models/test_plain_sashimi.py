"""The network that ours is timed against: its kernels simulated, its arithmetic that of ours."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ecgdiff.models.sashimi import PRESETS, SaShiMi

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
plain = import_module("plain_sashimi")

TINY = {"d_model": 8, "n_layers": 1, "pool": (1, 2), "stem": 2, "state": 8}
TINY |= {"t_features": 8, "t_width": 16}


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def _pairs(x: Tensor) -> Tensor:
    return torch.cat([x, x.conj()], dim=-1)


def test_legs_is_the_hippo_matrix_in_another_basis() -> None:
    size = 6
    a = torch.zeros(size, size, dtype=torch.complex128)
    for n in range(size):
        for k in range(n + 1):
            a[n, k] = -(n + 1) if n == k else -(((2 * n + 1) * (2 * k + 1)) ** 0.5)
    p = torch.tensor([(n + 0.5) ** 0.5 for n in range(size)], dtype=torch.complex128)
    b = torch.tensor([(2 * n + 1) ** 0.5 for n in range(size)], dtype=torch.complex128)
    eigenvalues, *vectors = (_pairs(x) for x in plain.legs(size))
    rotated_p, rotated_b = vectors
    rotated_a = torch.diag(eigenvalues) - torch.outer(rotated_p, rotated_p.conj())
    for s in (0.3 + 0.1j, -0.2 + 4j, 7.0):
        one = s * torch.eye(size)
        transfer = p @ torch.linalg.solve(one - a, b)
        rotated = rotated_p.conj() @ torch.linalg.solve(one - rotated_a, rotated_b)
        torch.testing.assert_close(rotated, transfer)


def _steps(layer: nn.Module, channel: int, head: int, u: Tensor) -> Tensor:
    """y_k = C x_k, x_k = Abar x_{k-1} + Bbar u_k with the dense matrices of the bilinear rule."""
    dt = layer.log_dt[channel].exp()
    eigenvalues = torch.complex(-layer.log_decay[channel].exp(), layer.frequency[channel])
    p, b, c = (
        _pairs(torch.view_as_complex(x))
        for x in (layer.p[channel], layer.b[channel], layer.c[head, channel])
    )
    a = torch.diag(_pairs(eigenvalues)) - torch.outer(p, p.conj())
    one = torch.eye(len(p), dtype=p.dtype)
    inverse = torch.linalg.inv(one - dt / 2 * a)
    a_bar, b_bar = inverse @ (one + dt / 2 * a), dt * inverse @ b
    c = c @ torch.linalg.inv(one - torch.linalg.matrix_power(a_bar, layer.length))
    x, y = torch.zeros_like(b), []
    for value in u:
        x = a_bar @ x + b_bar * value
        y.append((c @ x).real)
    return torch.stack(y)


@pytest.mark.parametrize("length", [1, 2, 7, 24])
@torch.no_grad()
def test_kernels_are_the_recurrence(float64: None, length: int) -> None:
    layer = plain.NPLR(3, 8, length)
    for parameter in layer.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    kernels, u = layer(), torch.randn(length)
    for head in range(2):
        for channel in range(3):
            kernel = kernels[head, channel]
            causal = [(kernel[: k + 1].flip(0) * u[: k + 1]).sum() for k in range(length)]
            expected = _steps(layer, channel, head, u)
            torch.testing.assert_close(torch.stack(causal), expected, rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_a_longer_layer_of_the_same_system_has_the_same_kernel_and_more(float64: None) -> None:
    kernels = []
    for length in (12, 31):
        torch.manual_seed(0)
        kernels.append(plain.NPLR(2, 8, length)())
    torch.testing.assert_close(kernels[1][..., :12], kernels[0])


@pytest.mark.parametrize("length", [1, 2, 9])
def test_convolution_is_the_direct_sum(length: int) -> None:
    kernels = torch.randn(2, 3, length, dtype=torch.float64)
    u = torch.randn(4, 3, length, dtype=torch.float64)
    y = torch.zeros_like(u)
    for i in range(length):
        for j in range(length):
            k = kernels[0][:, i - j] if i >= j else kernels[1][:, j - i - 1]
            y[..., i] += k * u[..., j]
    torch.testing.assert_close(plain.convolve(u, kernels), y)


def test_paper_network_has_the_parameters_of_the_published_one() -> None:
    with torch.device("meta"):
        net = plain.PlainSaShiMi(1024, 9, **PRESETS["paper"])
    assert sum(p.numel() for p in net.parameters()) == 16_177_531


class Given(nn.Module):
    """Kernels of another network."""

    def __init__(self, kernels: Tensor) -> None:
        super().__init__()
        self.values = kernels

    def forward(self) -> Tensor:
        return self.values


def _copy(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> None:
    for name, other in names.items():
        source, target = ours.get_submodule(name), theirs.get_submodule(other)
        if hasattr(source, "gain"):
            target.gain, target.shift = source.gain, source.shift
        else:
            weight = source.weight.view(target.weight.shape)
            if hasattr(target, "parametrizations"):
                target.weight = weight  # Torch splits it into length and direction.
            else:
                target.weight.copy_(weight)
            target.bias.copy_(source.bias)


BLOCK = {n: n for n in ("norm1", "norm2", "level", "wide", "narrow")} | {"gate": "s4.mix"}
ENDS = {n: n for n in ("input", "norm", "head", "output")}
ENDS |= {"embed.first": "first", "embed.second": "second"}


@torch.no_grad()
def test_all_but_the_kernels_is_the_arithmetic_of_our_network() -> None:
    length = 32
    ours, theirs = SaShiMi(3, **TINY).eval(), plain.PlainSaShiMi(length, 3, **TINY)
    for parameter in ours.parameters():
        if parameter.ndim < 2:
            parameter.add_(0.1 * torch.randn_like(parameter))
    nn.init.normal_(ours.output.weight)
    theirs.requires_grad_(False)
    _copy(ours, theirs, ENDS)
    for part in ("down", "center", "up"):
        for layer, other in zip(getattr(ours, part), getattr(theirs, part), strict=True):
            block = hasattr(layer, "ssm")
            _copy(layer, other, BLOCK if block else {"mix": "mix"})
            if block:
                other.s4.kernels = Given(layer.ssm.kernels(other.s4.kernels.length))
                other.s4.d = layer.ssm.d
    x, level = torch.randn(2, 3, length), 1000 * torch.rand(2)
    torch.testing.assert_close(theirs(x, level), ours(x, level), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_every_call_generates_every_kernel() -> None:
    net, calls = plain.PlainSaShiMi(16, 3, **TINY).eval(), []
    for module in net.modules():
        if isinstance(module, plain.NPLR):
            module.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        net(torch.randn(1, 3, 16), torch.rand(1))
    assert len(calls) == 2 * 5
