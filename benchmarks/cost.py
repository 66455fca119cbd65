"""What a network costs: operations and bytes counted, the machine's peaks and calls timed.

**Operations.** Two per multiply-add of the matrix products of a forward pass; Fourier transforms,
the generation of kernels and elementwise work are left out. A training step is three passes.

**Bytes.** The model: a forward pass moves the elements of every block, width x time, 50 times in
bfloat16. 31 of these times lie around the FFT, which works in float32 on twice the length; the
other 19 count double in float32. A training step is three passes. Weights and the optimizer's
state are left out, 28 bytes per parameter and step: 0.4 % for the paper network and 128 signals of
1024 samples. Fused convolutions and Toeplitz matrices move less than the model, and a step that
uses them can be faster than its limit.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ecgdiff.models.sashimi import Block, DownPool, SaShiMi, UpPool

__all__ = [
    "alternate",
    "block_elements",
    "forward_flops",
    "peak_bytes",
    "peak_flops",
    "saved_bytes",
    "synchronize",
    "training_bytes",
]

FFT_PASSES, OTHER_PASSES = 31, 19


def _layers(net: SaShiMi, length: int) -> Iterator[tuple[nn.Module, int]]:
    """Blocks and pools, each with the number of time steps at which it multiplies matrices."""
    time_steps = length // net.stem
    for layer in (*net.down, *net.center, *net.up):
        if isinstance(layer, DownPool):
            time_steps //= layer.factor
        yield layer, time_steps
        if isinstance(layer, UpPool):
            time_steps *= layer.factor


def forward_flops(net: SaShiMi, length: int) -> int:
    """Operations in the matrix products of one forward pass of one signal of `length` samples."""
    ends = (net.input, net.head, net.output)
    products = sum(end.weight.numel() for end in ends) * (length // net.stem)
    products += net.embed.first.weight.numel() + net.embed.second.weight.numel()
    for layer, time_steps in _layers(net, length):
        if isinstance(layer, Block):
            products += layer.level.weight.numel()
            mixes = (layer.gate, layer.wide, layer.narrow)
            products += sum(mix.weight.numel() for mix in mixes) * time_steps
        elif isinstance(layer, DownPool | UpPool):
            products += layer.mix.weight.numel() * time_steps
    return 2 * products


def block_elements(net: SaShiMi, length: int) -> int:
    """The sum of width x time over the blocks, for one signal of `length` samples."""
    return sum(
        layer.gate.weight.shape[1] * time_steps
        for layer, time_steps in _layers(net, length)
        if isinstance(layer, Block)
    )


def training_bytes(elements: int, dtype: torch.dtype) -> int:
    """Bytes that a training step moves per signal, by the model above.

    Arguments:
        elements: The sum of width x time over the blocks.
        dtype: What the matrix products are computed in.
    """
    passes = 2 * FFT_PASSES + dtype.itemsize * OTHER_PASSES
    return 3 * passes * elements


def saved_bytes(call: Callable[[], Tensor]) -> int:
    """Bytes that a call keeps for its backward pass, each storage counted once."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        # The graph must live on until all is counted, or a freed address would be used twice.
        out = call()
    del out
    return sum(kept.values())


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(call: Callable[[], Any], device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - began


def peak_flops(device: torch.device, dtype: torch.dtype, size: int, repeats: int = 5) -> float:
    """Operations per second of a square matrix product, the best of some repeats."""
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    best = min(_seconds(lambda: a @ b, device) for _ in range(repeats + 1))
    return 2 * size**3 / best


def peak_bytes(device: torch.device, size: int, repeats: int = 5) -> float:
    """Bytes per second, read and written, of a copy of `size` bytes, the best of some repeats."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    best = min(_seconds(lambda: target.copy_(source), device) for _ in range(repeats + 1))
    return 2 * size / best


def alternate(
    calls: Mapping[str, Callable[[], Any]], repeats: int, limit: float, device: torch.device
) -> dict[str, list[float]]:
    """Times calls in turn, in an order that reverses each time, after one warm-up call of each.

    Arguments:
        calls: The calls by name.
        repeats: How often each is timed; less often if `limit` is short.
        limit: The seconds that all may take after the warm-up calls.
        device: Where they compute.

    Returns:
        Seconds of every call, by name.

    Raises:
        TimeoutError: If one call of each already takes longer than `limit`.
    """
    first = {name: _seconds(call, device) for name, call in calls.items()}
    rounds = min(repeats, int(limit / sum(first.values())))
    if not rounds:
        each = " and ".join(f"{name} {seconds:.1f} s" for name, seconds in first.items())
        raise TimeoutError(f"one call took {each}; the limit for both is {limit:g} s (--limit)")
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: 1 if number % 2 == 0 else -1]:
            seconds[name].append(_seconds(calls[name], device))
    return seconds
