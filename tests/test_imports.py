import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUDGET_S = 0.2
OPTIONAL = {
    "jsonargparse",
    "lightning",
    "neurokit2",
    "pandas",
    "plotly",
    "pytorch_lightning",
    "scipy.signal",
    "sklearn",
    "wfdb",
}
PROGRAM = """
import json, sys, time
import torch
start = time.perf_counter()
import ecgdiff
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted(sys.modules)]))
"""


def _import():
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def imports():
    return [_import() for _ in range(3)]


def test_import_loads_no_optional_package(imports):
    assert not OPTIONAL & set(imports[0][1])


def test_import_takes_little_more_than_torch(imports):
    # The best of three: other work on the machine only ever adds time.
    assert min(seconds for seconds, _ in imports) < BUDGET_S
