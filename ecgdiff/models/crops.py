"""Short crops of long signals: at random for training, as windows for reading."""

import torch
from torch import Tensor, nn

__all__ = ["crops", "middle", "random_crops", "starts", "window_logits"]

AT_ONCE = 512


def random_crops(x: Tensor, crop: int, generator: torch.Generator | None = None) -> Tensor:
    """Cuts one crop out of each signal, anywhere in it.

    Arguments:
        x: The signals, with shape (batch, channels, time).
        crop: The length of a crop in samples.
        generator: Where the places come from; the global generator if None.

    Returns:
        A tensor with shape (batch, channels, crop).
    """
    at = torch.randint(x.shape[-1] - crop + 1, (len(x),), generator=generator)
    return crops(x, at.to(x.device), crop)


def crops(x: Tensor, places: Tensor, crop: int) -> Tensor:
    """Cuts one crop out of each signal.

    Arguments:
        x: The signals, with shape (batch, channels, time).
        places: The first sample of each crop, with shape (batch,).
        crop: The length of a crop in samples.

    Returns:
        A tensor with shape (batch, channels, crop).
    """
    index = places[:, None, None] + torch.arange(crop, device=x.device)
    return x.gather(-1, index.expand(-1, x.shape[1], -1))


def middle(x: Tensor, length: int) -> Tensor:
    """The middle `length` samples of signals (..., time)."""
    start = (x.shape[-1] - length) // 2
    return x[..., start : start + length]


def starts(length: int, crop: int) -> list[int]:
    """Where windows begin: every half crop, and one that ends with the signal.

    Raises:
        ValueError: If the signal is shorter than a crop.
    """
    if length < crop:
        raise ValueError(f"The signal has {length} samples; the classifier reads {crop} or more.")
    found = list(range(0, length - crop + 1, max(1, crop // 2)))
    return found if found[-1] == length - crop else [*found, length - crop]


def window_logits(net: nn.Module, x: Tensor, crop: int) -> Tensor:
    """Gives the logits of every window.

    Arguments:
        net: The classifier, from (batch, channels, crop) to (batch, classes).
        x: The signals, with shape (batch, channels, time).
        crop: The length of a window in samples.

    Returns:
        A tensor with shape (batch, windows, classes).
    """
    places = starts(x.shape[-1], crop)
    # Hours of ECG have tens of thousands of windows: so many at a time, not all at once.
    count = max(1, AT_ONCE // len(x))
    parts = []
    for first in range(0, len(places), count):
        some = torch.stack([x[..., at : at + crop] for at in places[first : first + count]], 1)
        parts.append(net(some.flatten(0, 1)).unflatten(0, some.shape[:2]))
    return torch.cat(parts, dim=1)
