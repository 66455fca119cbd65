"""The training recipes: each is accepted by the command that it names, and says what it trains."""

import re
import sys
from pathlib import Path

import pytest
from pytorch_lightning.cli import LightningCLI

from ecgdiff.cli import train

# Lightning still calls its argument parser by older names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FOLDER = Path(__file__).parents[2] / "training"
COMMANDS = {
    "ecgdiff-train": train.main,
    "ecgdiff-train-classifier": train.classifier,
    "ecgdiff-train-unet": train.unet,
}
RECIPES = sorted(p.name for p in FOLDER.glob("*.yaml") if not p.name.startswith("window_"))


def parsed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, command: str, *files: str
) -> LightningCLI:
    """What a command makes of files, without training."""
    found: list[LightningCLI] = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [command])
    monkeypatch.setattr(
        LightningCLI, "_run_subcommand", lambda self, subcommand: found.append(self)
    )
    options = [word for file in files for word in ("-c", str(FOLDER / file))]
    COMMANDS[command](["fit", *options, "--data.root", "PTBXL", "--trainer.accelerator", "cpu"])
    return found[0]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_accepted_by_the_command_in_its_first_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: str
) -> None:
    text = (FOLDER / recipe).read_text(encoding="utf-8")
    named = re.search(r"#   (ecgdiff-train\S*) fit -c training/(\S+) ", text)
    assert named is not None and named[2] == recipe
    cli = parsed(monkeypatch, tmp_path, named[1], recipe)
    assert cli.model.hparams["total_steps"] == cli.trainer.max_steps
    saver = next(c for c in cli.trainer.callbacks if hasattr(c, "_every_n_train_steps"))  # type: ignore[attr-defined]
    assert cli.trainer.max_steps % saver._every_n_train_steps == 0, "the last weights are lost"


@pytest.mark.parametrize(
    ("recipe", "window", "lengths", "millions"),
    [
        ("prior_base.yaml", "window_2s56.yaml", [256], 15.45),
        ("prior_paper.yaml", "window_both.yaml", [1000, 256], 15.44),
        ("prior_small.yaml", "window_both.yaml", [1000, 256], 1.71),
    ],
)
def test_windows_change_the_lengths_alone(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    recipe: str,
    window: str,
    lengths: list[int],
    millions: float,
) -> None:
    whole = parsed(monkeypatch, tmp_path, "ecgdiff-train", recipe).model
    cut = parsed(monkeypatch, tmp_path, "ecgdiff-train", recipe, window).model
    assert cut.hparams.pop("lengths") == lengths
    assert whole.hparams.pop("lengths") == [] and dict(cut.hparams) == dict(whole.hparams)
    count = sum(p.numel() for p in whole.net.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_the_recipe_of_the_paper_is_the_papers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nine leads, noise prediction, Adam at a constant 2e-4 without weight decay."""
    module = parsed(monkeypatch, tmp_path, "ecgdiff-train", "prior_paper.yaml").model
    found = module.configure_optimizers()
    groups = found["optimizer"].param_groups
    assert {(g["lr"], g["betas"], g["weight_decay"]) for g in groups} == {
        (2e-4, (0.9, 0.999), 0.0)
    }
    assert [module.rate(k) for k in (0, 1, 149_999)] == [1.0, 1.0, 1.0]
    assert (module.hparams["objective"], module.hparams["channels"]) == ("eps", 9)
