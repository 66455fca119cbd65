"""The classifier: leads by name, units, windows, calibration, and what its folder must hold."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ecgdiff.classifier import Classifier, load_classifier
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.errors import CheckpointError
from ecgdiff.models.checkpoint import save_checkpoint
from ecgdiff.models.xresnet1d import XResNet1d

RNG = np.random.default_rng(0)
SIGNAL = RNG.normal(0, 0.2, (3, 12, 27)).astype(np.float32)


class Means(nn.Module):
    """Logits that can be computed by hand: the mean of each lead."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(-1)


def means(**settings: object) -> Classifier:
    fixed = {"leads": ("V1", "I"), "classes": ("A", "B"), "sampling_rate": 100.0}
    return Classifier(Means(), crop=8, scale=0.25, **{**fixed, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize(("aggregate", "function"), [("mean", np.mean), ("max", np.max)])
def test_windows_of_the_right_leads_are_read_in_model_units(
    aggregate: str, function: object
) -> None:
    rows = [LEADS_12.index("V1"), LEADS_12.index("I")]
    windows = [SIGNAL[:, rows, at : at + 8].mean(-1) / 0.25 for at in (0, 4, 8, 12, 16, 19)]
    wanted = function(windows, axis=0)  # type: ignore[operator]
    classifier = means(aggregate=aggregate, temperature=2.0)
    np.testing.assert_allclose(classifier.logits(SIGNAL), wanted, atol=1e-6)
    np.testing.assert_allclose(
        classifier.probabilities(SIGNAL), 1 / (1 + np.exp(-wanted / 2)), atol=1e-6
    )


def test_leads_are_picked_by_name() -> None:
    order = RNG.permutation(12)
    names = [LEADS_12[k] for k in order]
    np.testing.assert_array_equal(means().logits(SIGNAL[:, order], names), means().logits(SIGNAL))


def test_many_signals_are_read_as_one_by_one() -> None:
    many = RNG.normal(size=(70, 12, 9)).astype(np.float32)
    alone = np.concatenate([means().logits(signal[None]) for signal in many])
    np.testing.assert_allclose(means().logits(many), alone, atol=1e-6)
    assert means().logits(many[:0]).shape == (0, 2)


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="V1 is missing"):
        means().logits(SIGNAL[:, :1], ["I"])
    lost = SIGNAL.copy()
    lost[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="reconstruct it first"):
        means().logits(lost)
    with pytest.raises(ValueError, match="7 samples"):
        means().logits(SIGNAL[..., :7])


def save(folder: Path, **changes: object) -> XResNet1d:
    net = XResNet1d(12, 2).eval()
    config = {
        "name": "tiny",
        "classes": ["A", "B"],
        "names": {"A": "a", "B": "b"},
        "leads": list(LEADS_12),
        "sampling_rate_hz": 100.0,
        "crop": 250,
        "scale_mv": 0.236,
        "aggregate": "mean",
        "temperature": 1.5,
        "thresholds": {"youden": [0.2, None]},
    }
    save_checkpoint(folder, {**config, **changes}, net.state_dict(), "card")
    return net


def test_a_checkpoint_gives_the_classifier_back(tmp_path: Path) -> None:
    net = save(tmp_path)
    classifier = load_classifier(tmp_path)
    signal = RNG.normal(0, 0.2, (2, 12, 250)).astype(np.float32)
    with torch.no_grad():
        logits = net(torch.from_numpy(signal / np.float32(0.236))).double().numpy()
    wanted = 1 / (1 + np.exp(-logits / 1.5))
    np.testing.assert_allclose(classifier.probabilities(signal), wanted, rtol=1e-5)
    assert classifier.thresholds["youden"][0] == 0.2
    assert np.isnan(classifier.thresholds["youden"][1])


def test_folders_that_make_no_classifier_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no classifier"):
        load_classifier(tmp_path / "absent")
    save(tmp_path / "leads", leads=["I"])
    with pytest.raises(CheckpointError, match="do not make a classifier"):
        load_classifier(tmp_path / "leads")
    save(tmp_path / "short")
    config = tmp_path / "short" / "config.json"
    kept = json.loads(config.read_text())
    del kept["temperature"]
    config.write_text(json.dumps(kept))
    with pytest.raises(CheckpointError, match="temperature"):
        load_classifier(tmp_path / "short")
