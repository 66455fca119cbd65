"""The classifiers that are shipped are those of the committed figures, and good enough."""

import json
from pathlib import Path
from typing import Any

import pytest

from ecgdiff.classifier import classifier_names, load_classifier
from ecgdiff.data.statements import CONDITIONS, STATEMENTS

FIGURES = Path(__file__).parents[1] / "results" / "classifier" / "classifier.json"
# Asked of the twelve-lead classifier on fold 10: so much on average over the 71 statements, and no
# further from these than the margin, in either direction.
MACRO_AUROC = 0.915
AUROC = {"CRBBB": 0.997, "CLBBB": 0.998, "AFIB": 0.986, "SBRAD": 0.946}
MARGIN = 0.01


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return json.loads(FIGURES.read_text(encoding="utf-8"))


def test_the_figures_are_of_the_weights_that_are_shipped(figures: dict[str, Any]) -> None:
    assert classifier_names() == ["default", "lead_I"]
    assert set(figures["models"]) == set(figures["results"]) == {"default", "lead_I"}
    for name in classifier_names():
        shipped = load_classifier(name)  # which compares the weights with their checksum
        assert figures["models"][name] == shipped.config["sha256"]
        assert figures["temperature"][name] == shipped.temperature
        assert shipped.classes == STATEMENTS


def test_the_default_classifier_is_where_it_was_asked_to_be(figures: dict[str, Any]) -> None:
    assert (figures["fold"], figures["records"]) == (10, 2198)
    found = figures["results"]["default"]
    assert found["macro_auroc"]["value"] >= MACRO_AUROC
    assert list(AUROC) == list(CONDITIONS) == list(figures["positives"])
    assert found["auroc"]["value"] == pytest.approx(list(AUROC.values()), abs=MARGIN)
