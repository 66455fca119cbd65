import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _run(script, root):
    command = [sys.executable, ROOT / ".ci" / script, root]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def _plant(root, module, text):
    path = root / "ecgdiff" / module
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")


@pytest.mark.parametrize("script", ["check_budgets.py", "check_imports.py"])
def test_the_package_keeps_its_contracts(script):
    code, output = _run(script, ROOT)
    assert code == 0, output


GOOD = '''
"""A module."""


class Thing:
    """A thing."""

    def __init__(self, size: int) -> None:
        self.size = size

    def grow(self, *, by: int) -> int:
        """Return a larger size."""
        return self.size + by


def _hidden(x):
    return x
'''


def test_budgets_accept_a_small_documented_module(tmp_path):
    _plant(tmp_path, "good.py", GOOD)
    code, output = _run("check_budgets.py", tmp_path)
    assert code == 0, output


BODY = "\n".join(f"    x{i}: int = {i}" for i in range(60))
BROKEN = {
    "a file has at most 400": '"""A module."""\n' + "\n".join(f"X{i} = {i}" for i in range(400)),
    "a function has at most 60": f'"""A module."""\ndef _f() -> None:\n{BODY}\n',
    "the median file has 151": '"""A module."""\n' * 151,
    "the median function has 13": '"""A module."""\ndef _f() -> None:\n' + "    pass\n" * 12,
    "no module docstring": "X = 1\n",
    "f has no docstring": '"""A module."""\ndef f() -> None: ...\n',
    "C has no docstring": '"""A module."""\nclass C: ...\n',
    "f lacks types: x, return": '"""A module."""\ndef f(x):\n    """Do."""\n',
    "__init__ lacks types: y": (
        '"""A module."""\nclass C:\n    """C."""\n    def __init__(self, *, y=1) -> None: ...\n'
    ),
    "g lacks types: args": (
        '"""A module."""\nclass C:\n    """C."""\n    @staticmethod\n'
        '    def g(*args) -> None:\n        """Do."""\n'
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_budgets_catch(tmp_path, message):
    _plant(tmp_path, "bad.py", BROKEN[message])
    code, output = _run("check_budgets.py", tmp_path)
    assert code == 1
    assert message in output


def test_budgets_refuse_an_empty_tree(tmp_path):
    assert _run("check_budgets.py", tmp_path)[0] == 1


WRONG_WAY = [
    ("diffusion/schedule.py", "import ecgdiff"),
    ("diffusion/schedule.py", "from ecgdiff.ecg import leads"),
    ("diffusion/schedule.py", "from ..operators import base"),
    ("operators/base.py", "from ecgdiff import samplers"),
    ("models/s4.py", "from ecgdiff.diffusion.schedule import Schedule"),
    ("samplers/mgps.py", "from ecgdiff.ecg.leads import LEADS_12"),
    ("samplers/mgps.py", "def f():\n    from ecgdiff.models import s4"),
    ("reconstruct.py", "from ecgdiff.cli import main"),
    ("evaluation/signal.py", "import ecgdiff.report.page"),
    ("data/ptbxl.py", "import pytorch_lightning as pl"),
    ("data/ptbxl.py", "from jsonargparse import CLI"),
    ("lightning/prior.py", "import lightning.pytorch"),
    ("plot/paper.py", "def f():\n    import plotly.graph_objects as go"),
    ("samplers/__init__.py", "from ..operators.images import Blur"),
    ("ecg/leads.py", "import torch"),
    ("ecg/io/wfdb.py", "import wfdb"),
    ("ecg/recording.py", "def f():\n    import wfdb"),
    ("ecg/recording.py", "from ecgdiff.data import load_manifest"),
]
RIGHT_WAY = [
    ("__main__.py", "from ecgdiff.cli.main import main"),
    ("cli/train.py", "from jsonargparse import CLI\nfrom .main import main"),
    ("diffusion/denoiser.py", "import torch\nfrom ..errors import DataError\nfrom . import grids"),
    ("ecg/io/wfdb.py", "import re\nimport numpy\n\ndef f():\n    import wfdb"),
    ("ecg/io/__init__.py", "from ..recording import Recording\nfrom ...errors import ReadError"),
    ("lightning/prior.py", "import pytorch_lightning\nfrom ecgdiff.lightning import ema"),
    ("operators/images/__init__.py", "from ecgdiff.operators.images.blur import Blur"),
    ("plot/plotly.py", "def f():\n    import plotly.graph_objects as go"),
    ("samplers/mgps.py", "from ecgdiff import random\nfrom ecgdiff.operators import base"),
]


@pytest.mark.parametrize(("module", "text"), WRONG_WAY)
def test_imports_the_wrong_way_are_caught(tmp_path, module, text):
    _plant(tmp_path, module, text)
    code, output = _run("check_imports.py", tmp_path)
    assert code == 1
    assert f"ecgdiff/{module}" in output


def test_imports_the_right_way_pass(tmp_path):
    for module, text in RIGHT_WAY:
        _plant(tmp_path, module, text)
    code, output = _run("check_imports.py", tmp_path)
    assert code == 0, output
