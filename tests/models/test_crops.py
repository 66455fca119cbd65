"""Windows of long signals: where they lie, and that every one is read as if alone."""

import pytest
import torch

from ecgdiff.models import crops
from ecgdiff.models.crops import random_crops, starts, window_logits


def test_a_record_has_seven_windows() -> None:
    assert starts(1000, 250) == [0, 125, 250, 375, 500, 625, 750]


def test_every_sample_is_read_and_no_window_leaves_the_signal() -> None:
    for length in range(250, 700):
        covered = set()
        for at in starts(length, 250):
            covered |= set(range(at, at + 250))
        assert covered == set(range(length))


def test_a_signal_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="249 samples"):
        starts(249, 250)


def test_windows_are_read_one_by_one() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2 * 8, 3))
    x = torch.randn(4, 2, 21)
    out = window_logits(net, x, 8)
    assert out.shape == (4, 5, 3)
    for k, at in enumerate([0, 4, 8, 12, 13]):
        torch.testing.assert_close(out[:, k], net(x[..., at : at + 8]))


def test_long_signals_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2 * 8, 3))
    x = torch.randn(2, 2, 100)
    whole = window_logits(net, x, 8)
    sizes: list[int] = []
    net.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    monkeypatch.setattr(crops, "AT_ONCE", 10)
    torch.testing.assert_close(window_logits(net, x, 8), whole)
    assert max(sizes) == 10 and sum(sizes) == 2 * whole.shape[1]


def test_random_crops_are_stretches_of_their_own_signal_from_everywhere() -> None:
    x = torch.arange(12.0).repeat(4000, 2, 1) + 100 * torch.arange(4000.0)[:, None, None]
    found = random_crops(x, 5, torch.Generator().manual_seed(0))
    assert found.shape == (4000, 2, 5)
    first = found[:, 0, 0] - 100 * torch.arange(4000.0)
    torch.testing.assert_close(found, (x[:, :1, :5] + first[:, None, None]).expand(-1, 2, -1))
    counts = torch.bincount(first.long(), minlength=8)
    assert len(counts) == 8 and counts.min() > 400
