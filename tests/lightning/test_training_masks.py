"""Random patterns of observation."""

import pytest
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


def test_patterns_on_demand() -> None:
    """Of 2.56 s alone: one half, or all but one block of each lead at a place of its own."""
    generator = torch.Generator().manual_seed(0)
    half = draw_masks((50, 8, 1000), generator, ["half"])
    assert (half.sum((1, 2)) == 8 * 128).all() and (half == half[:, :1]).all()
    starts = half[:, 0].int().argmax(-1)
    assert starts.min() < 100 and starts.max() > 750 and starts.unique().numel() > 40
    short = draw_masks((50, 8, 256), generator, ["half"])[:, 0]  # one half of the window
    assert set(short.int().argmax(-1).tolist()) == {0, 128} and (short.sum(-1) == 128).all()
    blocks = draw_masks((50, 8, 1000), generator, ["blocks"])
    shown = blocks.any(1)
    ends = 1000 - shown.flip(-1).int().argmax(-1)
    assert (ends - shown.int().argmax(-1) <= 256).all()
    crops = [m[:, e - 256 : e] for m, e in zip(blocks, ends.tolist(), strict=True) if e > 256]
    within = ~torch.stack(crops)
    assert within.shape[0] > 40
    assert (within.int().diff(dim=-1).abs().sum(-1) <= 2).all()  # one stretch in each lead
    length = within.sum(-1)
    assert length.min() >= 12 and length.max() <= 170 and (length[:, 0] != length[:, 1]).any()
    both = draw_masks((400, 8, 1000), generator, ["half", "first"])
    assert 140 < int(both[:, 0].all(-1).sum()) < 260
    with pytest.raises(ValueError, match="There is no pattern 'quarter'; there are first"):
        draw_masks((1, 8, 100), generator, ["quarter"])
