"""Gradients through frozen networks: those of finite differences and of the plain forms."""

import pytest
import torch
from torch import Tensor

from ecgdiff.models.convolution import fft_convolve, kernel_spectrum
from ecgdiff.models.frozen import channel_norm, frozen_convolve, frozen_norm
from ecgdiff.models.s4 import S4D
from ecgdiff.models.sashimi import ChannelNorm, SaShiMi

SPECTRUM = kernel_spectrum(torch.randn(5, 11, dtype=torch.float64))
GAIN, SHIFT = torch.tensor(1.5), torch.tensor(-0.5)


def gradient(form: object, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The value of a form and the gradient of its product with a weight."""
    x = x.clone().requires_grad_()
    y = form(x)  # type: ignore[operator]
    (found,) = torch.autograd.grad((y * weight).sum(), x)
    return y.detach(), found


def test_gradients_are_those_of_finite_differences() -> None:
    x = torch.randn(5, 2, 6, dtype=torch.float64, requires_grad=True)
    spectrum = kernel_spectrum(torch.randn(5, 11, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda u: frozen_convolve(u, spectrum), x)
    gain, shift = GAIN.double(), SHIFT.double()
    assert torch.autograd.gradcheck(lambda u: frozen_norm(u, gain, shift, 1e-5), x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_values_are_those_of_the_plain_forms_and_gradients_too(dtype: torch.dtype) -> None:
    x, weight = (torch.randn(6, 3, 8).to(dtype) for _ in range(2))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    spectrum = kernel_spectrum(torch.randn(6, 15, dtype=wide))
    pairs = [
        (lambda u: frozen_convolve(u, spectrum), lambda u: fft_convolve(u, spectrum)),
        (
            lambda u: frozen_norm(u, GAIN, SHIFT, 1e-5),
            lambda u: channel_norm(u, GAIN, SHIFT, 1e-5)[0],
        ),
    ]
    error = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    for frozen, plain in pairs:
        value, slope = gradient(frozen, x, weight)
        wanted, wanted_slope = gradient(plain, x, weight)
        assert value.dtype == slope.dtype == dtype
        torch.testing.assert_close(value, wanted, rtol=0, atol=0)
        largest = float(wanted_slope.double().abs().max())
        torch.testing.assert_close(slope, wanted_slope, rtol=0, atol=error * largest)


def test_a_frozen_network_has_the_gradient_of_the_same_network_in_training() -> None:
    net = SaShiMi(8, d_model=8, n_layers=1, pool=(2,), stem=2, state=4, t_width=8)
    torch.nn.init.normal_(net.output.weight)
    x, weight, level = torch.randn(3, 8, 32), torch.randn(3, 8, 32), torch.rand(3)
    _, learning = gradient(lambda u: net(u, level), x, weight)
    net.requires_grad_(False).eval()
    _, frozen = gradient(lambda u: net(u, level), x, weight)
    torch.testing.assert_close(frozen, learning, rtol=1e-4, atol=1e-5)


FORMS = {
    "convolve": (
        lambda u: frozen_convolve(u, SPECTRUM),
        lambda u: fft_convolve(u, SPECTRUM),
    ),
    "norm": (
        lambda u: frozen_norm(u, GAIN.double(), SHIFT.double(), 1e-5),
        lambda u: channel_norm(u, GAIN.double(), SHIFT.double(), 1e-5)[0],
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_second_derivatives_are_those_of_finite_differences(name: str) -> None:
    x = torch.randn(5, 2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(FORMS[name][0], x)


# torch.func, when it is first used, makes torch warn of itself.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", FORMS)
def test_function_transforms_see_the_plain_form(name: str) -> None:
    frozen, plain = FORMS[name]
    x, v = torch.randn(2, 5, 2, 6, dtype=torch.float64)
    for form in (torch.func.vjp, torch.func.jvp):
        slopes = [
            form(f, x)[1](v)[0] if form is torch.func.vjp else form(f, (x,), (v,))[1]
            for f in (frozen, plain)
        ]
        torch.testing.assert_close(*slopes)
    batch = torch.randn(3, 5, 2, 6, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(frozen)(batch), torch.func.vmap(plain)(batch))
    jacobians = [torch.func.jacrev(f)(x) for f in (frozen, plain)]
    torch.testing.assert_close(*jacobians)


def test_what_learns_gets_its_gradient_whatever_else_is_frozen() -> None:
    norm, ssm = ChannelNorm(), S4D(4, 4)
    norm.gain.requires_grad_(False)
    x = torch.randn(4, 2, 6, requires_grad=True)
    norm(x).square().sum().backward()
    assert norm.shift.grad is not None and float(norm.shift.grad.abs()) > 0
    ssm.a.requires_grad_(False)
    ssm(x).square().sum().backward()
    assert ssm.c.grad is not None and float(ssm.c.grad.abs().max()) > 0
