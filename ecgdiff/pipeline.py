"""The main job: draws of the complete 12-lead ECG from whatever was measured of it.

The quality gate, then :mod:`ecgdiff.prepare` (resample, pick leads, filter), then the sampler over
windows (:mod:`ecgdiff.windowed`), and back to millivolts with the measured samples as measured.
"""

import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ecgdiff.ecg.quality import check
from ecgdiff.ecg.recording import Recording
from ecgdiff.prepare import Noise, Prepared, prepare
from ecgdiff.prior import Prior, load_prior
from ecgdiff.reconstruction import Reconstruction
from ecgdiff.samplers import SAMPLERS
from ecgdiff.samplers.base import Progress, Sampler
from ecgdiff.windowed import draw_windows, windows_of

__all__ = ["DEFAULT_SAMPLER", "Lost", "lose", "reconstruct"]

DEFAULT_SAMPLER = "surrogate"

Lost = Iterable[str | tuple[float, float]] | Mapping[str, Iterable[tuple[float, float]]]


def reconstruct(
    recording: Recording,
    *,
    lost: Lost = (),
    draws: int = 10,
    sampler: str | Sampler = DEFAULT_SAMPLER,
    seed: int = 0,
    noise: Noise = 0.02,
    prior: str | Path | Prior = "default",
    allow: Iterable[str] = (),
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Reconstruction:
    """Draws complete 12-lead ECGs that agree with what was measured.

    Arguments:
        recording: Any of the twelve leads, at any rate, of 2.5 s to hours; NaN counts as lost.
        lost: What to treat as lost besides, see :func:`lose`.
        draws: How many ECGs to draw.
        sampler: A name of :data:`ecgdiff.samplers.SAMPLERS`, or one with settings of your own.
        seed: The same seed gives the same draws, whatever their number or `batch_size`.
        noise: Standard deviation of the measurement noise in mV, for all leads or by lead name.
        prior: A prior, its name, or a checkpoint folder.
        allow: Quality findings to override, by name; see :func:`ecgdiff.ecg.quality.check`.
        batch_size: Draws computed at once; more needs more memory.
        progress: Called with the number of steps done and their total.

    Returns:
        The draws at the prior's rate, in mV, with measured samples as measured.

    Raises:
        SignalQualityError: If the recording fails the quality gate.
        OperatorError: If its leads cannot be used.
        ValueError: If an argument makes no sense.
    """
    if min(draws, batch_size) < 1:
        raise ValueError(f"draws and batch_size must be at least 1, got {draws}, {batch_size}.")
    began = time.perf_counter()
    report = check(recording := lose(recording, lost))
    report.raise_for(allow=tuple(allow))
    prior = prior if isinstance(prior, Prior) else _cached_prior(str(prior))
    method = sampler if isinstance(sampler, Sampler) else _named_sampler(sampler)
    prepared = prepare(recording, prior.sampling_rate, noise)
    size = {"draws": draws, "batch_size": batch_size}
    drawn = draw_windows(prior, method, prepared, seed=seed, progress=progress, **size)
    settings = {
        "sampler": repr(method),
        "seed": seed,
        "noise_mv": dict(noise) if isinstance(noise, Mapping) else noise,
        "warnings": [finding.message for finding in report.findings],
        "seconds": round(time.perf_counter() - began, 2),
    }
    return Reconstruction(
        draws=drawn,
        recording=recording,
        measured=prepared.measured,
        sampling_rate=prior.sampling_rate,
        provenance=prepared.provenance,
        meta={**settings, **_origin(prior, method, prepared)},
    )


def lose(recording: Recording, lost: Lost) -> Recording:
    """Returns the recording with leads or blocks set to "not measured", that is NaN.

    Arguments:
        recording: The recording.
        lost: Lead names, and (start, stop) in seconds for a block lost on all leads; or a mapping
            from lead names to blocks lost on that lead.
    """
    if isinstance(lost, Mapping):
        return recording.with_lost(lead_blocks=lost)
    items = [lost] if isinstance(lost, str) else list(lost)
    leads = [item for item in items if isinstance(item, str)]
    blocks = [item for item in items if not isinstance(item, str)]
    return recording.with_lost(leads=leads, blocks=blocks) if items else recording


def _origin(prior: Prior, method: Sampler, prepared: Prepared) -> dict[str, Any]:
    """What the draws come from: prior, its band, and what they cost."""
    nfe = method.nfe()
    return {
        "prior": prior.name,
        "model_sha256": prior.config.get("sha256", ""),
        "band": prior.config.get("band", ""),
        "windows": len(windows_of(prior, prepared.n_samples)),
        "network_calls_per_window": {"forward": nfe.forward, "vjp": nfe.vjp},
        "clipped_samples": prepared.clipped,
    }


def _named_sampler(name: str) -> Sampler:
    if name not in SAMPLERS:
        raise ValueError(f"Unknown sampler {name!r}; there are {', '.join(sorted(SAMPLERS))}.")
    return SAMPLERS[name]()


@lru_cache(maxsize=2)
def _cached_prior(name: str) -> Prior:
    return load_prior(name)
