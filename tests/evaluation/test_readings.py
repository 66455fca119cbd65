"""Table 5: who has a condition, by method, on made-up rows with known answers."""

import numpy as np
import pytest
from torch import Tensor, nn

from ecgdiff.classifier import Classifier
from ecgdiff.data.statements import CONDITIONS
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.errors import DataError
from ecgdiff.evaluation.bootstrap import replicates
from ecgdiff.evaluation.diagnosis import aurocs, average_precisions, balanced_accuracies
from ecgdiff.evaluation.readings import (
    DIFFERENCES,
    control_rows,
    figures,
    own_thresholds,
    tables,
)
from ecgdiff.evaluation.tasks import BlockTask, Case, LeadTask

RNG = np.random.default_rng(0)
RECORDS = 60
MADE = RNG.random((RECORDS, 4)) < 0.3
HALF = {rule: np.full(4, 0.5) for rule in ("youden", "f1")}


def rows(scores: np.ndarray) -> list[dict[str, object]]:
    return [
        {
            "task": "leads",
            "method": "m",
            "ecg_id": k,
            "patient_id": k // 2,
            "weight": 1.0 + k % 3,
            "statements": [code for code, made in zip(CONDITIONS, MADE[k], strict=True) if made],
            "probabilities": {"mean": dict(zip(CONDITIONS, scores[k].tolist(), strict=True))},
        }
        for k in range(RECORDS)
    ]


PERFECT = rows(np.where(MADE, 0.9, 0.1))
GUESS = rows(RNG.random((RECORDS, 4)))
METHODS = {"perfect": PERFECT, "guess": GUESS}


def test_perfect_and_guessed_probabilities_are_told_apart() -> None:
    found = figures(METHODS, dict.fromkeys(METHODS, HALF), {}, "perfect", resamples=50)
    assert found["perfect"]["auroc"]["value"] == [1.0] * 4
    assert found["perfect"]["youden"]["value"] == [1.0] * 4
    np.testing.assert_allclose(found["perfect"]["brier"]["value"], 0.01)
    np.testing.assert_allclose(found["perfect"]["ece"]["value"], 0.1)
    for k in range(4):
        entry = found["guess"]["auroc"]
        assert entry["low"][k] <= entry["value"][k] <= entry["high"][k]
        difference = found["guess"]["auroc less reference"]
        assert difference["value"][k] == pytest.approx(entry["value"][k] - 1)
        assert difference["high"][k] < 0
    assert found["perfect"]["auroc less reference"]["value"] == [0.0] * 4
    assert not any("real ECG" in key for key in found["guess"])


def test_differences_are_paired_over_patients() -> None:
    """Against each score by brute force, replicate by replicate; thresholds differ by rule."""
    blur = np.where(MADE, 0.65, 0.35) + np.random.default_rng(1).uniform(-0.3, 0.3, MADE.shape)
    made = {"real ECG": rows(blur), "guess": GUESS, "perfect": PERFECT}
    chosen = {"youden": np.full(4, 0.4), "f1": np.full(4, 0.6)}
    found = figures(made, dict.fromkeys(made, chosen), {}, "perfect", resamples=15)
    labels, w = MADE.astype(int), np.array([row["weight"] for row in GUESS], float)
    score = {
        "auroc": lambda y, p, w: aurocs(y, p, w),
        "average_precision": lambda y, p, w: average_precisions(y, p, w),
        "youden": lambda y, p, w: balanced_accuracies(y, p, chosen["youden"], w),
        "f1": lambda y, p, w: balanced_accuracies(y, p, chosen["f1"], w),
    }
    p = {
        name: np.array([list(row["probabilities"]["mean"].values()) for row in these])  # type: ignore[attr-defined]
        for name, these in made.items()
    }
    drawn = [np.arange(RECORDS), *replicates([k // 2 for k in range(RECORDS)], 15)]
    for key in DIFFERENCES:
        for kind, base in (("real ECG", "real ECG"), ("reference", "perfect")):
            change = [
                score[key](labels[at], p["guess"][at], w[at])
                - score[key](labels[at], p[base][at], w[at])
                for at in drawn
            ]
            entry = found["guess"][f"{key} less {kind}"]
            np.testing.assert_allclose(entry["value"], change[0], atol=1e-5)
            low, high = np.quantile(change[1:], [0.025, 0.975], axis=0)
            np.testing.assert_allclose(entry["low"], low, atol=1e-5)
            np.testing.assert_allclose(entry["high"], high, atol=1e-5)


def test_weights_count_records_as_often() -> None:
    found = figures({"guess": GUESS}, {"guess": HALF}, {}, "guess", resamples=2)
    labels = MADE[:, 0]
    p = np.array([row["probabilities"]["mean"][CONDITIONS[0]] for row in GUESS])  # type: ignore[index]
    w = np.array([row["weight"] for row in GUESS])
    sensitivity = (w * (p >= 0.5))[labels].sum() / w[labels].sum()  # type: ignore[operator]
    specificity = (w * (p < 0.5))[~labels].sum() / w[~labels].sum()  # type: ignore[operator]
    assert found["guess"]["youden"]["value"][0] == pytest.approx((sensitivity + specificity) / 2)


def test_own_thresholds_are_those_of_the_method() -> None:
    shifted = rows(np.where(MADE, 0.2, 0.1))
    own = own_thresholds(shifted)
    assert own["youden"].tolist() == own["f1"].tolist() == [0.2] * 4
    found = figures(
        {"shifted": shifted}, {"shifted": HALF}, {"shifted": own}, "shifted", resamples=2
    )
    assert found["shifted"]["youden"]["value"] == [0.5] * 4
    assert found["shifted"]["own youden"]["value"] == [1.0] * 4


def test_own_thresholds_count_records_by_their_weights() -> None:
    repeated = [row for row in GUESS for _ in range(int(row["weight"]))]  # type: ignore[call-overload]
    alike = own_thresholds([{**row, "weight": 1.0} for row in repeated])
    found = own_thresholds(GUESS)
    unweighted = own_thresholds([{**row, "weight": 1.0} for row in GUESS])
    for rule in ("youden", "f1"):
        np.testing.assert_array_equal(found[rule], alike[rule])
    assert any((found[rule] != unweighted[rule]).any() for rule in ("youden", "f1"))


def test_the_table_names_methods_and_gives_intervals() -> None:
    found = figures(METHODS, dict.fromkeys(METHODS, HALF), {}, "perfect", resamples=20)
    made = tables(found, "leads", "perfect")
    assert [t.title for t in made] == [
        *(f"{code}, task leads" for code in CONDITIONS),
        "Differences from `perfect`, task leads",
    ]
    text = made[0].markdown()
    assert "| `perfect` | 1.000 [1.000, 1.000]" in text
    assert "own" not in text


def test_the_tables_of_differences_have_a_row_per_method_and_condition() -> None:
    methods = {"real ECG": PERFECT, **METHODS}
    found = figures(methods, dict.fromkeys(methods, HALF), {}, "guess", resamples=20)
    real, other = tables(found, "leads", "guess")[-2:]
    assert real.title == "Differences from `real ECG`, task leads"
    assert other.title == "Differences from `guess`, task leads"
    assert [line[:2] for line in real.body] == [
        [code, f"`{name}`"] for code in CONDITIONS for name in METHODS
    ]
    assert [line[:2] for line in other.body] == [[code, "`perfect`"] for code in CONDITIONS]
    head = ["AUROC", "AP", "bal. acc., Youden", "bal. acc., F1"]
    assert real.head == other.head == ["condition", "method", *head]
    assert real.body[0][2:] == ["+0.000 [+0.000, +0.000]"] * 4
    for key, there, back in zip(DIFFERENCES, real.body[1][2:], other.body[0][2:], strict=True):
        value = found["perfect"][key]["value"][0] - found["guess"][key]["value"][0]
        assert there.startswith(f"{-value:+.3f} [-") and back.startswith(f"{value:+.3f} [+")


def test_methods_must_have_read_the_same_records() -> None:
    with pytest.raises(DataError, match="guess was read on 59 records, perfect on 60"):
        figures(
            {"perfect": PERFECT, "guess": GUESS[1:]},
            dict.fromkeys(METHODS, HALF),
            {},
            "perfect",
            resamples=2,
        )


class Power(nn.Module):
    """The logarithm of the power of every lead together, for each condition."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square().mean((1, 2)).log()[:, None].expand(-1, 4)


def reader(leads: tuple[str, ...]) -> Classifier:
    return Classifier(Power(), leads, CONDITIONS, 100.0, 64, 1.0)


def test_controls_read_the_real_ecg_what_was_observed_and_lead_one_alone() -> None:
    truth = RNG.normal(0, 1, (8, 128)).astype(np.float32)
    case = Case(7, 8, truth, frozenset({"AFIB"}))
    found = {
        row["method"]: row
        for row in control_rows(
            LeadTask(),
            [case],
            {7: 2.5},
            reader(LEADS_12),
            reader(("I",)),
            seed=0,
            noise=1e-3,
        )
    }
    power = {name: row["probabilities"]["mean"]["AFIB"] for name, row in found.items()}
    odds = {name: p / (1 - p) for name, p in power.items()}
    lead = float(np.log((truth[0, :64] ** 2).mean()) + np.log((truth[0, 32:96] ** 2).mean()))
    lead += float(np.log((truth[0, 64:] ** 2).mean()))
    assert np.log(odds["lead-I classifier"]) == pytest.approx(lead / 3, abs=0.01)
    # One of twelve leads was observed; the others, those that follow from II included, are zero.
    assert odds["observed, else zero"] == pytest.approx(odds["lead-I classifier"] / 12)
    assert odds["real ECG"] > odds["observed, else zero"]
    assert found["real ECG"]["statements"] == ["AFIB"]
    assert found["real ECG"]["weight"] == 2.5


def test_lead_one_alone_is_not_asked_where_more_was_observed() -> None:
    case = Case(7, 8, RNG.normal(0, 1, (8, 128)).astype(np.float32), frozenset())
    found = control_rows(
        BlockTask(crop=128),
        [case],
        {7: 1.0},
        reader(LEADS_12),
        reader(("I",)),
        seed=0,
        noise=1e-3,
    )
    assert [row["method"] for row in found] == ["real ECG", "observed, else zero"]
