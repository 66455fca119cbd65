r"""Entries of a covariance that is block-diagonal over frequency, as a dense matrix.

.. math:: \Sigma_{(a, t), (b, s)} = \sum_f W_{f t}\, C_f[a, b]\, W_{f s}
"""

from functools import lru_cache

import torch
from torch import Tensor

from ecgdiff.diffusion._dct import dct

__all__ = ["entries"]


@lru_cache(maxsize=4)
def _basis(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal cosine basis W, with shape (freq, time)."""
    with torch.inference_mode(False):
        return dct(torch.eye(n, dtype=torch.float64)).mT.contiguous().to(device, dtype)


def entries(blocks: Tensor, kept: Tensor) -> Tensor:
    """The rows and columns of W^T blockdiag(C_f) W at the kept samples.

    Arguments:
        blocks: The matrices C_f, symmetric, with shape (freq, channels, channels).
        kept: Which samples, bool, with shape (channels, time).

    Returns:
        A matrix (m, m), in the order of `x[kept]` for x of shape (channels, time).
    """
    w = _basis(kept.shape[1], blocks.dtype, blocks.device)
    parts = [w[:, row] for row in kept]
    ends = kept.sum(1).cumsum(0).tolist()
    spans = [slice(end - part.shape[1], end) for end, part in zip(ends, parts, strict=True)]
    out = blocks.new_empty(ends[-1], ends[-1])
    for a, left in enumerate(parts):
        for b in range(a + 1):
            block = (left * blocks[:, a, b, None]).mT @ parts[b]
            out[spans[a], spans[b]], out[spans[b], spans[a]] = block, block.mT
    return out
