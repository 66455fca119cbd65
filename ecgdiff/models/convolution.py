r"""Long convolutions with one kernel per channel: by FFT or by Toeplitz matrices.

Signals have the layout (channels, batch, time). A bidirectional kernel of lags -(L-1)..L-1 becomes
one circular kernel of length 2L, so one FFT forward and one back serve both directions.

**For compilers.** In training the FFT convolution is one opaque operation with a backward of its
own: compilers of tensor code generate nothing for complex numbers, and some stumble over them. It
keeps the real signal and the kernel for the backward pass and computes their spectra again, which
moves fewer bytes than keeping complex spectra of twice the length. With upper-case letters for
spectra, g the gradient of the output and * the complex conjugate,

.. math:: Y = U K, \qquad \bar U = G K^*, \qquad \bar K = \sum_{batch} G U^* .

**Short signals.** The Toeplitz form multiplies by the matrix of the kernel instead, in bfloat16
under autocast: more operations and less memory traffic than single-precision spectra. Zeros make
rows a multiple of 16 bytes, without which matrix products are slow on GPUs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "bidirectional",
    "fft_convolve",
    "kernel_spectrum",
    "long_convolve",
    "toeplitz_convolve",
]

# Numbers in 16 bytes of bfloat16; twice that in float32 is as good.
ALIGNED = 8


def bidirectional(kernels: Tensor) -> Tensor:
    """Joins kernels (2, channels, L) to one of lags -(L-1)..L-1, with shape (channels, 2L - 1).

    The backward kernel's entry j acts on lag -1-j; its last entry has no lag to act on.
    """
    forward, backward = kernels
    return torch.cat([backward[..., :-1].flip(-1), forward], dim=-1)


def kernel_spectrum(kernel: Tensor) -> Tensor:
    """Computes the spectrum of the circular kernel of length 2L from (channels, 2L - 1) lags."""
    length = (kernel.shape[-1] + 1) // 2
    circular = torch.cat(
        [
            kernel[..., length - 1 :],
            kernel.new_zeros(kernel.shape[0], 1),
            kernel[..., : length - 1],
        ],
        dim=-1,
    )
    return torch.fft.rfft(circular)


def fft_convolve(u: Tensor, spectrum: Tensor) -> Tensor:
    """Convolves u (channels, batch, L) with a spectrum (channels, L + 1), at least in float32."""
    length = u.shape[-1]
    with torch.autocast(u.device.type, enabled=False):
        product = torch.fft.rfft(_wide(u), n=2 * length) * spectrum[:, None, :]
        return torch.fft.irfft(product, n=2 * length)[..., :length].to(u.dtype)


def long_convolve(u: Tensor, kernel: Tensor) -> Tensor:
    """Convolves u (channels, batch, L) with lags (channels, 2L - 1), at least in float32.

    One opaque operation with gradients for both, for training; :func:`fft_convolve` is the plain
    form of it.
    """
    product: Tensor = _long_convolve(u, kernel)
    return product


@torch.library.custom_op("ecgdiff::long_convolve", mutates_args=())
def _long_convolve(u: Tensor, kernel: Tensor) -> Tensor:
    return fft_convolve(u, kernel_spectrum(kernel)).contiguous()


@_long_convolve.register_fake
def _(u: Tensor, kernel: Tensor) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


@torch.library.custom_op("ecgdiff::long_convolve_backward", mutates_args=())
def _long_convolve_backward(grad: Tensor, u: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    length = u.shape[-1]
    grad_spectrum = torch.fft.rfft(_wide(grad), n=2 * length)
    product = grad_spectrum * kernel_spectrum(kernel).conj()[:, None, :]
    grad_u = torch.fft.irfft(product, n=2 * length)[..., :length].to(u.dtype)
    correlation = grad_spectrum * torch.fft.rfft(_wide(u), n=2 * length).conj()
    circular = torch.fft.irfft(correlation.sum(1), n=2 * length)
    # Lag 0, 1, ..., L-1, the place that no lag has, then -(L-1), ..., -1.
    lags = torch.cat([circular[:, length + 1 :], circular[:, :length]], dim=-1)
    return grad_u.contiguous(), lags.to(kernel.dtype)


@_long_convolve_backward.register_fake
def _(grad: Tensor, u: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(u, memory_format=torch.contiguous_format),
        torch.empty_like(kernel, memory_format=torch.contiguous_format),
    )


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = _long_convolve_backward(grad, *ctx.saved_tensors)
    return found


_long_convolve.register_autograd(_gradients, setup_context=_save)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def toeplitz_convolve(u: Tensor, kernel: Tensor) -> Tensor:
    """Convolves u (channels, batch, L) with lags (channels, 2L - 1) by a matrix product each."""
    # On processors the copies cost more than they gain.
    return _padded_toeplitz(u, kernel, ALIGNED if u.is_cuda else 1)


def _padded_toeplitz(u: Tensor, kernel: Tensor, multiple: int) -> Tensor:
    """The same by matrices whose size is a multiple of a number."""
    length = u.shape[-1]
    # Zeros after the signal and beyond the longest lags change no sample that is kept.
    if more := -length % multiple:
        u, kernel = F.pad(u, (0, more)), F.pad(kernel, (more, more))
    product: Tensor = _Toeplitz.apply(u, kernel)
    return product[..., :length]


def _toeplitz(kernel: Tensor, length: int) -> Tensor:
    """T[h, j, i] = kernel[h, i - j + L - 1]: the matrix that acts on rows from the right."""
    return kernel.unfold(-1, length, 1).flip(-2)


class _Toeplitz(torch.autograd.Function):
    """The product u T; its backward sums the diagonals of dT instead of scattering them."""

    @staticmethod
    def forward(ctx, u: Tensor, kernel: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(u, kernel)
        return torch.bmm(u, _toeplitz(kernel.to(u.dtype), u.shape[-1]))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        u, kernel = ctx.saved_tensors
        matrix = _toeplitz(kernel.to(u.dtype), u.shape[-1])
        grad_u = torch.bmm(grad, matrix.transpose(1, 2))
        return grad_u, _diagonal_sums(torch.bmm(u.transpose(1, 2), grad)).to(kernel.dtype)


def _diagonal_sums(matrix: Tensor) -> Tensor:
    """Sums matrix[h, j, j + m] over j, for m = -(L-1)..L-1, with shape (channels, 2L - 1)."""
    channels, length, _ = matrix.shape
    width = 2 * length - 1
    # Written with a row stride one shorter than it is read with, row j moves j places to the left.
    buffer = matrix.new_zeros(channels, length * (width + 1))
    strides = (buffer.shape[1], width - 1, 1)
    buffer.as_strided(matrix.shape, strides, length - 1).copy_(matrix)
    rows = buffer[:, : length * width].view(channels, length, width)
    return rows.sum(1, dtype=torch.promote_types(matrix.dtype, torch.float32))
