r"""A Gaussian model of the prior's covariance that is cheap to invert: channels x frequency.

.. math:: \Sigma = W^T\, \mathrm{blockdiag}_f(C_f)\, W

W is the orthonormal cosine transform (DCT-II) over time applied to each channel and :math:`C_f`
the covariance over channels of its f-th coefficient. For a Gaussian prior the covariance of
:math:`x_0` given :math:`x_t` is

.. math::
    \Sigma_t = (\Sigma^{-1} + I / \sigma^2)^{-1}
             = W^T\, \mathrm{blockdiag}_f(C_f (C_f + \sigma^2 I)^{-1} \sigma^2)\, W,

evaluated through the eigenvalues of :math:`C_f`, :math:`\lambda \sigma^2 / (\lambda + \sigma^2)`.
Given a masked observation of residual r (0/1 mask M, noise variance R), with
:math:`G = R + M \Sigma M` on the observed entries,

.. math::
    \mathrm{gain}(r) = \Sigma M G^{-1} r, \qquad
    \mathrm{condition}(r) = u + \mathrm{gain}(r - M u - e), \quad
    u \sim N(0, \Sigma),\ e \sim N(0, R),

are the mean and a draw of x. For masks and noise that are constant along time G is block-diagonal
over f and is solved directly. So it is, as a dense matrix, if few samples are observed. If few are
lost, with :math:`P = (R + \Sigma)^{-1}`, observed samples o and lost ones l,

.. math:: G^{-1} = P_{oo} - P_{ol} P_{ll}^{-1} P_{lo} .

Otherwise conjugate gradients are preconditioned with the nearest block-diagonal G.

References:
    | Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024),
    | arXiv:2405.13712
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ecgdiff.diffusion._cholesky import positive_solve
from ecgdiff.diffusion._dct import dct, idct
from ecgdiff.diffusion._entries import entries
from ecgdiff.diffusion._kinds import by_kind, constant
from ecgdiff.diffusion._solve import conjugate_gradient
from ecgdiff.random import Generator, normal

__all__ = ["LeadFrequencyCovariance"]

DENSE = 1200
"""The most samples, observed or lost, of a dense matrix; for more, iterations are faster."""

CHUNK = 256
"""Records whose spectra are held in float64 at once while fitting."""


class _Records(Protocol):
    """Records (records, channels, time) that can be sliced: a tensor, array or memory map."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: slice, /) -> Any: ...


class LeadFrequencyCovariance:
    """Creates a covariance from one matrix over channels per frequency.

    Arguments:
        spectrum: The matrices C_f of the cosine coefficients, symmetric and positive
            semi-definite, in squared model units, with shape (freq, channels, channels); freq
            equals the number of time samples.

    Raises:
        ValueError: If the matrices have another shape or are not such covariances.
    """

    def __init__(self, spectrum: Tensor) -> None:
        c = torch.as_tensor(spectrum).detach().to("cpu", torch.float64)
        if c.ndim != 3 or c.shape[1] != c.shape[2]:
            raise ValueError(
                f"The spectrum has shape {tuple(c.shape)}; give (freq, channels, channels)."
            )
        largest = float(c.abs().amax())
        if not float((c - c.mT).abs().amax()) <= 1e-5 * largest:
            raise ValueError("The spectrum is not finite and symmetric in its two channel axes.")
        values, vectors = torch.linalg.eigh((c + c.mT) / 2)
        if float(values.amin()) < -1e-5 * largest:
            raise ValueError(
                f"The spectrum has a negative eigenvalue, {float(values.amin()):.3g}; "
                "covariances have none."
            )
        self._set(values.clamp(min=0), vectors)

    def _set(self, values: Tensor, vectors: Tensor) -> None:
        self._values, self._vectors = values, vectors
        self._casts: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    @classmethod
    def _from_eigen(cls, values: Tensor, vectors: Tensor) -> "LeadFrequencyCovariance":
        new = cls.__new__(cls)
        new._set(values, vectors)
        return new

    @classmethod
    def fit(cls, x: _Records, shrink: float = 1e-4, smooth: int = 0) -> "LeadFrequencyCovariance":
        r"""Estimates the covariance from records; their mean is removed.

        Arguments:
            x: The records in model units, with shape (records, channels, time); read in chunks,
                so it may be a memory map.
            shrink: The isotropic part added: each C_f gains shrink * trace(C_f) / channels times
                the identity.
            smooth: The neighbors on each side of a frequency whose matrices are averaged with its
                own.

        Raises:
            ValueError: If there are fewer than two records or values that are not finite.
        """
        if len(x.shape) != 3 or x.shape[0] < 2:
            raise ValueError(
                f"The records have shape {tuple(x.shape)}; "
                "give (records, channels, time) with at least two records."
            )
        count, channels, n = x.shape
        first = torch.zeros(n, channels, dtype=torch.float64)
        second = torch.zeros(n, channels, channels, dtype=torch.float64)
        for start in range(0, count, CHUNK):
            z = dct(torch.as_tensor(x[start : start + CHUNK]).to("cpu", torch.float64)).permute(
                2, 1, 0
            )
            first += z.sum(-1)
            second += z @ z.mT
        if not bool(torch.isfinite(second).all()):
            raise ValueError("The records hold NaN or infinite values; leave such records out.")
        mean = first / count
        spectrum = (second - count * mean[:, :, None] * mean[:, None, :]) / (count - 1)
        spectrum = _smoothed(spectrum, smooth)
        trace = spectrum.diagonal(dim1=1, dim2=2).sum(-1)
        isotropic = (shrink * trace / channels)[:, None, None] * torch.eye(channels).double()
        return cls(spectrum + isotropic)

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self._values.shape[1]

    @property
    def n_samples(self) -> int:
        """The number of time samples, which is the number of frequencies."""
        return self._values.shape[0]

    @property
    def eigenvalues(self) -> Tensor:
        """The variances along the principal axes, float64, shape (freq, channels), ascending."""
        return self._values

    @cached_property
    def spectrum(self) -> Tensor:
        """The matrices C_f, float64, with shape (freq, channels, channels)."""
        with torch.inference_mode(False):
            return (self._vectors * self._values[:, None, :]) @ self._vectors.mT

    def for_length(self, n: int) -> "LeadFrequencyCovariance":
        """The same process on `n` time samples: its spectrum at the same relative frequencies.

        The matrices are interpolated linearly, which keeps them covariances.
        """
        if n == self.n_samples:
            return self
        position = torch.arange(n, dtype=torch.float64) * (self.n_samples / n)
        position = position.clamp(max=self.n_samples - 1)
        low = position.long().clamp(max=max(self.n_samples - 2, 0))
        high = (low + 1).clamp(max=self.n_samples - 1)
        share = (position - low)[:, None, None]
        return LeadFrequencyCovariance(
            (1 - share) * self.spectrum[low] + share * self.spectrum[high]
        )

    def rotate(self, rotation: Tensor) -> "LeadFrequencyCovariance":
        """The covariance of Q x, for a matrix Q over channels, with shape (channels, channels)."""
        q = rotation.detach().to("cpu", torch.float64)
        return LeadFrequencyCovariance(q @ self.spectrum @ q.mT)

    def tweedie(self, sigma: float) -> "LeadFrequencyCovariance":
        """The covariance of x_0 given x_0 + sigma z, for a noise level sigma >= 0, model units."""
        variance = float(sigma) ** 2
        total = self._values + variance
        values = torch.where(total > 0, self._values * variance / total, 0.0)
        return self._from_eigen(values, self._vectors)

    def _blocks(self, x: Tensor) -> Tensor:
        """The spectrum like x, with shape (channels, channels, freq)."""
        key = (x.dtype, x.device)
        if key not in self._casts:
            with torch.inference_mode(False):  # kept, so it must serve later gradients too
                self._casts[key] = _frequency_last(self.spectrum, x)
        return self._casts[key]

    def matvec(self, x: Tensor) -> Tensor:
        """The product with signals (batch, channels, time), with the same shape."""
        return idct(_per_frequency(self._blocks(x), dct(x)))

    def to_basis(self, x: Tensor) -> Tensor:
        """Coordinates along the principal axes, in the order of `eigenvalues.flatten()`.

        Arguments:
            x: Signals, with shape (batch, channels, time).

        Returns:
            The coordinates, with shape (batch, channels * time).
        """
        return torch.einsum("fij,bif->bfj", self._vectors.to(x), dct(x)).flatten(1)

    def from_basis(self, z: Tensor) -> Tensor:
        """The signals (batch, channels, time) of such coordinates; inverse of :meth:`to_basis`."""
        z = z.unflatten(1, (self.n_samples, self.channels))
        return idct(torch.einsum("fij,bfj->bif", self._vectors.to(z), z))

    def sample(
        self,
        shape: Sequence[int],
        generator: Generator = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draws from N(0, Sigma).

        Arguments:
            shape: (batch, channels, time).
            generator: The source of randomness.
            dtype: The dtype of the draws.
            device: Where the draws go.
        """
        z = normal(shape, generator, dtype, device)
        root = self._vectors * self._values.sqrt()[:, None, :]
        return idct(_per_frequency(_frequency_last(root, z), z))

    def dense(self) -> Tensor:
        """The matrix itself, float64, shape (channels * time, channels * time); if it is small."""
        size = self.channels * self.n_samples
        basis = torch.eye(size, dtype=torch.float64).unflatten(1, (self.channels, self.n_samples))
        return self.matvec(basis).flatten(1)

    def solve(
        self, v: Tensor, mask: Tensor, variance: Tensor, *, rtol: float = 1e-6, max_iter: int = 200
    ) -> Tensor:
        r"""The solution of (R + M Sigma M) v' = v on the observed entries, zero elsewhere.

        Arguments:
            v: The right-hand sides, with shape (batch, channels, time).
            mask: True where observed, bool, with shape (batch or 1, channels, time).
            variance: The noise variances R, positive, broadcastable to `v`.
            rtol: The relative residual at which an item's iteration stops; unused when the direct
                solution applies.
            max_iter: The most iterations, where it iterates. Scattered single samples with little
                noise can need more; the last iterate is then returned.
        """
        return by_kind(partial(self._solve_one, rtol=rtol, max_iter=max_iter), v, mask, variance)

    def _solve_one(
        self, v: Tensor, mask: Tensor, variance: Tensor, *, rtol: float, max_iter: int = 200
    ) -> Tensor:
        """The solution for items of one mask and noise, both with a batch axis of one."""
        by_channel = constant(mask) and constant(variance)
        if not by_channel and int(mask.sum()) <= DENSE:
            return self._solve_observed(v, mask[0], variance)
        inverse = self._channel_inverse(mask, variance)
        blocks = _frequency_last(inverse, v)

        def product(u: Tensor) -> Tensor:
            return idct(_per_frequency(blocks, dct(u)))

        if by_channel:
            return product(v) * mask
        lost = mask[0].any(-1, keepdim=True) & ~mask[0]
        if constant(variance) and int(lost.sum()) <= DENSE:
            return self._solve_around(v, lost, inverse, product) * mask
        return conjugate_gradient(
            lambda u: self.matvec(u) * mask + variance * u,
            v,
            precondition=lambda u: product(u) * mask,
            rtol=rtol,
            max_iter=max_iter,
        ).x

    def _solve_observed(self, v: Tensor, observed: Tensor, variance: Tensor) -> Tensor:
        """The solution by a dense matrix of the observed samples."""
        g = entries(self._blocks(v), observed).double()
        g.diagonal().add_(variance.expand(1, *observed.shape)[0][observed].double())
        out = torch.zeros_like(v)
        out[:, observed] = positive_solve(g, v[:, observed]).to(v)
        return out

    def _solve_around(
        self, v: Tensor, lost: Tensor, inverse: Tensor, product: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The solution by a dense matrix of the lost samples of channels seen in part.

        `inverse` is P per frequency, float64, with shape (freq, channels, channels), and `product`
        the product with it.
        """
        u = product(v)
        wrong = torch.zeros_like(v)
        # P has entries of 1 / R: in single precision its small eigenvalues would be lost.
        dense = entries(inverse.permute(1, 2, 0).to(v.device), lost)
        wrong[:, lost] = positive_solve(dense, u[:, lost]).to(v)
        return u - product(wrong)

    def _channel_inverse(self, mask: Tensor, variance: Tensor) -> Tensor:
        """The inverse of G per frequency, float64, as if channels seen in part were seen whole.

        Its rows and columns of channels that were not seen are zero.
        """
        seen = mask[0].any(-1).nonzero().to("cpu")
        noise = variance[0].to("cpu", torch.float64).mean(-1).expand(self.channels)
        block = (slice(None), seen, seen.mT)
        inverse = torch.zeros_like(self.spectrum)
        inverse[block] = torch.linalg.inv(self.spectrum[block] + torch.diag(noise[seen[:, 0]]))
        return inverse

    def gain(
        self, residual: Tensor, mask: Tensor, variance: Tensor, *, rtol: float = 1e-6
    ) -> Tensor:
        r"""The mean correction :math:`\Sigma M (R + M \Sigma M)^{-1} r`.

        Arguments as in :meth:`solve`, for residuals (batch, channels, time).
        """
        return by_kind(partial(self._gain_one, rtol=rtol), residual, mask, variance)

    def _gain_one(self, v: Tensor, mask: Tensor, variance: Tensor, *, rtol: float) -> Tensor:
        """The correction for items of one mask and noise, both with a batch axis of one."""
        if constant(mask) and constant(variance):
            # Both products are per frequency: one transform and back serves the two.
            blocks = self.spectrum @ self._channel_inverse(mask, variance)
            return idct(_per_frequency(_frequency_last(blocks, v), dct(v)))
        return self.matvec(self._solve_one(v, mask, variance, rtol=rtol))

    def condition(
        self,
        residual: Tensor,
        mask: Tensor,
        variance: Tensor,
        generator: Generator = None,
        *,
        rtol: float = 1e-6,
    ) -> Tensor:
        r"""A draw of :math:`N(\mathrm{gain}(r), \Sigma - \Sigma M G^{-1} M \Sigma)` per residual.

        Arguments:
            residual: The residuals r = y - A x, zero where nothing was observed, with shape
                (batch, channels, time).
            mask: True where observed, bool, with shape (batch or 1, channels, time).
            variance: The noise variances R, positive, broadcastable to `residual`.
            generator: The source of randomness.
            rtol: See :meth:`solve`.
        """
        u = self.sample(residual.shape, generator, residual.dtype, residual.device)
        noise = normal(residual.shape, generator, residual.dtype, residual.device)
        noise = torch.as_tensor(variance).to(residual).sqrt() * noise
        return u + self.gain((residual - u - noise) * mask, mask, variance, rtol=rtol)


def _frequency_last(blocks: Tensor, like: Tensor) -> Tensor:
    """Blocks (freq, i, j) in the order (i, j, freq), with the dtype and device of `like`."""
    return blocks.permute(1, 2, 0).contiguous().to(like)


def _per_frequency(blocks: Tensor, z: Tensor) -> Tensor:
    """Products of blocks (i, j, freq) with coefficients (batch, j, freq)."""
    # Twenty times as fast as a batch of small matrix products, which reorder all they touch.
    out = blocks[:, 0] * z[:, 0, None]
    for j in range(1, z.shape[1]):
        out = out.addcmul(blocks[:, j], z[:, j, None])
    return out


def _smoothed(spectrum: Tensor, width: int) -> Tensor:
    """Means over each frequency and up to `width` neighbors on both sides."""
    if width == 0:
        return spectrum
    padded = torch.cat([torch.zeros_like(spectrum[:1]), spectrum]).cumsum(0)
    index = torch.arange(len(spectrum))
    low, high = (index - width).clamp(min=0), (index + width + 1).clamp(max=len(spectrum))
    return (padded[high] - padded[low]) / (high - low)[:, None, None]
