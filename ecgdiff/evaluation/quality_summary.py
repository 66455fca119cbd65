"""From what was measured to the numbers of the quality page, plain and ready for JSON."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecgdiff.classifier import Classifier
from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.diffusion.quality import BANDS
from ecgdiff.ecg.leads import LEADS_8, derive_12
from ecgdiff.evaluation import acceptance
from ecgdiff.evaluation.distributions import (
    amplitudes,
    percentiles,
    plain,
    rhythms,
    spectra,
    summary,
)
from ecgdiff.evaluation.frechet import frechet_distance, pooled_features
from ecgdiff.evaluation.nearest import LENGTH, Found
from ecgdiff.evaluation.quality_measures import Clock, Measured, bar
from ecgdiff.prior import Prior

__all__ = ["PAIR_LEADS", "summarize", "twelve"]

PAIR_LEADS = ("II", "V2")
_CLOSEST = 5

Floats = NDArray[np.float32]


def summarize(
    m: Measured, prior: Prior, classifier: Classifier, clock: Clock, seed: int = 0
) -> dict[str, Any]:
    """Computes all numbers of the page.

    Arguments:
        m: What was measured.
        prior: The prior.
        classifier: The one whose features are compared.
        clock: Takes the time of the parts.
        seed: Of resamples.
    """
    found: dict[str, Any] = {
        "leads": list(prior.leads),
        "records": {
            "fold9": len(m.real.signal),
            "training": len(m.train.signal),
            "training_searched": m.searched,
        },
        "acceptance": _acceptance(m, seed),
        "losses": _losses(m),
    }
    found["frechet"] = _frechet(m, prior, classifier, seed)
    clock.lap("Fréchet distances")
    found |= _distributions(m, prior)
    found["nearest"] = _nearest(m.nearest, len(m.drawn), prior.leads)
    clock.lap("rhythms, amplitudes and spectra")
    return found


def twelve(signal: Floats, leads: tuple[str, ...]) -> Floats:
    """The 12 leads of (..., leads, time), derived from `LEADS_8` picked by name."""
    rows = [leads.index(lead) for lead in LEADS_8]
    return derive_12(signal[..., rows, :])


def _acceptance(m: Measured, seed: int) -> dict[str, Any]:
    drawn, real = (x.std(axis=-1, dtype=np.float64) for x in (m.drawn, m.real.signal))
    found: dict[str, Any] = {
        "total_variance": acceptance.variance(m.variance),
        "spread": acceptance.spread(drawn, real),
    }
    found["spread"]["chance"] = acceptance.spread_by_chance(real, len(drawn), seed=seed)
    if m.others is not None:
        found["losses_below"] = acceptance.losses_below(m.losses, m.others)
    return {**found, "passed": all(check["passed"] for check in found.values())}


def _losses(m: Measured) -> dict[str, Any]:
    """Losses per band; the gap is relative, with the standard error of its numerator."""
    fold, train = m.losses.mean(axis=1), m.train_losses.mean(axis=1)
    error = np.hypot(*(_standard_error(x) for x in (m.losses, m.train_losses)))
    return {
        "bands": plain(BANDS),
        "fold9": fold.round(5).tolist(),
        "training": train.round(5).tolist(),
        "gap": (fold / train - 1).round(5).tolist(),
        "gap_standard_error": (error / train).round(5).tolist(),
        "compare": None if m.others is None else m.others.mean(axis=1).round(5).tolist(),
    }


def _standard_error(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    return losses.std(axis=1, ddof=1) / np.sqrt(losses.shape[1])


def _frechet(m: Measured, prior: Prior, classifier: Classifier, seed: int) -> dict[str, Any]:
    """Distances of equally many records from one half of fold 9, averaged over splits."""
    size = len(m.pairs[0][0])
    sets = {
        "real": m.real.signal,
        "draws": m.drawn[:size],
        "training": m.train.signal[:size],
        "gaussian": _gaussian(m, prior, size, seed),
    }
    features = {}
    for name, signal in sets.items():
        with bar(f"features, {name}") as advance:
            features[name] = pooled_features(
                classifier, twelve(signal, prior.leads), progress=advance
            )
    distances: dict[str, list[float]] = {}
    for a, b in m.pairs:
        half = features["real"][a]
        others = {"other_half": features["real"][b]} | features
        for name in ("other_half", "training", "draws", "gaussian"):
            distances.setdefault(name, []).append(frechet_distance(others[name][: len(a)], half))
    return {
        "records": size,
        "features": features["real"].shape[1],
        "splits": len(m.pairs),
        **{
            name: {"mean": plain(np.mean(d)), "sd": plain(np.std(d, ddof=1))}
            for name, d in distances.items()
        },
    }


def _gaussian(m: Measured, prior: Prior, size: int, seed: int) -> Floats:
    """Draws of the Gaussian with the covariance of the training folds."""
    covariance = prior.denoiser.covariance
    if covariance is None:
        x = torch.from_numpy(m.train.signal) / prior.scale
        covariance = LeadFrequencyCovariance.fit(x, smooth=2)
    generator = torch.Generator().manual_seed(seed)
    x = covariance.sample((size, len(prior.leads), m.drawn.shape[-1]), generator)
    return (x * prior.scale).numpy()


def _distributions(m: Measured, prior: Prior) -> dict[str, Any]:
    both = {"draws": m.drawn, "fold9": m.real.signal}
    rows = prior.leads.index("II")
    rhythm = {}
    for name, signal in both.items():
        with bar(f"beats, {name}") as advance:
            rate, variation = rhythms(signal[:, rows], prior.sampling_rate, advance)
        rhythm[name] = summary(rate, variation)
    return {
        "rhythm": rhythm,
        "amplitude_mv": {name: percentiles(amplitudes(x)) for name, x in both.items()},
        "spectra": spectra(m.drawn, m.real.signal, prior.sampling_rate, m.pairs),
    }


def _nearest(found: Found, draws: int, leads: tuple[str, ...]) -> dict[str, Any]:
    """Distances of the draws beside those of fold 9, and the closest draws by name."""
    relative = {"draws": found.relative[:draws], "fold9": found.relative[draws:]}
    known = {name: np.sort(x[np.isfinite(x)]) for name, x in relative.items()}
    distance = {"draws": found.distance[:draws], "fold9": found.distance[draws:]}
    order = np.argsort(np.where(np.isnan(relative["draws"]), np.inf, relative["draws"]))
    closest = [int(k) for k in order[:_CLOSEST] if np.isfinite(relative["draws"][k])]
    out: dict[str, Any] = {
        "seconds_compared": LENGTH / 100,
        "without_peaks": {name: int(np.isnan(x).sum()) for name, x in relative.items()},
        "distance_mv_percentiles": {name: percentiles(x) for name, x in distance.items()},
        "relative_percentiles": {name: percentiles(x) for name, x in relative.items()},
        "relative": {name: plain(x) for name, x in known.items()},
        "closest": [
            {
                "draw": k + 1,
                "relative": plain(found.relative[k]),
                "distance_mv": plain(found.distance[k]),
                "record": int(found.record[k]),
            }
            for k in closest
        ],
    }
    if known["fold9"].size and known["draws"].size:
        low = np.quantile(known["fold9"], 0.01)
        out["draws_below_1_percent_of_fold9"] = plain((known["draws"] < low).mean())
        out["smallest_ratio"] = plain(known["draws"][0] / known["fold9"][0])
    if closest:
        rows = [leads.index(lead) for lead in PAIR_LEADS]
        pair = {"draw": found.excerpt, "record": found.counterpart}
        out["pair"] = {name: plain(x[closest[0], rows]) for name, x in pair.items()}
    return out
