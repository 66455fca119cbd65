"""Two processes train the network that one trains with twice the batch; killed runs go on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SCRIPT = Path(__file__).with_name("two_processes.py")


def command(folder: Path, *numbers: int) -> subprocess.CompletedProcess[str]:
    """Runs the script in a process of its own: DEVICES, BATCH and, if given, KILLED_AT."""
    devices, batch, *rest = map(str, numbers)
    words = [sys.executable, str(SCRIPT), devices, batch, str(folder), *rest]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "SLURM"))}
    return subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment)


def trained(
    folder: Path, devices: int, batch: int, *rest: int
) -> tuple[NDArray[np.float64], dict[str, Tensor]]:
    """Losses per step, of which every process logs the same, and weights."""
    folder.mkdir(exist_ok=True)
    done = command(folder, devices, batch, *rest)
    assert done.returncode == 0, done.stderr[-2000:]
    losses = [json.loads(p.read_text()) for p in sorted(folder.glob("loss_*.json"))]
    assert len(losses) == devices
    assert all(found == losses[0] for found in losses)
    return np.array(losses[0]), torch.load(folder / "net.pt", weights_only=True)


def test_two_processes_are_one_with_twice_the_batch_and_a_killed_run_goes_on(
    tmp_path: Path,
) -> None:
    alone, weights = trained(tmp_path / "one", 1, 8)
    assert len(alone) == 6

    together, shared = trained(tmp_path / "two", 2, 4)
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(shared[name], value, rtol=1e-4, atol=1e-5)

    # So it is where the network is shown observations: every process has its own share of losses.
    seeing, _ = trained(tmp_path / "seeing", 1, 8, 0, 1)
    apart, _ = trained(tmp_path / "apart", 2, 4, 0, 1)
    np.testing.assert_allclose(apart, seeing, rtol=1e-5)

    # Killed after step 3, with step 2 saved: it repeats step 3, no more, and ends bit for bit.
    (tmp_path / "killed").mkdir()
    assert command(tmp_path / "killed", 1, 8, 3).returncode == -signal.SIGKILL
    rest, resumed = trained(tmp_path / "killed", 1, 8)
    assert rest.tolist() == alone[2:].tolist()
    for name, value in weights.items():
        assert torch.equal(resumed[name], value)
