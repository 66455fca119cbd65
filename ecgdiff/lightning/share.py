"""The random numbers of a step, of which each process uses its share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ecgdiff.lightning.seeds import step_seed

__all__ = ["Share"]


class Share:
    """Creates the numbers of one step: drawn for all processes alike, cut to those of one.

    Arguments:
        seed: The run's seed.
        step: The step.
        rank: The process.
        ranks: How many processes there are.
        device: Where tensors are drawn. `generator` draws there, `host` on the CPU.
    """

    def __init__(
        self, seed: int, step: int, rank: int, ranks: int, device: torch.device | str = "cpu"
    ) -> None:
        self.step, self.rank, self.ranks, self.device = step, rank, ranks, device
        self.generator = torch.Generator(device).manual_seed(step_seed(seed, step, 0))
        self.host = torch.Generator().manual_seed(step_seed(seed, step, 1))

    def count(self, x: Tensor) -> int:
        """The number of items of all processes, given those of one."""
        return len(x) * self.ranks

    def mine(self, whole: Tensor) -> Tensor:
        """Cuts out this process's items."""
        each = len(whole) // self.ranks
        return whole[self.rank * each : (self.rank + 1) * each]

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Draws standard normal numbers, of this shape for each process."""
        whole = (shape[0] * self.ranks, *shape[1:])
        return self.mine(torch.randn(whole, generator=self.generator, device=self.device))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Draws numbers from [0, 1), of this shape for each process."""
        whole = (shape[0] * self.ranks, *shape[1:])
        return self.mine(torch.rand(whole, generator=self.generator, device=self.device))

    def integers(self, below: int, count: int) -> Tensor:
        """Draws `count` integers from 0 to `below` - 1 for each process."""
        whole = (count * self.ranks,)
        return self.mine(torch.randint(below, whole, generator=self.generator, device=self.device))
