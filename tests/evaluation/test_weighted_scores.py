"""Scores of weighted records: a record of weight two is two records, and variances are numpy's."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ecgdiff.evaluation.weighted_scores import weighted_scores

RECORDS, LEADS, DRAWS = 7, 3, 4
NAMES = ("crps", "coverage_90", "rmse_draw_lead", "mse_mean", "variance", "variance_true")


@pytest.fixture
def table() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    out = {name: rng.random((RECORDS, LEADS)) for name in NAMES}
    out |= {name: rng.random(RECORDS) for name in ("rmse_draw", "rmse_mean")}
    # Far from zero, where a mean square less a squared mean would lose digits.
    out["amplitude_true"] = 1e4 + rng.random((RECORDS, LEADS))
    out["amplitude_mean"] = 1e4 + rng.random((RECORDS, LEADS))
    out["amplitude_draws"] = 1e4 + rng.random((RECORDS, DRAWS, LEADS))
    return out


def test_a_record_of_weight_two_is_two_records(table: dict[str, np.ndarray]) -> None:
    counts = np.array([[2, 0, 1, 1, 0, 3, 0], [1, 1, 1, 1, 1, 1, 1]])
    together = weighted_scores(table, counts)
    for row, times in enumerate(counts):
        index = np.repeat(np.arange(RECORDS), times)
        repeated = {name: values[index] for name, values in table.items()}
        alone = weighted_scores(repeated, np.ones((1, len(index))))
        assert alone.keys() == together.keys()
        for name, values in alone.items():
            assert_allclose(together[name][row], values[0], rtol=1e-9, err_msg=name)


def test_scores_are_their_definitions(table: dict[str, np.ndarray]) -> None:
    scores = {name: v[0] for name, v in weighted_scores(table, np.ones((1, RECORDS))).items()}
    truth = table["amplitude_true"].var(axis=0)
    expected = {
        "lead/crps": table["crps"].mean(axis=0),
        "crps": table["crps"].mean(),
        "rmse_draw": table["rmse_draw"].mean(),
        "lead/rmse_mean": np.sqrt(table["mse_mean"]).mean(axis=0),
        "lead/amplitude_ratio_mean": table["amplitude_mean"].var(axis=0) / truth,
        "lead/amplitude_ratio": (table["amplitude_draws"].var(axis=0) / truth).mean(axis=0),
        "lead/explained": 1 - table["mse_mean"].mean(axis=0) / table["variance_true"].mean(axis=0),
        "explained": 1 - table["mse_mean"].mean() / table["variance_true"].mean(),
        "spread_skill": np.sqrt(
            (DRAWS + 1) / DRAWS * table["variance"].mean() / table["mse_mean"].mean()
        ),
    }
    for name, value in expected.items():
        assert_allclose(scores[name], value, rtol=1e-7, err_msg=name)
    assert scores["amplitude_ratio"] == pytest.approx(scores["lead/amplitude_ratio"].mean())


def test_no_ratio_to_a_variance_that_is_none(table: dict[str, np.ndarray]) -> None:
    one_patient = np.zeros((1, RECORDS))
    one_patient[0, 2] = 4.0
    table["variance_true"][2, 1] = 0.0
    scores = weighted_scores(table, one_patient)
    assert np.isnan(scores["lead/amplitude_ratio"]).all()
    assert np.isnan(scores["lead/explained"]).tolist() == [[False, True, False]]
    assert np.isfinite(scores["explained"]).all()
