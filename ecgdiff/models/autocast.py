"""Networks that compute their matrix products in bfloat16, for processors that are faster so."""

import torch
from torch import Tensor, nn

__all__ = ["Autocast"]


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
