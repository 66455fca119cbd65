"""Notes on a reading: each where it applies and nowhere else, with the benchmark's figures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecgdiff.classifier import Classifier, load_classifier
from ecgdiff.data.statements import CONDITIONS
from ecgdiff.diagnosis.notes import notes
from ecgdiff.diagnosis.result import Diagnosis
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.ecg.recording import Recording
from ecgdiff.reconstruction import Reconstruction

READINGS = Path(__file__).parents[2] / "results" / "benchmark" / "readings.json"


@pytest.fixture(scope="module")
def default() -> Classifier:
    return load_classifier("default")


def recording(seconds: float = 10) -> Recording:
    return Recording(
        signal=np.zeros((12, round(100 * seconds)), np.float32),
        sampling_rate=100.0,
        leads=LEADS_12,
    )


def drawn(*measured: str, count: int = 10, seconds: float = 10) -> Reconstruction:
    """Draws of which some leads were measured."""
    known = np.zeros((12, round(100 * seconds)), bool)
    known[[LEADS_12.index(lead) for lead in measured]] = True
    return Reconstruction(
        draws=np.zeros((count, *known.shape), np.float32),
        recording=recording(seconds),
        measured=known,
        sampling_rate=100.0,
        provenance=tuple("measured" if row.all() else "synthetic" for row in known),
        baseline=np.zeros(known.shape, np.float32),
    )


SEVERAL = ("I", "II", "V4")


def test_thresholds_of_real_ecgs_are_named_for_averages_over_draws(default: Classifier) -> None:
    (said,) = notes(drawn(*SEVERAL), default, "f1", CONDITIONS)
    assert said.startswith('rule="f1" (--rule f1): its thresholds were chosen on real ECGs')
    assert notes(drawn(*SEVERAL), default, "youden", CONDITIONS) == []
    assert notes(drawn(*SEVERAL, count=1), default, "f1", CONDITIONS) == []  # no average
    assert notes(drawn(*LEADS_12), default, "f1", CONDITIONS) == []  # nothing was drawn
    assert notes(recording(), default, "f1", CONDITIONS) == []


def test_the_figures_are_those_of_the_benchmark(default: Classifier) -> None:
    (said,) = notes(drawn(*SEVERAL), default, "f1", CONDITIONS)
    document = json.loads(READINGS.read_text(encoding="utf-8"))
    k, leads = document["conditions"].index("AFIB"), document["tasks"]["leads"]
    real, own = (leads["conditional"][rule]["value"][k] for rule in ("f1", "own f1"))
    assert f"was {real:.2f}, and {own:.2f} with".replace("0.", ".") in said
    # As the note on lead I has it.
    one, several = (leads[m]["auroc"]["value"] for m in ("lead-I classifier", "conditional"))
    assert all(a >= b for a, b in zip(one, several, strict=True))


def test_what_is_shorter_than_ten_seconds_is_named(default: Classifier) -> None:
    said = "The ECG lasts 2.56 s; thresholds were chosen on 10 s (7 windows, here 2)."
    assert notes(recording(2.56), default, "youden", CONDITIONS) == [said]
    assert notes(drawn(*SEVERAL, seconds=2.56), default, "youden", CONDITIONS) == [said]
    (said,) = notes(recording(2.5), default, "youden", CONDITIONS)
    assert said.endswith("(7 windows, here 1).")
    assert notes(recording(30), default, "youden", CONDITIONS) == []


def test_lead_one_alone_has_a_classifier_of_its_own(default: Classifier) -> None:
    (said,) = notes(drawn("I"), default, "youden", ("NORM", "AFIB", "SBRAD"))
    assert said.startswith("Lead I was measured, the other leads are drawn")
    assert 'classifier="lead_I" (--classifier lead_I)' in said
    assert said.endswith("ranked AFIB, SBRAD at least as well.")
    assert notes(drawn("I"), default, "youden", ("NORM",)) == []
    assert notes(drawn("II"), default, "youden", CONDITIONS) == []
    assert notes(drawn("I", "II"), default, "youden", CONDITIONS) == []
    part = drawn("I")
    part.measured[0, :100] = False
    assert notes(part, default, "youden", CONDITIONS) == []
    assert notes(drawn("I"), load_classifier("lead_I"), "youden", CONDITIONS) == []
    assert notes(drawn("I"), replace(default, name="mine"), "youden", CONDITIONS) == []


def test_nothing_is_said_of_thresholds_of_ones_own(default: Classifier) -> None:
    own = replace(default, thresholds={k: v * 0.9 for k, v in default.thresholds.items()})
    assert notes(drawn(*SEVERAL, seconds=5), own, "f1", CONDITIONS) == []
    assert len(notes(drawn(*SEVERAL, seconds=5), default, "f1", CONDITIONS)) == 2


def test_above_a_low_threshold_is_not_called_probable() -> None:
    p, at = np.array([[0.02, 0.9, 0.02, 0.3]]), np.array([0.001, 0.001, 0.03, 0.2])
    found = Diagnosis(("A", "B", "C", "D"), ("a", "b", "c", "d"), p, at)
    assert found.readings() == ("above threshold",) * 2 + ("below threshold", "above threshold")
    said = '"Above threshold" is not "probable": the threshold of A lies far below one half.'
    assert repr(found).splitlines()[-2] == said
    assert "threshold of A lies far" in found._repr_html_()
    assert found.to_dict()["warnings"] == [said]
    high = Diagnosis(("B",), ("b",), p[:, 1:2], at[1:2], meta={"warnings": ["swapped?"]})
    assert "probable" not in repr(high) and high.to_dict()["warnings"] == ["swapped?"]
