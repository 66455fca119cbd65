"""Reading recordings and draws: what is fed to the classifier, and what comes of it."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone
from torch import Tensor, nn

import ecgdiff
from ecgdiff.classifier import Classifier
from ecgdiff.diagnosis.estimator import StatementEstimator
from ecgdiff.diagnosis.result import Diagnosis, _shown
from ecgdiff.ecg.leads import LEADS_8, LEADS_12, derive_12
from ecgdiff.ecg.preprocess import baseline
from ecgdiff.ecg.quality import check
from ecgdiff.errors import OperatorError, SignalQualityError

TIME = np.arange(1000) / 100
RNG = np.random.default_rng(0)
# Each lead has a little muscle of its own, or the quality gate finds limb leads flat.
TREMOR = np.random.default_rng(1).normal(0, 0.01, (8, 1000))


class Powers(nn.Module):
    """Logits that can be computed by hand: how much stronger V1 and V6 are than a unit."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, [6, 11]].square().mean(-1).log()


class First(nn.Module):
    """How much stronger the only lead is than a unit."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square().mean(-1).log()


HALF = np.array([0.5])


def classifier(thresholds: tuple[float, ...] = (0.5, 0.5), **settings: object) -> Classifier:
    return Classifier(
        Powers(),
        leads=LEADS_12,
        classes=("RIGHT", "LEFT"),
        sampling_rate=100.0,
        crop=1000,
        scale=0.1,
        thresholds={"youden": np.array(thresholds), "f1": np.array([0.9, 0.9])},
        names={"RIGHT": "as seen from V1", "LEFT": "as seen from V6"},
        **settings,  # type: ignore[arg-type]
    )


def beats(amplitude: float = 0.8) -> np.ndarray:
    """Ten seconds of narrow beats, alike in the eight independent leads, in mV."""
    bumps = sum(np.exp(-((TIME - at) ** 2) / (2 * 0.02**2)) for at in np.arange(0.5, 10, 0.8))
    gains = amplitude * np.linspace(0.5, 1, 8)[:, None]
    return (gains * bumps + TREMOR).astype(np.float32)


def recording(leads: tuple[str, ...] = LEADS_12, **changes: object) -> ecgdiff.Recording:
    rows = derive_12(beats())[[LEADS_12.index(lead) for lead in leads]]
    return ecgdiff.Recording(signal=rows, sampling_rate=100.0, leads=leads, **changes)  # type: ignore[arg-type]


def reconstruction(gains: list[float]) -> ecgdiff.Reconstruction:
    """Draws that differ in their amplitude only, on a slow wave in the baseline."""
    drift = np.tile(0.3 * np.sin(2 * np.pi * 0.1 * TIME), (12, 1)).astype(np.float32)
    draws = np.stack([derive_12(beats(gain)) for gain in gains]) + drift
    return ecgdiff.Reconstruction(
        draws=draws.astype(np.float32),
        recording=recording(("I",)),
        measured=np.zeros((12, 1000), bool),
        sampling_rate=100.0,
        provenance=("synthetic",) * 12,
        baseline=drift,
    )


def by_hand(signal: np.ndarray) -> np.ndarray:
    strength = (signal[[6, 11]] / 0.1) ** 2
    return 1 / (1 + 1 / strength.mean(-1))


def test_each_draw_is_read_without_its_baseline() -> None:
    gains = [0.2, 0.5, 1.1]
    found = ecgdiff.diagnose(
        reconstruction(gains), classifier=classifier(), conditions=["LEFT", "RIGHT"]
    )
    wanted = np.stack([by_hand(derive_12(beats(gain)))[::-1] for gain in gains])
    np.testing.assert_allclose(found.probability, wanted, rtol=1e-4)
    np.testing.assert_allclose(found.mean(), wanted.mean(0), rtol=1e-4)
    assert found.conditions == ("LEFT", "RIGHT")
    assert found.names == ("as seen from V6", "as seen from V1")


def test_a_recording_is_read_as_the_training_set_was_prepared() -> None:
    rows = derive_12(beats())
    found = ecgdiff.diagnose(recording(), classifier=classifier(), conditions="all")
    wanted = by_hand(rows - baseline(rows, 100.0))
    np.testing.assert_allclose(found.probability[0], wanted, rtol=1e-4)
    drifting = derive_12(beats() + 0.4 * np.cos(2 * np.pi * 0.05 * TIME) + 0.2)
    moved = ecgdiff.Recording(
        signal=drifting.astype(np.float32), sampling_rate=100.0, leads=LEADS_12
    )
    again = ecgdiff.diagnose(moved, classifier=classifier(), conditions="all")
    np.testing.assert_allclose(again.probability, found.probability, rtol=0.01)


def test_order_rate_and_derived_leads_do_not_matter() -> None:
    wanted = ecgdiff.diagnose(recording(), classifier=classifier(), conditions="all").probability
    for other in (
        recording(tuple(reversed(LEADS_12))),
        recording(LEADS_8),
        recording().resample(500.0),
    ):
        found = ecgdiff.diagnose(other, classifier=classifier(), conditions="all")
        np.testing.assert_allclose(found.probability, wanted, rtol=0.02)


def test_what_was_not_measured_must_be_reconstructed_first() -> None:
    with pytest.raises(OperatorError, match="V1, V2, V3, V4, V5, V6 not every sample"):
        ecgdiff.diagnose(recording(("I", "II")), classifier=classifier(), conditions="all")
    lost = recording().with_lost(blocks=[(2.0, 3.0)])
    with pytest.raises(OperatorError, match=r"ecgdiff\.reconstruct"):
        ecgdiff.diagnose(lost, classifier=classifier(), conditions="all")


def test_a_classifier_of_one_lead_needs_one_lead() -> None:
    one = Classifier(First(), ("I",), ("A",), 100.0, 1000, 0.1, thresholds={"youden": HALF})
    found = ecgdiff.diagnose(recording(("I",)), classifier=one, conditions=["A"])
    lead = beats()[0] - baseline(beats()[0], 100.0)
    assert found.probability[0, 0] == pytest.approx(1 / (1 + 1 / np.mean((lead / 0.1) ** 2)), 1e-4)


def test_the_quality_gate_comes_first() -> None:
    flat = ecgdiff.Recording(
        signal=np.zeros((12, 1000), np.float32), sampling_rate=100.0, leads=LEADS_12
    )
    with pytest.raises(SignalQualityError):
        ecgdiff.diagnose(flat, classifier=classifier(), conditions="all")


def test_votes_interval_and_reading_follow_from_the_draws() -> None:
    gains = np.linspace(0.2, 1.1, 10).tolist()
    p = np.stack([by_hand(derive_12(beats(gain))) for gain in gains])
    at = (float(p[3, 0]) * 0.9999, float(p[:, 1].max()) * 1.01)
    found = ecgdiff.diagnose(reconstruction(gains), classifier=classifier(at), conditions="all")
    assert found.votes().tolist() == [0.7, 0.0]
    np.testing.assert_allclose(found.interval(), [p.min(0), p.max(0)], rtol=1e-4)
    assert found.readings() == ("undecided", "below threshold")
    low = ecgdiff.diagnose(
        reconstruction(gains), classifier=classifier((1e-6, np.nan)), conditions="all"
    )
    assert low.readings() == ("above threshold", "no threshold")
    assert np.isnan(low.votes()).tolist() == [False, True]


def test_the_rule_picks_the_threshold() -> None:
    found = ecgdiff.diagnose(recording(), classifier=classifier(), conditions=["LEFT"], rule="f1")
    assert found.thresholds.tolist() == [0.9]
    assert found.meta["rule"] == "f1"


def test_every_form_says_research_use_only() -> None:
    found = ecgdiff.diagnose(recording(), classifier=classifier((0.5, np.nan)), conditions="all")
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [c["code"] for c in written["conditions"]] == ["RIGHT", "LEFT"]
    assert written["conditions"][1]["threshold"] is None
    for text in (repr(found), found._repr_html_(), written["notice"]):
        assert "Research use only" in text


def test_a_reading_can_be_traced_sent_and_stored() -> None:
    made = reconstruction([0.3, 0.6])
    meta = {"sampler": "Conditional()", "prior": "p", "model_sha256": "abc", "seed": 5}
    made = replace(made, meta={**meta, "warnings": ["swapped?"], "seconds": 3.0})
    found = ecgdiff.diagnose(made, classifier=classifier(), conditions="all")
    written = found.to_dict()
    assert {key: written[key] for key in meta} == meta
    assert written["warnings"] == ["swapped?"] and "seconds" not in written
    again = pickle.loads(pickle.dumps(found))
    assert again.to_dict() == written
    assert pickle.loads(pickle.dumps(made)).meta == made.meta


def test_the_interval_is_called_what_the_draws_can_reach() -> None:
    two = ecgdiff.diagnose(reconstruction([0.3, 0.6]), classifier=classifier(), conditions="all")
    assert "2 draws of a reconstruction: average and 33% interval" in repr(two)
    one = ecgdiff.diagnose(reconstruction([0.3]), classifier=classifier(), conditions="all")
    assert "Read from 1 draw of a reconstruction: no interval" in repr(one)
    wide = ecgdiff.diagnose(
        reconstruction([0.3] * 19), classifier=classifier(), conditions="all", level=0.5
    )
    assert "50% interval" in repr(wide)


def test_the_interval_is_the_one_of_its_level() -> None:
    ranks = np.random.default_rng(2).permutation(np.arange(1, 100))[:, None] / 100
    for level, ends in ((0.9, [0.05, 0.95]), (0.5, [0.25, 0.75]), (0.98, [0.01, 0.99])):
        found = Diagnosis(("A",), ("a",), ranks, HALF, level)
        np.testing.assert_allclose(found.interval()[:, 0], ends)
        assert found.to_dict()["reached"] == level
    # The threshold lies beyond the 90 % interval and within that of 95 %.
    told = [Diagnosis(("A",), ("a",), ranks, HALF - 0.46, level) for level in (0.9, 0.95)]
    assert [found.readings() for found in told] == [("above threshold",), ("undecided",)]


def test_one_signal_has_no_interval_and_no_votes() -> None:
    one = ecgdiff.diagnose(recording(), classifier=classifier(), conditions="all").to_dict()
    for entry in one["conditions"]:
        assert entry["low"] is entry["high"] is entry["votes"] is None
        assert entry["probability"] is not None and entry["reading"] != "undecided"
    assert one["draws"] == 1 and one["level"] == 0.9 and one["reached"] is None
    gains = [0.3, 0.4, 0.5, 0.6, 0.7]
    five = ecgdiff.diagnose(reconstruction(gains), classifier=classifier(), conditions="all")
    written = five.to_dict()
    assert written["reached"] == pytest.approx(2 / 3, abs=1e-5)
    assert "67% interval" in repr(five)
    for entry, p in zip(written["conditions"], five.probability.T, strict=True):
        assert [entry["low"], entry["high"]] == pytest.approx([p.min(), p.max()], abs=1e-5)
        assert entry["votes"] is not None


def test_notes_of_the_quality_gate_are_kept() -> None:
    negative = recording(("I",))
    negative = replace(negative, signal=-negative.signal)
    notes = [f.message for f in check(negative).findings]
    one = Classifier(First(), ("I",), ("A",), 100.0, 1000, 0.1, thresholds={"youden": HALF})
    found = ecgdiff.diagnose(negative, classifier=one, conditions=["A"])
    assert notes and found.meta["warnings"] == notes


def test_requests_that_make_no_sense_are_explained() -> None:
    with pytest.raises(TypeError, match=r"got a str; read a file with ecgdiff\.read"):
        ecgdiff.diagnose("watch.csv")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no statement 'RBBB'; it knows RIGHT, LEFT"):
        ecgdiff.diagnose(recording(), classifier=classifier(), conditions=["RBBB"])
    with pytest.raises(ValueError, match=r"'RBBB' \(.* is CRBBB, .* is IRBBB\); it knows 1AVB"):
        ecgdiff.diagnose(recording(), conditions=["RBBB"])
    with pytest.raises(ValueError, match="no rule 'best'"):
        ecgdiff.diagnose(recording(), classifier=classifier(), rule="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="between 0 and 1"):
        ecgdiff.diagnose(recording(), classifier=classifier(), level=90)


def test_what_a_model_drew_is_not_read_as_a_recording() -> None:
    invented = recording(provenance=("measured",) * 6 + ("synthetic",) * 6)
    with pytest.raises(OperatorError, match=r"V1, V2, V3, V4, V5, V6 are synthetic.*no evidence"):
        ecgdiff.diagnose(invented, classifier=classifier(), conditions="all")


def test_small_probabilities_are_told_from_zero() -> None:
    assert [_shown(v) for v in (0.0, 4e-5, 6e-5, 0.0099, 0.0123)] == [
        "0.000",
        "<0.0001",
        "0.0001",
        "0.0099",
        "0.012",
    ]


def test_the_estimator_calibrates_on_other_records() -> None:
    estimator = StatementEstimator(classifier())
    gains = RNG.uniform(0.1, 0.7, 400)
    X = np.stack([derive_12(beats(gain)) for gain in gains])
    logits = estimator._network.logits(X)
    y = (RNG.random((400, 2)) < 1 / (1 + np.exp(-logits / 3))).astype(int)
    fitted = clone(estimator).fit(X, y)
    assert fitted.temperature_ == pytest.approx(3, rel=0.4)
    assert estimator.temperature_ == 1.0
    np.testing.assert_array_equal(
        fitted.predict(X), fitted.predict_proba(X) >= fitted.thresholds_["youden"]
    )
    again = ecgdiff.diagnose(recording(), classifier=fitted.calibrated(), conditions="all")
    assert again.thresholds.tolist() == fitted.thresholds_["youden"].tolist()
    signal = derive_12(beats()) - baseline(derive_12(beats()), 100.0)
    np.testing.assert_allclose(again.probability, fitted.predict_proba(signal[None]), rtol=1e-3)
    with pytest.raises(ValueError, match=r"needs \(400, 2\)"):
        estimator.fit(X, y[:, :1])
