"""Loss and gradients through the compiler's graph are those of the plain network."""

import pytest
import torch

from ecgdiff.lightning.losses import edm_loss
from ecgdiff.models import s4
from ecgdiff.models.sashimi import SaShiMi

TINY = {"d_model": 8, "n_layers": 1, "pool": (2, 2), "state": 8, "t_features": 8, "t_width": 8}
LENGTH = 600  # the tiers' lengths are 600, 300 and 150: the longer ones take the FFT


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch, of its own tracing
@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_training_step_traced_ahead_of_time_is_the_plain_one(
    bfloat16: bool, one_thread: None
) -> None:
    assert LENGTH // 2 > s4.TOEPLITZ_LENGTH > LENGTH // 4
    torch.manual_seed(0)
    net = SaShiMi(t_scale=400.0, **TINY)  # type: ignore[arg-type]
    torch.nn.init.normal_(net.output.weight, std=0.1)
    x0, noise = torch.randn(2, 3, 8, LENGTH)
    sigma = torch.tensor([0.1, 1.0, 10.0])[:, None, None]
    operations: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        operations.extend(str(node.target) for node in graph.graph.nodes)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    results = []
    for called in (net, torch.compile(net, backend=backend, dynamic=False, fullgraph=True)):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = edm_loss(called, x0, sigma, noise)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        results.append([loss, *gradients])
    assert any("long_convolve" in name for name in operations)
    tolerance = 2e-2 if bfloat16 else 1e-4
    for name, plain, fast in zip(
        ["loss", *(name for name, _ in net.named_parameters())], *results, strict=True
    ):
        off = (fast - plain).square().mean().sqrt()
        assert off <= tolerance * plain.square().mean().sqrt(), name
