"""Random patterns of observation."""

import pytest
import torch

from ecgdiff.lightning.masks import SHARES, draw_masks, validation_masks

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


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _stretch(time: int, generator: torch.Generator) -> torch.Tensor:
    length = _integer(max(time // 20, 1), 2 * time // 3, generator)
    start = _integer(0, time - length, generator)
    return (torch.arange(time) >= start) & (torch.arange(time) < start + length)


def _by_definition(
    name: str, leads: int, time: int, generator: torch.Generator
) -> torch.Tensor | bool:
    """One item, from new tensors, in the order in which its numbers are drawn."""
    if name == "first":
        return (torch.arange(leads) == 0)[:, None]
    if name in ("block", "window"):
        return _stretch(time, generator) ^ (name == "block")
    own = torch.ones(leads, time, dtype=torch.bool)
    if name == "mixed":
        own = torch.stack([~_stretch(time, generator) for _ in range(leads)])
    if name in ("mixed", "leads"):
        order = torch.randperm(leads, generator=generator)
        return own & (order < _integer(1, leads - 1, generator))[:, None]
    return False


@pytest.mark.parametrize("time", [1000, 64])
def test_a_seed_gives_what_its_numbers_say(time: int) -> None:
    """What a seed of a run that was begun long ago gives must never change."""
    found, by_hand = (torch.Generator().manual_seed(3) for _ in range(2))
    mask = draw_masks((64, 8, time), found)
    expected = torch.zeros(64, 8, time, dtype=torch.bool)
    shares = torch.tensor(list(SHARES.values()))
    kinds = torch.multinomial(shares, 64, replacement=True, generator=by_hand)
    for item, kind in zip(expected, kinds, strict=True):
        item |= _by_definition(list(SHARES)[int(kind)], 8, time, by_hand)
    for item in expected:
        if float(torch.rand((), generator=by_hand)) < 0.25:
            item[:, _integer(time // 4, time, by_hand) :] = False
    assert len(set(kinds.tolist())) == len(SHARES)
    assert torch.equal(mask, expected)
    assert torch.equal(found.get_state(), by_hand.get_state())


@pytest.mark.parametrize("shown", [0.2, 0.6, 1.0])
def test_the_share_of_what_is_shown(shown: float) -> None:
    """The others keep their proportions; a few windows lie beyond a recording's end."""
    mask = draw_masks(SHAPE, torch.Generator().manual_seed(0), shown=shown)
    some = mask.flatten(1).any(1)
    error = 4 * (shown * (1 - shown) / len(mask)) ** 0.5
    assert 0.97 * shown - error < float(some.double().mean()) <= shown + error
    first_alone = mask[some][:, 0].any(1) & (mask[some].any(2).sum(1) == 1)
    # 0.4 of 0.95, and one random set of leads in 56.
    assert float(first_alone.double().mean()) == pytest.approx(0.425, abs=0.09)


def test_shares_that_are_none_are_refused() -> None:
    for shown in (0.0, 1.2, float("nan")):
        with pytest.raises(ValueError, match="above 0 and up to 1"):
            draw_masks(SHAPE, torch.Generator(), shown=shown)
    with pytest.raises(ValueError, match="patterns or shown"):
        draw_masks(SHAPE, torch.Generator(), ["half"], shown=0.5)


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
