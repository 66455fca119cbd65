"""Networks that multiply matrices in bfloat16, and whether a processor is faster so."""

import time

import torch
from torch import Tensor, nn

__all__ = ["Autocast", "slowdown"]

SIZE, REPEATS = 256, 5


class Autocast(nn.Module):
    """Creates a network that gives float32 but multiplies matrices in bfloat16.

    Arguments:
        net: The network.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """Gives what the network gives, to the precision of bfloat16."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.net(x, *others).to(x.dtype)


def slowdown() -> float:
    """How many times as long a matrix product of the processor takes in bfloat16 as in float32."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(SIZE, SIZE, dtype=dtype)
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - start)
        # The fastest: the others waited for caches or for other programs.
        seconds[dtype] = min(times)
    return seconds[torch.bfloat16] / seconds[torch.float32]
