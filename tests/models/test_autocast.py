"""Networks in bfloat16."""

import torch
from torch import nn

from ecgdiff.models.autocast import Autocast, slowdown


def test_matrices_are_multiplied_in_bfloat16_and_the_result_is_float32() -> None:
    torch.manual_seed(0)
    net, x = nn.Linear(64, 64), torch.randn(8, 64)
    plain, fast = net(x), Autocast(net)(x)
    assert fast.dtype == torch.float32
    rounded = x.bfloat16().float() @ net.weight.bfloat16().float().T + net.bias
    # To the rounding of the product itself, of which bfloat16 keeps eight bits.
    torch.testing.assert_close(fast, rounded, rtol=2**-8, atol=2**-8)
    assert not torch.equal(fast, plain)


def test_the_slowdown_is_a_ratio_of_times() -> None:
    assert 0.01 < slowdown() < 10_000
