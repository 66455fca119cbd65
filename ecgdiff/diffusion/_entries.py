r"""Entries of a covariance that is block-diagonal over frequency, as a dense matrix.

.. math:: \Sigma_{(a, t), (b, s)} = \sum_f W_{f t}\, C_f[a, b]\, W_{f s}
    = h_{ab}(t - s) + h_{ab}(t + s + 1), \quad
    h_{ab}(m) = \sum_f \tfrac{c_f^2}{2}\, C_f[a, b] \cos \frac{\pi f m}{n}

for the cosine transform W of :mod:`ecgdiff.diffusion._dct`, since a product of cosines is half the
sum of those of the difference and the sum. One real FFT gives all of h.
"""

import torch
from torch import Tensor

__all__ = ["entries"]


def entries(blocks: Tensor, kept: Tensor) -> Tensor:
    """The rows and columns of W^T blockdiag(C_f) W at the kept samples.

    Arguments:
        blocks: The matrices C_f, symmetric, with shape (channels, channels, freq).
        kept: Which samples, bool, with shape (channels, time).

    Returns:
        A matrix (m, m), in the order of `x[kept]` for x of shape (channels, time).
    """
    n, size = kept.shape[1], int(kept.sum())
    # c_f^2 / 2 is 1 / n, and 1 / 2n at f = 0: the weights of an inverse FFT of length 2n.
    h: Tensor = torch.fft.irfft(blocks, 2 * n)
    # As matrices, without copies: h(t - s) in row n - 1 - t, h(t + s + 1) in row t.
    difference = torch.cat([h[..., 1:n].flip(-1), h[..., :n]], -1).unfold(-1, n, 1)
    total = h[..., 1:].unfold(-1, n, 1)
    times = {a: kept[a].nonzero()[:, 0] for a in kept.any(1).nonzero()[:, 0].tolist()}
    sizes = [len(t) for t in times.values()]
    out = h.new_empty(size, size)
    for (a, t), strip in zip(times.items(), out.split(sizes), strict=True):
        for (b, s), part in zip(times.items(), strip.split(sizes, 1), strict=True):
            torch.add(_pick(difference[a, b], n - 1 - t, s), _pick(total[a, b], t, s), out=part)
    return out


def _pick(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The entries of a matrix in some rows and ascending columns; fast for columns in sequence."""
    low, high = int(columns[0]), int(columns[-1]) + 1
    part = table[:, low:high][rows]
    return part if len(columns) == high - low else part[:, columns - low]
