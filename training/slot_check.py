"""Looks whether a machine has what training/slot.py needs, before time is spent on it.

    PYTHONPATH=. python training/slot_check.py

Prints a line per need and ends with "fit" or with what is missing. Without a working compiler the
slot still runs, with slower steps: the last line says that, too.
"""

import argparse
import sys
import time
from collections.abc import Callable

import torch

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Runs the checks; returns the exit status: 0 if the slot can run as planned."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args(arguments).device
    needs: dict[str, Callable[[], object]] = {
        "device": lambda: _device(device),
        "program": _program,
        "lzma": _unpacked,
        "bfloat16": lambda: _product(device),
        "compiler": lambda: _compiled(device),
    }
    failed = []
    for name, need in needs.items():
        began = time.perf_counter()
        try:
            found = need()
            print(f"{name}: {found} ({time.perf_counter() - began:.0f} s)", flush=True)
        except Exception as error:  # whatever it is, the next need is looked at, too
            failed.append(name)
            print(f"{name}: FAILED, {error!r:.1000}", flush=True)
    if failed == ["compiler"]:
        print("no compiler: start with --compile off")
    else:
        print(f"not fit: {', '.join(failed)}" if failed else "fit")
    return int(bool(failed))


def _device(device: str) -> str:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return f"{name}, Python {sys.version.split()[0]}, torch {torch.__version__}"


def _program() -> str:
    # Imports all that a slot does: torch alone is not enough.
    import slot

    return f"{slot.__name__} found"


def _unpacked() -> str:
    import lzma  # some builds of Python lack it

    if lzma.decompress(lzma.compress(b"ecg")) != b"ecg":
        raise ValueError("lzma does not give back what it got")
    return "right"


def _product(device: str) -> str:
    a = torch.ones(256, 256, device=device, dtype=torch.bfloat16)
    if float((a @ a).float().mean()) != 256:
        raise ArithmeticError("a product in bfloat16 is wrong")
    return "right"


def _compiled(device: str) -> str:
    """A function with a gradient: Triton on a GPU, a C++ compiler on a processor."""
    x = torch.linspace(-1, 1, 1000, device=device, requires_grad=True)
    torch.compile(lambda v: (2 * v).sin().square().sum())(x).backward()
    wanted = 2 * (4 * x.detach()).sin()
    if x.grad is None or not torch.allclose(x.grad, wanted, atol=1e-4):
        raise ArithmeticError("a compiled gradient is wrong")
    return "right"


if __name__ == "__main__":
    sys.exit(main())
