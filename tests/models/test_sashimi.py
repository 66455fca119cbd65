"""The backbone: counted, shaped, and zero at the start."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ecgdiff.models.sashimi import PRESETS, ChannelNorm, SaShiMi, fold, unfold

TINY = {"d_model": 8, "n_layers": 1, "pool": (2, 2), "state": 8, "t_features": 8, "t_width": 16}


def test_paper_preset_has_the_parameters_of_the_specification() -> None:
    for channels, count in ((9, 15_437_883), (8, 15_437_754)):
        net = SaShiMi(channels, **PRESETS["paper"])
        assert sum(p.numel() for p in net.parameters()) == count


def test_small_preset_is_about_two_million() -> None:
    count = sum(p.numel() for p in SaShiMi(8, **PRESETS["small"]).parameters())
    assert 1.5e6 < count < 2.2e6


@pytest.mark.parametrize("length", [16, 64, 256])
@pytest.mark.parametrize("pool", [(2, 2), (1, 2)])
def test_shape_round_trip_and_zero_start(length: int, pool: tuple[int, ...]) -> None:
    net = SaShiMi(3, **{**TINY, "pool": pool})
    out = net(torch.randn(2, 3, length), torch.tensor([0.1, -1.0]))
    assert out.shape == (2, 3, length)
    assert (out == 0).all()


def test_every_parameter_learns() -> None:
    net = SaShiMi(3, stem=2, **TINY)
    torch.nn.init.normal_(net.output.weight)
    net(torch.randn(2, 3, 32), torch.rand(2)).square().sum().backward()
    still = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still


def test_items_do_not_see_each_other() -> None:
    net = SaShiMi(3, **TINY).eval()
    torch.nn.init.normal_(net.output.weight)
    x, level = torch.randn(4, 3, 32), torch.rand(4)
    with torch.no_grad():
        torch.testing.assert_close(net(x, level)[2:3], net(x[2:3], level[2:3]))


def test_training_and_inference_paths_agree() -> None:
    net = SaShiMi(3, **TINY)
    torch.nn.init.normal_(net.output.weight)
    x, level = torch.randn(2, 3, 64), torch.rand(2)
    trained = net(x, level).detach()
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(x, level), trained, rtol=1e-4, atol=1e-4)


def test_wrong_length_is_refused_with_the_number_that_fits() -> None:
    with pytest.raises(ValueError, match="multiple of 4, got 30"):
        SaShiMi(3, **TINY)(torch.randn(1, 3, 30), torch.zeros(1))


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_fold_keeps_neighbors_together(factor: int) -> None:
    x = torch.arange(2 * 3 * 8.0).reshape(2, 3, 8)
    folded = fold(x, factor)
    assert folded.shape == (2 * factor, 3, 8 // factor)
    torch.testing.assert_close(folded[:factor, 0, 0], x[0, 0, :factor])
    torch.testing.assert_close(unfold(folded, factor), x)


def test_training_graph_has_no_breaks_and_compiled_gradients_are_the_same() -> None:
    """Traced as a whole; the long convolution stays one operation in it (length > Toeplitz)."""
    torch.manual_seed(0)
    net = SaShiMi(channels=2, d_model=4, n_layers=1, pool=(2,), state=4, t_features=8, t_width=8)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x, level = torch.randn(3, 2, 600), torch.randn(3)
    graphs: list[str] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph.code)
        return graph.forward

    results = []
    for form in (net, torch.compile(net, backend=keep, fullgraph=True, dynamic=False)):
        net.zero_grad()
        form(x, level).square().sum().backward()
        results.append([p.grad for p in net.parameters()])
    assert len(graphs) == 1 and "long_convolve" in graphs[0] and "rfft" not in graphs[0]
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.bfloat16, 2e-2)])
def test_norm_is_that_of_its_definition(dtype: torch.dtype, error: float) -> None:
    """(x - mean) / sqrt(variance + 1e-5) over channels, with one gain and one shift."""
    norm = ChannelNorm()
    torch.nn.init.constant_(norm.gain, 1.5)
    torch.nn.init.constant_(norm.shift, -0.5)
    x = 2 * torch.randn(16, 3, 5, dtype=torch.float64) + torch.arange(5.0)
    x[:, 0, 0] = 0.25  # no variance at all
    wanted = 1.5 * (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() - 0.5
    found = norm.to(dtype if dtype == torch.float64 else torch.float32)(x.to(dtype))
    assert found.dtype == dtype
    scale = float(wanted.abs().max())
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=error * scale)
