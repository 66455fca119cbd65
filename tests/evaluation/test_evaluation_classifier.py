"""The command that judges classifiers on real ECGs, with a classifier whose answers are known."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from ecgdiff.classifier import Classifier
from ecgdiff.data.statements import CONDITIONS, STATEMENTS
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.evaluation import classifier as command

FOUR = [STATEMENTS.index(code) for code in CONDITIONS]


class Known(nn.Module):
    """Reads the four conditions off the strength of V1-V4, perfectly or the wrong way around."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, x: Tensor) -> Tensor:
        out = x.new_zeros(len(x), len(STATEMENTS))
        out[:, FOUR] = self.sign * 4 * (x[:, 6:10].square().mean(-1).sqrt() - 1)
        return out


class Data:
    """Forty patients with two records each; a condition doubles the amplitude of its lead."""

    def __init__(self, root: str) -> None:
        rng = np.random.default_rng(0)
        made = rng.random((80, 4)) < 0.3
        self.table = [
            SimpleNamespace(
                patient_id=k // 2,
                statements={code for code, m in zip(CONDITIONS, made[k], strict=True) if m},
            )
            for k in range(80)
        ]
        strength = np.ones((80, 12, 1))
        strength[:, 6:10, 0] += np.where(made, 1.0, -0.5)
        self.samples = (300 * strength * np.sin(np.arange(1000))).astype(np.int16)

    def rows(self, folds: object) -> list[Any]:
        return self.table

    def signals(self, folds: object, leads: object) -> tuple[np.ndarray, np.ndarray]:
        assert leads == LEADS_12
        return np.arange(80), self.samples


def load(name: str) -> Classifier:
    half = {rule: np.full(len(STATEMENTS), 0.5) for rule in ("youden", "f1")}
    net = Known(-1.0 if name == "wrong" else 1.0)
    classes = STATEMENTS[::-1] if name == "other" else STATEMENTS
    return Classifier(
        net, LEADS_12, classes, 100.0, 1000, 0.212, thresholds=half, config={"sha256": name}
    )


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PTBXL", Data)
    monkeypatch.setattr(command, "load_classifier", load)


def test_right_and_wrong_answers_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--classifier", "right", "--classifier", "wrong", "--resamples", "20"]
    assert command.main(["--root", "x", "--out", str(tmp_path), *asked]) == 0
    document = json.loads((tmp_path / "classifier.json").read_text(encoding="utf-8"))
    right, wrong = document["results"]["right"], document["results"]["wrong"]
    assert right["auroc"]["value"] == [1.0] * 4 and wrong["auroc"]["value"] == [0.0] * 4
    assert right["balanced_accuracy_youden"]["value"] == [1.0] * 4
    # Statements that nobody has are left out; the four are all there are.
    assert right["macro_auroc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert wrong["auroc difference"]["value"] == [-1.0] * 4
    assert document["records"] == 80 and document["patients"] == 40
    text = capsys.readouterr().out
    count = document["positives"]["CRBBB"]
    assert f"| CRBBB | {count} | `right` | 1.000 [1.000, 1.000]" in text


def test_a_classifier_of_other_statements_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--classifier", "other", "--out", str(tmp_path)]
    assert command.main(["--root", "x", *asked]) == 1
    assert "does not read the 71 statements" in capsys.readouterr().err
