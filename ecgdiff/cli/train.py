"""`ecgdiff-train`: Lightning's command line for the models of this package.

ecgdiff-train fit -c training/prior_small.yaml --data.root PTBXL_FOLDER
"""

from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from ecgdiff.lightning.datamodule import PTBXLDataModule
from ecgdiff.lightning.prior import DiffusionPrior

__all__ = ["main"]


class PriorCLI(LightningCLI):
    """Ties what must agree between model and trainer."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The learning rate comes down with the training, and one seed decides everything."""
        parser.link_arguments("trainer.max_steps", "model.total_steps")
        parser.link_arguments("seed_everything", "model.seed")
        parser.link_arguments("seed_everything", "data.seed")


def main(args: list[str] | None = None) -> None:
    """Runs `ecgdiff-train`."""
    PriorCLI(
        DiffusionPrior,
        PTBXLDataModule,
        seed_everything_default=0,
        args=args,
        save_config_kwargs={"overwrite": True},
    )


if __name__ == "__main__":
    main()
