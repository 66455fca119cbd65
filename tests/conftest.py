"""Fixtures shared by all tests: PTB-XL where there is one, and a quiet, repeatable torch."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
PACKED = ROOT.parent / "shared" / "ptbxl"
ABSENT = f"no PTB-XL: set ECGDIFF_PTBXL to an official-layout folder, or put the packs in {PACKED}"

# Wall-clock limits and random examples would let a loaded machine or an unlucky day decide.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
# Two workers share two cores; a lone process has both.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Give every test the same torch state, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small problems are faster on one thread, much so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def ptbxl_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with folds 9 and 10 of PTB-XL (at least) in the official layout."""
    if given := os.environ.get("ECGDIFF_PTBXL"):
        if not (Path(given) / "ptbxl_database.csv").is_file():
            pytest.fail(f"ECGDIFF_PTBXL={given} holds no ptbxl_database.csv")
        return Path(given)
    if not (PACKED / "unpack.py").is_file():
        pytest.skip(ABSENT)
    root = tmp_path_factory.mktemp("ptbxl")
    command = [sys.executable, PACKED / "unpack.py", root, "--folds", "9", "10"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return root


@pytest.fixture(scope="session")
def ptbxl_csv() -> Path:
    """The table of all PTB-XL records."""
    path = Path(os.environ.get("ECGDIFF_PTBXL", PACKED)) / "ptbxl_database.csv"
    if not path.is_file():
        pytest.skip(ABSENT)
    return path
