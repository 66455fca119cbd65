"""Training the classifier: it learns, resumes bit for bit, and is exported as it was trained."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from ecgdiff.classifier import load_classifier
from ecgdiff.data.statements import STATEMENTS
from ecgdiff.lightning import export_classifier, labelled
from ecgdiff.lightning.classifier import StatementClassifier
from ecgdiff.lightning.labelled import LabelledPTBXL

pytestmark = [
    # Lightning's own remarks on loaders without workers and short epochs.
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.usefixtures("one_thread"),
]
LEADS = ("I", "V1")
FAST = STATEMENTS.index("STACH")


Folds = list[tuple[int, ...]]


def made_up() -> tuple[torch.Tensor, torch.Tensor, int]:
    """Sixty waves in two leads; those that oscillate fast carry one statement."""
    rng = np.random.default_rng(0)
    fast = rng.random(60) < 0.5
    phase = rng.uniform(0, 6, (60, 1, 1))
    speed = np.where(fast, 0.6, 0.2)[:, None, None]
    waves = 300 * np.sin(speed * np.arange(120) + phase) * np.array([[1.0], [0.7]])
    labels = np.zeros((60, len(STATEMENTS)), np.uint8)
    labels[:, FAST] = fast
    return torch.from_numpy(waves.astype(np.int16)), torch.from_numpy(labels), 0


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Folds:
    """The folds that were asked of PTB-XL, in whose place waves are made up."""
    found: Folds = []

    def load(root: str, folds: Iterable[int], leads: object) -> Any:
        found.append(tuple(folds))
        return made_up()

    monkeypatch.setattr(labelled, "load_labelled_set", load)
    monkeypatch.setattr(export_classifier, "load_labelled_set", load)
    return found


def model(steps: int) -> StatementClassifier:
    torch.manual_seed(1)
    return StatementClassifier(leads=LEADS, scale=0.2, crop=60, total_steps=steps)


def data() -> LabelledPTBXL:
    return LabelledPTBXL(root="", leads=LEADS, batch_size=20, steps_per_epoch=3)


def trainer(folder: Path, steps: int) -> pl.Trainer:
    saver = pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)
    return pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=[saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def test_a_resumed_run_is_the_same_run_bit_for_bit(tmp_path: Path) -> None:
    straight = model(6)
    trainer(tmp_path / "a", 6).fit(straight, data())
    trainer(tmp_path / "b", 4).fit(model(6), data())
    saved = next((tmp_path / "b").glob("*step=4.ckpt"))
    resumed = model(6)
    torch.manual_seed(99)  # global randomness must not matter
    trainer(tmp_path / "c", 6).fit(resumed, data(), ckpt_path=str(saved), weights_only=True)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_learns_and_is_exported_as_it_was_trained(tmp_path: Path, asked: Folds) -> None:
    net, run = model(60), trainer(tmp_path, 60)
    run.fit(net, data())
    saved = next(tmp_path.glob("*step=60.ckpt"))
    asked.clear()
    config = export_classifier.export(saved, "", "tiny", tmp_path / "out")
    assert asked == [(9,)]  # never the test fold
    assert config["training"]["folds"] == list(range(1, 9))
    assert config["validation"]["macro_auroc"] > 0.95
    classifier = load_classifier(tmp_path / "out")
    samples, labels, _ = made_up()
    p = classifier.probabilities(samples.numpy() / 1000, LEADS)
    made = labels[:, FAST].numpy() == 1
    assert p[made, FAST].mean() > 0.6 > 0.4 > p[~made, FAST].mean()
    at = classifier.thresholds["youden"]
    assert ((p[:, FAST] >= at[FAST]) == made).mean() > 0.95
    assert np.isnan(np.delete(at, FAST)).all()  # never made: no threshold
    with torch.no_grad():
        windows = torch.stack([samples[..., k : k + 60] for k in (0, 30, 60)], 1).flatten(0, 1)
        logits = net.eval().net(windows / 200.0).unflatten(0, (60, 3)).numpy()
    combined = logits.max(1) if classifier.aggregate == "max" else logits.mean(1)
    read = classifier.logits(samples.numpy() / 1000, LEADS)
    np.testing.assert_allclose(read, combined, atol=0.05)  # half precision


def test_records_of_a_step_come_with_their_statements(asked: Folds) -> None:
    rows = LabelledPTBXL(root="", leads=LEADS, batch_size=20)
    rows.setup("fit")
    assert asked == [(1, 2, 3, 4, 5, 6, 7, 8), (9,)]
    samples, labels = rows.labelled_batch(7)
    assert torch.equal(labels[:, FAST].bool(), samples[:, 0].float().diff().abs().amax(-1) > 120)
