"""The diffusion core: noise schedule, denoisers, closed-form priors and unconditional samplers."""

from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.diffusion.denoiser import Denoiser, EpsDenoiser, NetworkDenoiser
from ecgdiff.diffusion.gaussian import GaussianMixturePrior, GaussianPrior
from ecgdiff.diffusion.grids import time_grid
from ecgdiff.diffusion.sampling import ddim, ddpm, ddpm_step, heun, multistep
from ecgdiff.diffusion.schedule import Bridge, Schedule

__all__ = [
    "Bridge",
    "Denoiser",
    "EpsDenoiser",
    "GaussianMixturePrior",
    "GaussianPrior",
    "LeadFrequencyCovariance",
    "NetworkDenoiser",
    "Schedule",
    "ddim",
    "ddpm",
    "ddpm_step",
    "heun",
    "multistep",
    "time_grid",
]
