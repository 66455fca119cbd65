"""XResNet1d50 against the published parameter counts and shapes."""

import pytest
import torch

from ecgdiff.models.xresnet1d import XResNet1d


def count(net: XResNet1d) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("channels", "classes", "layers", "parameters"),
    [
        (12, 71, (3, 4, 6, 3), 962_503),
        (12, 4, (3, 4, 6, 3), 953_860),
        (11, 71, (3, 4, 6, 3), 962_503 - 160),
        (12, 71, (3, 4, 23, 3), 1_880_775),
    ],
)
def test_parameters_are_those_published(
    channels: int, classes: int, layers: tuple[int, ...], parameters: int
) -> None:
    assert count(XResNet1d(channels, classes, layers)) == parameters


def test_shapes_are_those_of_the_architecture() -> None:
    net = XResNet1d(12, 71).eval()
    h = net.stem(torch.zeros(2, 12, 250))
    assert h.shape == (2, 64, 63)
    lengths = []
    for block in net.blocks:
        h = block(h)
        lengths.append((h.shape[1], h.shape[2]))
    assert lengths == [(256, 63)] * 3 + [(256, 32)] * 4 + [(256, 16)] * 6 + [(256, 8)] * 3


@pytest.mark.parametrize("length", [1, 17, 250, 1000])
def test_reads_any_length(length: int) -> None:
    net = XResNet1d(2, 3, (1, 1, 1, 1)).eval()
    x = torch.randn(4, 2, length)
    assert net.features(x).shape == (4, 512)
    assert net(x).shape == (4, 3)


def test_the_features_are_maximum_and_mean_over_time() -> None:
    net = XResNet1d(2, 3, (1, 1, 1, 1)).eval()
    h = net.blocks(net.stem(x := torch.randn(4, 2, 300)))
    torch.testing.assert_close(net.features(x)[:, :256], h.max(dim=2).values)
    torch.testing.assert_close(net.features(x)[:, 256:], h.mean(dim=2))
