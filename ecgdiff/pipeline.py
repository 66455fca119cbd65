"""The main job: draws of the complete 12-lead ECG from whatever was measured of it.

The quality gate, then :mod:`ecgdiff.prepare` (resample, pick leads, filter), then the sampler over
windows (:mod:`ecgdiff.windowed`), and back to millivolts with the measured samples as measured.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ecgdiff.diffusion.inpainting import NOISE, InpaintingDenoiser
from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.ecg.preprocess import CUTOFF_HZ
from ecgdiff.ecg.quality import Finding, check
from ecgdiff.ecg.recording import Recording
from ecgdiff.errors import OperatorError, SignalQualityError
from ecgdiff.lost import Lost, lose
from ecgdiff.prepare import Noise, Prepared, prepare
from ecgdiff.prior import Prior, load_prior, needed_prior
from ecgdiff.reconstruction import Reconstruction
from ecgdiff.samplers import MMPS, Conditional, named_sampler
from ecgdiff.samplers.base import Progress, Sampler
from ecgdiff.windowed import draw_windows, windows_of

__all__ = ["reconstruct"]


def reconstruct(
    recording: Recording,
    *,
    lost: Lost = (),
    draws: int = 10,
    sampler: str | Sampler | None = None,
    seed: int = 0,
    noise: Noise = 0.02,
    prior: str | Path | Prior | None = None,
    allow: Iterable[str] = (),
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Reconstruction:
    """Draws complete 12-lead ECGs that agree with what was measured.

    Arguments:
        recording: Any of the twelve leads, at any rate, of 2.5 s to hours; NaN counts as lost.
        lost: What to treat as lost besides, see :func:`lose`.
        draws: How many ECGs to draw.
        sampler: A name of :data:`ecgdiff.samplers.SAMPLERS`, with settings if you like
            ("mmps:iterations=2"), or as published ("ddnm.ecg"), or a sampler. By default
            `conditional`, and `mmps` where the prior cannot be shown what was measured.
        seed: The same seed gives the same draws, whatever their number or `batch_size`.
        noise: Standard deviation of the measurement noise in mV, for all leads or by lead name.
        prior: A prior, its name, or a checkpoint folder. By default the one that the sampler
            needs, see :func:`ecgdiff.prior.needed_prior`.
        allow: Quality findings to override, by name; see :func:`ecgdiff.ecg.quality.check`.
        batch_size: Draws computed at once; more needs more memory.
        progress: Called with the number of steps done and their total.

    Returns:
        The draws at the prior's rate, in mV, with measured samples as measured.

    Raises:
        SignalQualityError: If the recording fails the quality gate, or all of it is synthetic.
        OperatorError: If its leads cannot be used.
        TypeError: If it is no `Recording`.
        ValueError: If an argument makes no sense.
    """
    if min(draws, batch_size) < 1:
        raise ValueError(f"draws and batch_size must be at least 1, got {draws}, {batch_size}.")
    began = time.perf_counter()
    recording, warnings = _passed(recording, lost, allow)
    method, prior, prepared = _plan(recording, sampler, prior, noise)
    size = {"draws": draws, "batch_size": batch_size}
    seeds = f"{seed}/{_fingerprint(recording)}"
    drawn = draw_windows(prior, method, prepared, seed=seeds, progress=progress, **size)
    meta = _origin(prior, method, prepared)
    meta |= {"seed": seed, "seconds": round(time.perf_counter() - began, 2)}
    meta["noise_mv"] = dict(noise) if isinstance(noise, Mapping) else noise
    meta["warnings"] = warnings
    return Reconstruction(
        draws=drawn,
        recording=recording,
        measured=prepared.measured,
        sampling_rate=prior.sampling_rate,
        provenance=prepared.provenance,
        baseline=prepared.baseline_12(),
        meta=meta,
    )


def _passed(recording: Recording, lost: Lost, allow: Iterable[str]) -> tuple[Recording, list[str]]:
    """The recording without what is to be lost, and the quality gate's notes; or its refusal."""
    if not isinstance(recording, Recording):
        raise TypeError(
            f"reconstruct takes a Recording, got a {type(recording).__name__}; read a file with "
            "ecgdiff.read, or make one of an array: ecgdiff.Recording(signal, rate, leads)."
        )
    if recording.synthetic == recording.leads:
        raise SignalQualityError(
            "All leads of this recording are marked as synthetic: a model drew them, and nothing "
            "in it was measured. Give the recording that was measured."
        )
    given = recording.without_synthetic()
    report = check((recording := lose(recording, lost)).without_synthetic())
    report.raise_for([allow] if isinstance(allow, str) else allow)
    return recording, [f.message for f in report.findings if not _asked_for(f, given)]


def _asked_for(finding: Finding, given: Recording) -> bool:
    """Whether it only says that samples are missing of a lead of which `lost` took them."""
    whole = finding.lead in given.leads and given.measured[given.leads.index(finding.lead)].all()
    return bool(finding.name == "non-finite" and whole)


def _plan(
    recording: Recording,
    sampler: str | Sampler | None,
    prior: str | Path | Prior | None,
    noise: Noise,
) -> tuple[Sampler, Prior, Prepared]:
    """The sampler, the prior and the recording as the prior sees it, where not given by rule."""
    method = named_sampler(sampler) if isinstance(sampler, str) else sampler
    chosen = _checked_prior(needed_prior(method or Conditional()) if prior is None else prior)
    prepared = prepare(recording, chosen.sampling_rate, noise)
    if method is not None:
        if isinstance(method, Conditional):
            chosen.check_shown(prepared.usable)
        return method, chosen, prepared
    if isinstance(chosen.denoiser, InpaintingDenoiser) and _showable(prepared, chosen):
        chosen.check_shown(prepared.usable)
        return Conditional(), chosen, prepared
    guided = MMPS()
    if prior is None:
        chosen = _checked_prior(needed_prior(guided))
        prepared = prepare(recording, chosen.sampling_rate, noise)
    return guided, chosen, prepared


def _showable(prepared: Prepared, prior: Prior) -> bool:
    """Whether a network can be shown what was measured.

    A single limb lead other than I and II mixes the two, and the noise must be one that networks
    were trained on.
    """
    strongest = prepared.sigma[prepared.usable].max(initial=0.0) / prior.scale
    return not prepared.rotated and bool(strongest <= NOISE[1])


def _fingerprint(recording: Recording) -> str:
    """A name for the recording's content, so that two patients do not share their noise."""
    content = hashlib.sha256(np.nan_to_num(recording.signal, nan=-1e9).tobytes())
    content.update(f"{recording.leads}{recording.sampling_rate!r}".encode())
    return content.hexdigest()[:16]


def _origin(prior: Prior, method: Sampler, prepared: Prepared) -> dict[str, Any]:
    """What the draws come from: prior, its band, and what they cost."""
    nfe = method.nfe()
    return {
        "sampler": repr(method),
        "prior": prior.name,
        "model_sha256": prior.config.get("sha256", ""),
        "precision": prior.config.get("precision", "float32"),
        "band": prior.config.get("band", ""),
        "windows": len(windows_of(prior, prepared)),
        "network_calls_per_window": {"forward": nfe.forward, "vjp": nfe.vjp},
        "clipped_samples": prepared.clipped,
    }


def _checked_prior(prior: str | Path | Prior) -> Prior:
    """Loads a prior; refuses leads or a filter that are not what :mod:`ecgdiff.prepare` writes."""
    prior = prior if isinstance(prior, Prior) else _cached_prior(str(prior))
    highpass = prior.config.get("highpass_hz", CUTOFF_HZ)
    if prior.leads != LEADS_8 or highpass != CUTOFF_HZ:
        raise OperatorError(
            f"The prior {prior.name} models {', '.join(prior.leads)} above {highpass} Hz; "
            f"reconstruct needs {', '.join(LEADS_8)} above {CUTOFF_HZ} Hz."
        )
    return prior


@lru_cache(maxsize=2)
def _cached_prior(name: str) -> Prior:
    return load_prior(name)
