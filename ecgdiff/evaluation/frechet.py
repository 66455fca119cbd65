r"""The Fréchet distance of two sets of ECGs, as a classifier sees them.

Of the two Gaussians with the means and covariances of the features,

.. math:: d^2 = |\mu_1 - \mu_2|^2 + \mathrm{tr}\bigl(S_1 + S_2 - 2 (S_1 S_2)^{1/2}\bigr),

the squared 2-Wasserstein distance. With the eigendecompositions
:math:`S_k = V_k \Lambda_k V_k^T` and the roots :math:`R_k = V_k \Lambda_k^{1/2}`,
:math:`R_k R_k^T = S_k`, the eigenvalues of :math:`S_1 S_2` are the squared singular values of
:math:`R_1^T R_2`, so the trace above is their sum: no root of a matrix that is not symmetric, and
no small negative or complex numbers where covariances are singular. Of fewer records than features
the centered records, divided by :math:`\sqrt{n - 1}`, are such a root themselves.

The estimate from samples is too large, by more the fewer they are: only distances between as many
records can be compared. The features are the 512 numbers that :class:`ecgdiff.models.xresnet1d.
XResNet1d` pools over time, the maximum and the mean of 256 channels, here over the whole record.

References:
    | GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et
      al., 2017), arXiv:1706.08500
    | The Fréchet distance between multivariate normal distributions (Dowson and Landau, 1982),
      doi:10.1016/0047-259X(82)90077-X
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ecgdiff.classifier import Classifier
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.errors import CheckpointError
from ecgdiff.models.xresnet1d import XResNet1d

__all__ = ["frechet_distance", "gaussian_distance", "pooled_features"]

_BATCH = 32

Array = NDArray[np.float64]


def gaussian_distance(mean_1: Array, cov_1: Array, mean_2: Array, cov_2: Array) -> float:
    """Computes the squared distance of two Gaussians.

    Arguments:
        mean_1: The first mean, with shape (features,).
        cov_1: The first covariance, which may be singular, with shape (features, features).
        mean_2: The second mean.
        cov_2: The second covariance.

    Raises:
        ValueError: If a matrix is no covariance, or the shapes differ.
    """
    size = len(mean_1)
    if mean_2.shape != (size,) or cov_1.shape != cov_2.shape or cov_1.shape != (size, size):
        raise ValueError(
            f"Means {mean_1.shape}, {mean_2.shape} and covariances {cov_1.shape}, {cov_2.shape} "
            "do not belong to two Gaussians over the same features."
        )
    return _distance(mean_1, _root(cov_1), mean_2, _root(cov_2))


def frechet_distance(drawn: NDArray[np.floating], real: NDArray[np.floating]) -> float:
    """Computes the squared Fréchet distance of two sets of features.

    Arguments:
        drawn: The features of one set, with shape (records, features).
        real: Those of the other, with as many records.

    Raises:
        ValueError: If there are fewer than two records or not as many in both: the estimate grows
            as records get fewer, so such distances mean nothing.
    """
    if len(drawn) != len(real) or len(drawn) < 2:
        raise ValueError(
            f"Fréchet distances are compared between sets of equal size, at least two records; "
            f"got {len(drawn)} and {len(real)}."
        )
    a, b = (np.asarray(x, np.float64) for x in (drawn, real))
    return _distance(a.mean(axis=0), _sample_root(a), b.mean(axis=0), _sample_root(b))


def _distance(mean_1: Array, root_1: Array, mean_2: Array, root_2: Array) -> float:
    overlap = np.linalg.svd(root_1.T @ root_2, compute_uv=False).sum()
    variances = np.square(root_1).sum() + np.square(root_2).sum()
    # Rounding may leave -1e-16 of the variances where the two are equal.
    return max(float(np.square(mean_1 - mean_2).sum() + variances - 2 * overlap), 0.0)


def _sample_root(x: Array) -> Array:
    """A root of the covariance of (records, features); fewer records than features are one."""
    centered = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    return centered.T if len(x) <= x.shape[1] else _root(centered.T @ centered)


def _root(cov: Array) -> Array:
    """A matrix R with R R^T = cov."""
    values, vectors = np.linalg.eigh(cov)
    noise = len(cov) * np.finfo(np.float64).eps * np.abs(values).max(initial=0.0)
    if not np.allclose(cov, cov.T) or values.min(initial=0.0) < -1e3 * noise:
        raise ValueError("A covariance is symmetric and has no negative eigenvalues.")
    # Eigenvalues that are rounding errors would count by their roots, which are not small.
    return np.asarray(vectors * np.sqrt(np.where(values > noise, values, 0.0)))


@torch.inference_mode()
def pooled_features(
    classifier: Classifier,
    signal: NDArray[np.floating],
    leads: Sequence[str] = LEADS_12,
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    """Gives the features of whole records.

    Arguments:
        classifier: One with an :class:`ecgdiff.models.xresnet1d.XResNet1d`.
        signal: In mV at the classifier's rate, without baseline, with shape (records, leads,
            time).
        leads: The names of its rows; those that the classifier reads are picked by name.
        progress: Called with the records done and in all.

    Returns:
        An array with shape (records, features).

    Raises:
        CheckpointError: If the classifier has no such features.
    """
    if not isinstance(classifier.net, XResNet1d):
        raise CheckpointError(f"The classifier {classifier.name} is no XResNet1d with features.")
    rows = [list(leads).index(lead) for lead in classifier.leads]
    parts = []
    for at in range(0, len(signal), _BATCH):
        part = np.ascontiguousarray(signal[at : at + _BATCH, rows], np.float32)
        x = torch.from_numpy(part / np.float32(classifier.scale))
        parts.append(classifier.net.features(x).double().numpy())
        if progress is not None:
            progress(at + len(part), len(signal))
    return np.concatenate(parts)
