"""Random patterns of observation."""

import torch

from ecgdiff.lightning.masks import draw_masks, validation_masks

SHAPE = (2000, 8, 100)


def test_every_pattern_is_drawn() -> None:
    mask = draw_masks(SHAPE, torch.Generator().manual_seed(0))
    assert mask.shape == SHAPE and mask.dtype == torch.bool
    assert bool((~mask).flatten(1).any(1).all())  # something is always lost
    some = mask.any(2)
    first_alone = some[:, 0] & (some.sum(1) == 1)
    assert 0.38 < float(first_alone.double().mean()) < 0.48  # 0.4, and some of the random sets
    nothing = ~mask.flatten(1).any(1)
    assert 0.03 < float(nothing.double().mean()) < 0.1
    alike = (mask == mask[:, :1]).flatten(1).all(1) & ~nothing  # blocks and windows of all leads
    assert 0.25 < float(alike.double().mean()) < 0.35
    ends_early = ~mask[:, :, -1].any(1) & ~nothing
    assert 0.2 < float(ends_early.double().mean()) < 0.5


def test_masks_follow_the_generator() -> None:
    first, again, other = (
        draw_masks((20, 8, 50), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_validation_masks() -> None:
    mask = validation_masks((4, 8, 1000), torch.Generator().manual_seed(0))
    assert mask[::2, 0].all() and not mask[::2, 1:].any()
    assert mask[1::2].any(1).sum(-1).tolist() == [128, 128]
    assert torch.equal(mask[1, 0], mask[1, 7])
