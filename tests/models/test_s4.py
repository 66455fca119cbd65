"""S4D against the recurrence it stands for, and every fast path against the slow one."""

import math

import pytest
import torch
from torch import Tensor

from ecgdiff.models import s4
from ecgdiff.models.convolution import (
    _padded_toeplitz,
    bidirectional,
    fft_convolve,
    kernel_spectrum,
    long_convolve,
    toeplitz_convolve,
)
from ecgdiff.models.s4 import S4D


def _layer(channels: int = 3, state: int = 8) -> S4D:
    return S4D(channels, state).double()


def _naive_kernels(layer: S4D, length: int) -> Tensor:
    """The kernel's definition with complex exponentials at every lag."""
    dt = layer.log_dt.exp()[:, None]
    a = torch.complex(-layer.a.exp(), layer.b)
    c = torch.complex(layer.c[..., 0], layer.c[..., 1])
    lags = torch.arange(length, dtype=torch.float64)
    power = torch.exp((dt * a)[..., None] * lags)
    return 2 * ((c * ((dt * a).exp() - 1) / a)[..., None] * power).sum(-2).real


@pytest.mark.parametrize("length", [1, 2, 7, 64, 125, 250])
def test_two_level_kernel_is_the_naive_one(length: int) -> None:
    layer = _layer()
    torch.testing.assert_close(layer.kernels(length), _naive_kernels(layer, length))


def test_kernel_is_the_recurrence() -> None:
    """x_k = e^{dt A} x_{k-1} + (e^{dt A} - 1)/A u_k, y_k = 2 Re C x_k: zero-order hold,
    stepped."""
    layer, length = _layer(), 64
    u = torch.randn(3, length, dtype=torch.float64)
    dt = layer.log_dt.exp()[:, None]
    a = torch.complex(-layer.a.exp(), layer.b)
    c = torch.complex(layer.c[0, ..., 0], layer.c[0, ..., 1])
    x = torch.zeros_like(a)
    steps = []
    for k in range(length):
        x = (dt * a).exp() * x + ((dt * a).exp() - 1) / a * u[:, k : k + 1]
        steps.append(2 * (c * x).sum(-1).real)
    kernel = layer.kernels(length)[0]
    causal = torch.stack(
        [(kernel[:, : k + 1].flip(-1) * u[:, : k + 1]).sum(-1) for k in range(length)]
    )
    torch.testing.assert_close(torch.stack(steps), causal)


def _direct(u: Tensor, kernels: Tensor) -> Tensor:
    """Lag 0 and positive lags use the forward kernel, lag -1-j the backward kernel's entry j."""
    y = torch.zeros_like(u)
    for i in range(u.shape[-1]):
        for j in range(u.shape[-1]):
            k = kernels[0][:, i - j] if i >= j else kernels[1][:, j - i - 1]
            y[..., i] += k[:, None] * u[..., j]
    return y


@pytest.mark.parametrize("length", [1, 2, 9, 16])
def test_convolutions_agree_with_the_direct_sum(length: int) -> None:
    kernels = torch.randn(2, 3, length, dtype=torch.float64)
    u = torch.randn(3, 4, length, dtype=torch.float64)
    joined = bidirectional(kernels)
    expected = _direct(u, kernels)
    torch.testing.assert_close(fft_convolve(u, kernel_spectrum(joined)), expected)
    torch.testing.assert_close(toeplitz_convolve(u, joined), expected)


@pytest.mark.parametrize("length", [1, 9, 125, 250])
def test_aligned_matrices_give_the_same_with_the_same_gradients(length: int) -> None:
    u = torch.randn(3, 2, length, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(3, 2 * length - 1, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, length, dtype=torch.float64)
    results = []
    for multiple in (1, 8):
        y = _padded_toeplitz(u, kernel, multiple)
        results.append((y, *torch.autograd.grad((weight * y).sum(), (u, kernel))))
    for plain, aligned in zip(*results, strict=True):
        torch.testing.assert_close(aligned, plain)


@pytest.mark.parametrize("multiple", [1, 8])
def test_toeplitz_in_bfloat16_is_the_plain_form_to_its_precision(multiple: int) -> None:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(3, 16, 125, generator=generator).bfloat16().requires_grad_()
    kernel = torch.randn(3, 249, generator=generator).requires_grad_()
    weight = torch.randn(3, 16, 125, generator=generator)
    results = []
    for form in (
        lambda a, b: _padded_toeplitz(a, b, multiple),
        lambda a, b: fft_convolve(a.double(), kernel_spectrum(b.double())),
    ):
        y = form(u, kernel)
        results.append((y, *torch.autograd.grad((weight * y.float()).sum(), (u, kernel))))
    for ours, plain in zip(*results, strict=True):
        # Eight bits per number, in sums of up to some thousand terms of alternating signs.
        off = (ours.double() - plain.double()).square().mean().sqrt()
        assert off < 0.006 * plain.double().square().mean().sqrt()
    assert [t.dtype for t in results[0]] == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_toeplitz_gradients() -> None:
    u = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(toeplitz_convolve, (u, kernel))


def test_cached_inference_is_the_training_path_and_follows_the_weights() -> None:
    layer = _layer()
    u = torch.randn(3, 2, 50, dtype=torch.float64)
    expected = layer(u)  # gradients on: kernels made anew, Toeplitz
    layer.eval()
    with torch.no_grad():
        torch.testing.assert_close(layer(u), expected)
        assert layer._spectra
        layer.train()
        assert not layer._spectra
        layer.c.mul_(2)
        layer.eval()
        torch.testing.assert_close(
            layer(u) - layer.d[:, None, None] * u, 2 * (expected - layer.d[:, None, None] * u)
        )


def test_long_sequences_take_the_fft(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = _layer()
    u = torch.randn(3, 2, 40, dtype=torch.float64)
    expected = layer(u)
    monkeypatch.setattr(s4, "TOEPLITZ_LENGTH", 8)
    torch.testing.assert_close(layer(u), expected)


def test_kernels_decay_whatever_the_parameters() -> None:
    layer = _layer(channels=64)
    with torch.no_grad():
        layer.a.normal_(std=3)
        layer.b.normal_(std=100)
        layer.log_dt.fill_(math.log(0.1))
    dt, rate = 0.1, layer.a.exp()
    kernel = layer.kernels(4000).abs()
    # Every mode starts at the size of its coefficient and shrinks at its rate; phases only cancel.
    a = torch.complex(-rate, layer.b)
    size = 2 * (torch.view_as_complex(layer.c) * ((dt * a).exp() - 1) / a).abs()
    lags = torch.arange(4000, dtype=torch.float64)
    envelope = (size[..., None] * torch.exp(-dt * rate[..., None] * lags)).sum(-2)
    assert (kernel <= envelope + 1e-9 * size.sum(-1, keepdim=True)).all()
    # Where the slowest mode is down to a millionth, the kernel is below 1e-4 of its largest value.
    quick = torch.exp(-3000 * dt * rate.amin(-1)) < 1e-6
    assert quick.sum() > 10
    assert (kernel[:, quick, 3000:].amax(-1) < 1e-4 * kernel[:, quick].amax(-1)).all()


@pytest.mark.parametrize("dt", [1e-3, 1e-1])
def test_gradients_are_finite_at_the_extreme_steps(dt: float) -> None:
    layer = S4D(4)
    with torch.no_grad():
        layer.log_dt.fill_(math.log(dt))
    layer(torch.randn(4, 2, 250)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_state_space_parameters_are_tagged() -> None:
    tagged = {n for n, p in S4D(4).named_parameters() if getattr(p, "state_space", False)}
    assert tagged == {"log_dt", "a", "b"}


def _convolution_problem(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    u = torch.randn(3, 2, 21, dtype=dtype, requires_grad=True)
    kernel = torch.randn(3, 41, dtype=dtype, requires_grad=True)
    return u, kernel


def test_opaque_convolution_has_the_gradients_of_finite_differences() -> None:
    assert torch.autograd.gradcheck(long_convolve, _convolution_problem(torch.float64))


def test_opaque_convolution_keeps_the_contract_of_an_operation() -> None:
    """Shapes told to compilers, no aliases, gradients registered: what torch checks."""
    from ecgdiff.models.convolution import _long_convolve

    torch.library.opcheck(_long_convolve, _convolution_problem(torch.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opaque_convolution_is_the_plain_one_in_value_and_gradients(dtype: torch.dtype) -> None:
    u, kernel = _convolution_problem(torch.float32)
    u = u.detach().to(dtype).requires_grad_()
    results = []
    for form in (long_convolve, lambda a, b: fft_convolve(a, kernel_spectrum(b))):
        y = form(u, kernel)
        results.append((y, *torch.autograd.grad(y.float().square().sum(), (u, kernel))))
    for ours, plain in zip(*results, strict=True):
        assert ours.dtype == plain.dtype
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
