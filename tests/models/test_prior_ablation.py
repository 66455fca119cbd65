"""The ablation of priors: networks with losses in closed form, from checkpoint to table.

The head of an untrained network is zero but for the bias b that is given to it here, one number
per lead. In model units, with x the truth and n the noise, an EDM denoiser is then off by
b s / sqrt(1 + s^2) - x s^2 / (1 + s^2) + n s / (1 + s^2), one that predicts the noise by
s (n - b).
"""

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgdiff.classifier import Classifier
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.ecg.leads import LEADS_8, LEADS_9, LEADS_12
from ecgdiff.evaluation.quality_records import FoldRecords
from ecgdiff.lightning import datamodule as data_file
from ecgdiff.lightning.datamodule import PTBXLDataModule
from ecgdiff.lightning.ema import WeightAverages
from ecgdiff.lightning.prior import DiffusionPrior
from ecgdiff.models import sashimi
from ecgdiff.models.xresnet1d import XResNet1d

pytest.importorskip("neurokit2")
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
script = import_module("prior_ablation")

pytestmark = [
    # Lightning's own remarks on loaders without workers and short epochs.
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
]
TINY = {"d_model": 8, "n_layers": 1, "pool": (2,), "state": 8, "t_features": 8, "t_width": 8}
BIAS = np.linspace(0.5, 1.5, 9)  # of the leads, III included
RECORDS, DRAWS = 12, 4
EIGHT = [LEADS_9.index(lead) for lead in LEADS_8]


class Known(NamedTuple):
    """What a run of the test is."""

    objective: str
    channels: int
    scale: float


RUNS = {
    "EDM": Known("edm", 8, 0.236),
    "noise in mV": Known("eps", 8, 1.0),
    "nine leads": Known("edm", 9, 0.236),
    "again": Known("edm", 8, 0.236),
}
ROWS = [(name, weights) for name in RUNS for weights in ("average 0.9", "last step")]


def records() -> FoldRecords:
    """Beats 0.8 s and 1 s apart, high in the middle of a record; III is no II - I but garbage."""
    generator = np.random.default_rng(0)
    at = np.cumsum(np.tile([80, 100], 5)) - 30 + generator.integers(0, 20, (RECORDS, 1))
    samples = np.arange(1000)
    beats = np.exp(-(((samples - at[..., None]) / 3) ** 2) / 2).sum(axis=1)
    beats *= 1 + 2 * np.exp(-(((samples - 500) / 100) ** 2))
    signal = (beats[:, None] * np.linspace(0.5, 2.0, 9)[:, None]).astype(np.float32)
    signal[:, 2] = 50 * generator.standard_normal((RECORDS, 1000))
    return FoldRecords(signal, np.arange(RECORDS), np.arange(RECORDS) // 2)


class FakeFolds:
    """Fold 9 in place of PTB-XL."""

    def __init__(self, root: str, leads: Any) -> None:
        assert tuple(leads) == LEADS_9

    def read(self, fold: int) -> FoldRecords:
        assert fold == 9
        return records()


class Few(XResNet1d):
    """Four features instead of 512, so that few records are enough."""

    def features(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, k].square().mean(-1).sqrt() for k in (0, 1, 6, 10)], dim=1)


def train(known: Known, path: Path, limit: str | None) -> float:
    """One step at rate zero: the average keeps the head at zero, the last weights get a bias."""
    settings: dict[str, Any] = {**known._asdict(), "lr": 0.0, "warmup": 1, "total_steps": 4}
    begin = time.monotonic()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        max_time=limit,
        callbacks=[WeightAverages([0.9, 0.99])],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    module = DiffusionPrior(**settings)
    trainer.fit(module, PTBXLDataModule(root=str(known.channels), batch_size=8, steps_per_epoch=1))
    with torch.no_grad():
        module.net.output.bias.copy_(torch.from_numpy(bias(known)))
    trainer.save_checkpoint(path)
    return time.monotonic() - begin


def bias(known: Known) -> NDArray[np.float64]:
    return BIAS if known.channels == 9 else BIAS[EIGHT]


class Outcome(NamedTuple):
    """What the script wrote, and how long the first training took at most."""

    document: dict[str, Any]
    table: list[list[str]]
    seconds: float


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Outcome:
    folder, threads = tmp_path_factory.mktemp("ablation"), torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # Lightning's own kind of name, with "=" in it.
    paths = {
        known: folder / f"run={k}.ckpt" for k, known in enumerate(dict.fromkeys(RUNS.values()))
    }
    net = Few(12, 3, layers=(1,)).eval()
    classifier = Classifier(net, LEADS_12, ("a", "b", "c"), 100.0, 250, 0.236, config={})
    numbers = f"--records 100 --draws {DRAWS} --steps 4"
    runs = [text for name, known in RUNS.items() for text in ("--run", f"{name}={paths[known]}")]
    command = ["prior_ablation.py", "--root", "", *runs, *numbers.split(), "--out", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sashimi.PRESETS, "small", TINY)
        patch.setattr(data_file, "load_fold_set", noise)
        patch.setattr(script, "Folds", FakeFolds)
        patch.setattr(script, "load_classifier", lambda name: classifier)
        patch.setattr(sys, "argv", command)
        limits = {known: "00:00:10:00" if known == RUNS["EDM"] else None for known in paths}
        seconds = {known: train(known, path, limits[known]) for known, path in paths.items()}
        script.main()
    text = (folder / "ablation.json").read_text(encoding="utf-8")
    lines = (folder / "ablation.md").read_text(encoding="utf-8").splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return Outcome(json.loads(text, parse_constant=refused), table, seconds[RUNS["EDM"]])


def noise(root: str, *_: object) -> tuple[Tensor, int]:
    """Records to train on, of as many leads as the root says."""
    return torch.randint(-500, 500, (16, int(root), 64), dtype=torch.int16), 0


def refused(constant: str) -> None:
    pytest.fail(f"{constant} is no JSON")


def truth(known: Known, weights: str, window: slice) -> tuple[list[float], list[float]]:
    """The losses per level and their standard errors over the noise."""
    losses, errors = [], []
    x = records().signal[:, EIGHT, window].astype(np.float64) / known.scale
    b = (BIAS[EIGHT] if weights == "last step" else np.zeros(8))[:, None]
    schedule = Schedule.linear()
    for level in script.LEVELS:
        s = float(schedule.sigma(schedule.index(level / known.scale)))
        still, moving = -s * np.broadcast_to(b, x.shape), s
        if known.objective == "edm":
            still = b * s / np.sqrt(1 + s**2) - x * s**2 / (1 + s**2)
            moving = s / (1 + s**2)
        weight = known.scale**2 * (1 / 0.236**2 + 1 / (s * known.scale) ** 2)
        power = np.mean(still**2)
        losses.append(weight * (power + moving**2))
        variance = 4 * power * moving**2 + 2 * moving**4
        errors.append(weight * np.sqrt(variance / x.size))
    return losses, errors


@pytest.mark.parametrize(("name", "weights"), ROWS)
def test_losses_are_the_closed_form_on_eight_leads(
    outcome: Outcome, name: str, weights: str
) -> None:
    row = outcome.document["runs"][ROWS.index((name, weights))]
    assert (row["run"], row["weights"], row["steps"]) == (name, weights, 1)
    assert outcome.document["levels_mv"] == pytest.approx(
        [0.0236, 0.0708, 0.236, 0.708, 2.36, 7.08]
    )
    expected, errors = truth(RUNS[name], weights, slice(None))
    for found, loss, error in zip(row["loss"], expected, errors, strict=True):
        assert abs(found["value"] - loss) < 4 * error
    assert row["loss_mean"]["value"] == pytest.approx(np.mean([v["value"] for v in row["loss"]]))
    # The middle 2.56 s are samples 372 to 627; noise of the levels is independent.
    expected, errors = truth(RUNS[name], weights, slice(372, 628))
    error = np.sqrt(np.square(errors).sum()) / len(errors)
    assert abs(row["loss_short"]["value"] - np.mean(expected)) < 4 * error
    for found in (*row["loss"], row["loss_mean"], row["loss_short"]):
        assert found["low"] < found["value"] < found["high"]


def test_differences_are_paired_with_the_first_row(outcome: Outcome) -> None:
    first, *others = outcome.document["runs"]
    kinds = ("", "_mean", "_short")
    assert [first[f"difference{kind}"] for kind in kinds] == [[], None, None]
    for row in others:
        for kind in kinds:
            found, loss, base = (
                np.atleast_1d(r)
                for r in (row[f"difference{kind}"], row[f"loss{kind}"], first[f"loss{kind}"])
            )
            for d, a, b in zip(found, loss, base, strict=True):
                assert d["value"] == pytest.approx(a["value"] - b["value"], abs=1e-9)
    # The same weights again, and the same denoiser with a ninth lead: their noise is the same.
    for row in (others[5], others[3]):
        assert row["weights"] == first["weights"]
        for d in (*row["difference"], row["difference_mean"], row["difference_short"]):
            assert d == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_intervals_are_those_of_means_over_levels_and_patients() -> None:
    """What levels lose and gain in the same record is no uncertainty of their mean."""
    values = np.random.default_rng(1).standard_normal(200)
    losses = np.array([[values, 3 - values], [values, values]])
    found = script.summary("loss", losses, np.arange(200))
    half = 1.96 * values.std() / np.sqrt(200)
    for d, mean in zip(found["loss"], (values.mean(), 3 - values.mean()), strict=True):
        assert d["value"] == pytest.approx(mean)
        assert [mean - d["low"], d["high"] - mean] == pytest.approx([half, half], rel=0.15)
    assert list(found["loss_mean"].values()) == pytest.approx([1.5] * 3)
    short = found["loss_short"]
    assert short["high"] - short["low"] == pytest.approx(2 * half, rel=0.1)
    one = script.summary("loss", losses, np.zeros(200, np.int64))["loss_short"]
    assert list(one.values()) == pytest.approx([values.mean()] * 3)


def test_draws_of_a_zero_head_are_white_noise(outcome: Outcome) -> None:
    """It is the exact denoiser of N(0, I): III - II + I has three times the power of III."""
    first, nine = outcome.document["runs"][0], outcome.document["runs"][4]
    assert first["einthoven_error"] is None
    assert nine["einthoven_error"] == pytest.approx(np.sqrt(3), rel=0.06)
    assert (nine["without_beats"], nine["rr_variation_percent"]) == (DRAWS, None)
    # Intervals of 0.8 s and 1 s in turn.
    variation = outcome.document["fold9"]["rr_variation_percent"]
    assert variation == pytest.approx(100 / 9, rel=0.15)


def test_the_table_has_a_row_per_run_and_weights(outcome: Outcome) -> None:
    heads, _, *rows = outcome.table
    assert {len(cells) for cells in outcome.table} == {2 + 6 + 2 + 4}
    assert [tuple(cells[:2]) for cells in rows] == [*ROWS, ("fold 9", "-")]
    assert heads[8:10] == ["mean of levels", "loss of 2.56 s, mean of levels"]
    for k, row in enumerate(outcome.document["runs"]):
        kind, sign = ("difference", "+") if k else ("loss", "")
        for at, name in ((8, f"{kind}_mean"), (9, f"{kind}_short")):
            v = row[name]
            numbers = [f"{v[key]:{sign}.3f}" for key in ("value", "low", "high")]
            assert rows[k][at] == "{} [{}, {}]".format(*numbers)
    assert rows[0][-2:] == ["-", "-"] and rows[4][-1].endswith(" %")


def test_seconds_are_recorded_where_a_timer_ran(outcome: Outcome) -> None:
    timed = [row for row in outcome.document["runs"] if "train_seconds" in row]
    assert [row["run"] for row in timed] == ["EDM", "EDM", "again", "again"]
    assert all(0 < row["train_seconds"] < outcome.seconds for row in timed)


def test_a_run_needs_a_name_and_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--root", "", "--out", "", "--run", "last.ckpt"])
    with pytest.raises(SystemExit):
        script.main()
    assert "give NAME=CHECKPOINT, got last.ckpt" in capsys.readouterr().err
