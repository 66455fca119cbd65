"""The U-Net of the controls: shapes, size, what it looks at."""

import pytest
import torch

from ecgdiff.models.unet1d import UNet1d

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("time", [256, 257, 303, 1000])
@pytest.mark.parametrize("curves", [1, 5])
def test_any_length(time: int, curves: int) -> None:
    net = UNet1d(channels=3, curves=curves, widths=(4, 6, 8, 10)).eval()
    y = torch.randn(2, 3, time)
    assert net(y, y > 0).shape == (2, curves, 3, time)


@pytest.mark.parametrize(("curves", "count"), [(1, 1_952_264), (17, 1_956_488)])
def test_size(curves: int, count: int) -> None:
    """By hand: convolutions 9 n m, twice n for each normalization, the head (n + 1) m."""
    pairs = [(16, 32), (32, 64), (64, 128), (128, 256), (384, 128), (192, 64), (96, 32)]
    by_hand = sum(9 * (a * b + b * b) + 4 * b for a, b in pairs) + 33 * 8 * curves
    assert sum(p.numel() for p in UNet1d(8, curves).parameters()) == by_hand == count


def small(curves: int = 1) -> UNet1d:
    torch.manual_seed(0)
    net = UNet1d(channels=2, curves=curves, widths=(8, 8, 16, 16))
    for _ in range(3):  # running statistics that are not their initial ones
        net(torch.randn(4, 2, 256), torch.rand(4, 2, 256) < 0.5)
    return net.eval()


@torch.no_grad()
def test_what_is_not_observed_is_not_looked_at() -> None:
    net, y = small(), torch.randn(1, 2, 300)
    mask = torch.rand(1, 2, 300) < 0.5
    other = torch.where(mask, y, torch.randn_like(y))
    assert torch.equal(net(y, mask), net(other, mask))
    changed = torch.where(mask, torch.randn_like(y), y)
    assert not torch.allclose(net(y, mask), net(changed, mask))
    assert not torch.allclose(net(y * mask, mask), net(y * mask, torch.ones_like(mask)))


@torch.no_grad()
def test_the_end_of_a_record_looks_like_an_unobserved_stretch() -> None:
    net, y = small(), torch.randn(1, 2, 259)
    seen = torch.ones_like(y, dtype=torch.bool)
    # 259 samples are padded to 264 inside; the same stretch, unobserved, is given from outside.
    longer, shown = (torch.nn.functional.pad(x, (0, 5)) for x in (y, seen))
    torch.testing.assert_close(net(y, seen), net(longer, shown)[..., :259])


@torch.no_grad()
def test_a_record_does_not_depend_on_its_batch_and_amplitude_passes() -> None:
    net, y = small(), torch.randn(3, 2, 256)
    seen = torch.ones_like(y, dtype=torch.bool)
    torch.testing.assert_close(net(y, seen)[1:2], net(y[1:2], seen[1:2]))
    # Absolute amplitude passes: doubling the record moves the answer far more than rounding.
    assert float((net(2 * y, seen) - net(y, seen)).std()) > 0.1 * float(net(y, seen).std())


@torch.no_grad()
def test_curves_ascend_when_evaluated() -> None:
    net, y = small(curves=6), torch.randn(2, 2, 256)
    seen = torch.ones_like(y, dtype=torch.bool)
    out = net(y, seen)
    assert bool((out.diff(dim=1) >= 0).all())
    net.train()
    raw = net(y, seen)
    assert bool((raw.diff(dim=1) < 0).any())  # untrained curves cross: sorting is what helped


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="odd number"):
        UNet1d(kernel=8)
