"""Entries of lead-frequency covariances against the cosine transform as a matrix."""

import pytest
import torch

from ecgdiff.diffusion._dct import dct
from ecgdiff.diffusion._entries import entries


@pytest.mark.parametrize("n", [1, 2, 7, 12])
@pytest.mark.parametrize("pattern", ["gaps", "blocks", "all", "none"])
def test_entries_are_those_of_the_dense_matrix(n: int, pattern: str) -> None:
    g = torch.Generator().manual_seed(n)
    root = torch.randn(3, 3, n, generator=g, dtype=torch.float64)
    blocks = torch.einsum("ikf,jkf->ijf", root, root)
    kept = torch.full((3, n), pattern == "all")
    if pattern == "gaps":
        kept = torch.rand(3, n, generator=g) < 0.5
    elif pattern == "blocks":
        kept[0, n // 3 :] = kept[2, : n // 2] = True
    w = dct(torch.eye(n, dtype=torch.float64)).mT
    dense = torch.einsum("ft,abf,fs->atbs", w, blocks, w).reshape(3 * n, 3 * n)
    seen = kept.flatten()
    torch.testing.assert_close(entries(blocks, kept), dense[seen][:, seen])
