r"""Conjugate gradients for a batch of symmetric positive definite systems G v = b.

Every item has its own scalars and its own stopping, so its solution does not depend on the batch
it is in:

.. math::
    \alpha = \frac{\rho^T z}{p^T G p}, \quad v \mathrel{+}= \alpha p, \quad
    \rho' = \rho - \alpha G p, \quad z' = P^{-1} \rho', \quad
    p' = z' + \frac{\rho'^T z'}{\rho^T z}\, p

An item stops when :math:`\|\rho\| \le \mathrm{rtol}\, \|b\|`, or keeps its last iterate when it
meets a direction whose curvature is not above a floor, by default zero. Scalars are float64
whatever the dtype of b. All start from v = 0: with an initial guess the few iterations that MMPS
makes, a fixed number, would depend on where they came from, so there is no warm start.

References:
    | Methods of Conjugate Gradients for Solving Linear Systems (Hestenes and Stiefel, 1952)
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Solution", "conjugate_gradient"]


class Solution(NamedTuple):
    """What conjugate gradients found.

    Attributes:
        x: The solutions, with the shape of the right-hand side; their images if `image` was given.
        iterations: The matrix products each item needed, with shape (batch,).
        residual: The norm of each item's residual relative to its right-hand side (0 for a zero
            one), shape (batch,).
    """

    x: Tensor
    iterations: Tensor
    residual: Tensor


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a.flatten(1).double() * b.flatten(1).double()).sum(1)


def _times(scalar: Tensor, x: Tensor) -> Tensor:
    return scalar.to(x).reshape(-1, *[1] * (x.ndim - 1)) * x


def _ratio(numerator: Tensor, denominator: Tensor, where: Tensor) -> Tensor:
    """The quotient where asked, zero elsewhere (also where it would be 0 / 0)."""
    return torch.where(where, numerator / torch.where(where, denominator, 1.0), 0.0)


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    precondition: Callable[[Tensor], Tensor] | None = None,
    image: Callable[[Tensor], Tensor] | None = None,
    floor: Callable[[Tensor], Tensor] | None = None,
    rtol: float = 1e-6,
    max_iter: int = 200,
) -> Solution:
    """Solves G v = b for each item of a batch.

    Arguments:
        matvec: The product G v, batched; G symmetric positive definite per item.
        b: The right-hand sides, with shape (batch, ...).
        precondition: The product P^{-1} v of a symmetric positive definite approximation P of G.
        image: A linear map B, called on each search direction after `matvec`; then B v is
            returned for v, made of those images alone.
        floor: The product F p of a positive definite F; an item stops at a direction with
            p^T G p <= p^T F p.
        rtol: The relative residual norm at which an item stops; 0 makes exactly `max_iter`
            products.
        max_iter: The most products with G.

    Returns:
        The solutions, the iterations each took and the residual each reached.
    """
    precondition = precondition or (lambda v: v)
    image = image or (lambda v: v)
    x: Tensor | None = None
    rho, p = b, torch.zeros_like(b)
    norm_b = _dot(b, b).sqrt()
    norm, past = norm_b, torch.ones_like(norm_b)
    active = norm > 0
    iterations = torch.zeros(len(b), dtype=torch.long, device=b.device)
    for _ in range(max_iter):
        if rtol > 0 and not bool(active.any()):
            break
        z = precondition(rho)
        inner = _dot(rho, z)
        p = z + _times(_ratio(inner, past, active), p)
        w = matvec(p)
        curvature = _dot(p, w)
        active = active & (curvature > (0.0 if floor is None else _dot(p, floor(p))))
        step = _ratio(inner, curvature, active)
        part = _times(step, image(p))
        x = part if x is None else x + part
        rho, past = rho - _times(step, w), inner
        iterations += active
        norm = torch.where(active, _dot(rho, rho).sqrt(), norm)
        active = active & (norm > rtol * norm_b)
    x = image(torch.zeros_like(b)) if x is None else x
    return Solution(x, iterations, _ratio(norm, norm_b, norm_b > 0))
