"""A trained prior with everything that its use needs: units, leads, rate, preprocessing.

A `Prior` ties a denoiser, which knows only tensors, to ECGs: its configuration says which leads it
models, at which rate, how a millivolt becomes a model unit and what was filtered away. Nothing of
that is left to the caller.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.diffusion.denoiser import Denoiser, EpsDenoiser, NetworkDenoiser
from ecgdiff.diffusion.inpainting import InpaintingDenoiser
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.errors import CheckpointError, OperatorError
from ecgdiff.models.autocast import Autocast
from ecgdiff.models.checkpoint import checkpoint_names, find_checkpoint, load_checkpoint
from ecgdiff.models.sashimi import SaShiMi
from ecgdiff.samplers.base import Sampler
from ecgdiff.samplers.conditional import Conditional

__all__ = ["Prior", "load_network", "load_prior", "needed_prior", "prior_folder", "prior_names"]

_EMBEDDED = Path(__file__).parent / "priors"

# Those patterns of ecgdiff.lightning.masks in which a whole lead is lost and another is not.
_LOSE_LEADS = frozenset({"first", "leads", "mixed"})


@dataclass(frozen=True, eq=False)
class Prior:
    """Creates a prior over windows of an ECG.

    Arguments:
        denoiser: The denoiser, on tensors (batch, leads, n_samples) in model units.
        leads: Names and order of its channels.
        sampling_rate: In Hz.
        n_samples: Length of a window.
        scale: mV per model unit.
        name: What to call it in results.
        config: The rest of its configuration: preprocessing, training, checksum.
    """

    denoiser: Denoiser
    leads: tuple[str, ...]
    sampling_rate: float
    n_samples: int
    scale: float
    name: str = "unnamed"
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        """Length of a window in seconds."""
        return self.n_samples / self.sampling_rate

    def check_shown(self, mask: NDArray[np.bool_]) -> None:
        """Makes sure that the network may be shown a recording of which this was measured.

        Arguments:
            mask: True where measured, with shape (leads, time).

        Raises:
            OperatorError: If whole leads are lost and others not, and it was trained on named
                patterns that lose none.
        """
        shown = mask.any(axis=1)
        patterns = self.config.get("training", {}).get("hyperparameters", {}).get("patterns") or ()
        lost = shown.any() and not shown.all()
        if lost and patterns and not _LOSE_LEADS.intersection(patterns):
            raise OperatorError(
                f"The prior {self.name} was trained on the patterns {', '.join(patterns)} only, "
                "which lose no whole lead; take another prior, or a sampler that guides one."
            )


def prior_names() -> list[str]:
    """Lists the priors that come with the package."""
    return checkpoint_names(_EMBEDDED)


def needed_prior(sampler: Sampler) -> str:
    """Names the embedded prior that a sampler needs: `conditional` one that sees observations."""
    return "inpainting" if isinstance(sampler, Conditional) else "default"


def prior_folder(name: str | Path) -> Path:
    """Finds the folder of a prior that comes with the package, or of a path.

    Raises:
        CheckpointError: If there is neither.
    """
    return find_checkpoint(_EMBEDDED, name, "prior")


def load_prior(
    name: str | Path = "default", precision: Literal["float32", "bfloat16"] = "float32"
) -> Prior:
    """Loads a prior that comes with the package, or one from a checkpoint folder.

    Arguments:
        name: A name of :func:`prior_names`, or the path of a folder.
        precision: Of the network's matrix products. bfloat16 is faster where the processor has
            instructions for it and much slower where it has not, and the draws of a seed differ
            between the two.

    Raises:
        CheckpointError: If there is no such prior, or its folder is damaged.
        ValueError: If the precision is neither.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"The precision must be float32 or bfloat16, got {precision!r}.")
    folder = prior_folder(name)
    config, tensors = load_checkpoint(folder)
    spectrum = tensors.pop("covariance.spectrum", None)
    covariance = None if spectrum is None else LeadFrequencyCovariance(spectrum)
    try:
        net = _network(config, tensors)
        return Prior(
            denoiser=_denoiser(net, config["objective"], covariance, precision),
            leads=tuple(config["leads"]),
            sampling_rate=float(config["sampling_rate_hz"]),
            n_samples=int(config["n_samples"]),
            scale=float(config["scale_mv"]),
            name=str(config["name"]),
            config={**config, "precision": precision},
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder}: the configuration and the weights do not make a prior: {error}"
        ) from error


def load_network(name: str | Path) -> tuple[SaShiMi, dict[str, Any]]:
    """Loads the network of a prior, ready to be trained further, and its configuration."""
    config, tensors = load_checkpoint(prior_folder(name))
    tensors.pop("covariance.spectrum", None)
    return _network(config, tensors), config


def _network(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SaShiMi:
    net = SaShiMi(**config["network"])
    net.load_state_dict(tensors)
    return net


def _denoiser(
    net: SaShiMi, objective: str, covariance: LeadFrequencyCovariance | None, precision: str
) -> Denoiser:
    net.eval().requires_grad_(False)
    schedule = Schedule.linear()
    called = Autocast(net) if precision == "bfloat16" else net
    if net.context:
        return InpaintingDenoiser(called, schedule, covariance=covariance)
    if objective == "edm":
        return NetworkDenoiser(called, schedule, covariance=covariance)
    if objective == "eps":
        return EpsDenoiser(called, schedule, covariance=covariance)
    raise CheckpointError(f"The objective {objective!r} is unknown; it must be 'edm' or 'eps'.")
