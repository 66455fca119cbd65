"""Lightning's command lines for the models of this package.

ecgdiff-train fit -c training/prior_small.yaml --data.root PTBXL_FOLDER
ecgdiff-train-classifier fit -c training/classifier.yaml --data.root PTBXL_FOLDER
ecgdiff-train-unet fit -c training/unet.yaml --data.root PTBXL_FOLDER
"""

try:
    import jsonargparse  # noqa: F401
    from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
except ImportError as error:
    # These are commands: a user without the extra is told, not shown a traceback.
    raise SystemExit(
        f"Training needs more packages ({error}): pip install 'ecgdiff[train]'"
    ) from error

from ecgdiff.lightning.bfloat16 import warn_if_slow
from ecgdiff.lightning.classifier import StatementClassifier
from ecgdiff.lightning.datamodule import PTBXLDataModule
from ecgdiff.lightning.labelled import LabelledPTBXL
from ecgdiff.lightning.prior import DiffusionPrior
from ecgdiff.lightning.regression import UNetRegression

__all__ = ["classifier", "main", "unet"]


class TrainCLI(LightningCLI):
    """Ties what must agree between model and trainer."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The learning rate comes down with the training, and one seed decides everything."""
        parser.link_arguments("trainer.max_steps", "model.total_steps")
        parser.link_arguments("seed_everything", "model.seed")
        parser.link_arguments("seed_everything", "data.seed")

    def before_fit(self) -> None:
        """The recipes ask for bfloat16, which some processors do not have."""
        warn_if_slow(self.trainer)


class ClassifierCLI(TrainCLI):
    """Ties, besides, the leads that are loaded to those that are read."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """One list of leads for both."""
        super().add_arguments_to_parser(parser)
        parser.link_arguments("data.leads", "model.leads")


def main(args: list[str] | None = None) -> None:
    """Runs `ecgdiff-train`."""
    TrainCLI(
        DiffusionPrior,
        PTBXLDataModule,
        seed_everything_default=0,
        args=args,
        save_config_kwargs={"overwrite": True},
    )


def classifier(args: list[str] | None = None) -> None:
    """Runs `ecgdiff-train-classifier`."""
    ClassifierCLI(
        StatementClassifier,
        LabelledPTBXL,
        seed_everything_default=0,
        args=args,
        save_config_kwargs={"overwrite": True},
    )


def unet(args: list[str] | None = None) -> None:
    """Runs `ecgdiff-train-unet`."""
    TrainCLI(
        UNetRegression,
        PTBXLDataModule,
        seed_everything_default=0,
        args=args,
        save_config_kwargs={"overwrite": True},
    )


if __name__ == "__main__":
    main()
