r"""A draw from an isotropic Gaussian that has seen a linear observation.

With :math:`x' \sim N(m, r^2 I)` and :math:`e \sim N(0, R)`, Matheron's rule turns a draw of the
joint law of signal and observation into one of the conditional law:

.. math::
    x = x' + A^T (A A^T + R / r^2)^{-1} (y - A x' - e)
    \quad\sim\quad \propto N(x; m, r^2 I)\, N(y; A x, R) .

For a mask this is, elementwise, :math:`N\!\left(\frac{r^2 y + R m}{r^2 + R}, \frac{r^2 R}{r^2 +
R}\right)` where observed and :math:`N(m, r^2)` where lost.
"""

from torch import Tensor

from ecgdiff.operators.base import LinearOperator
from ecgdiff.random import Generator, normal

__all__ = ["conditional_draw"]


def conditional_draw(
    mean: Tensor,
    std: float,
    y: Tensor,
    operator: LinearOperator,
    variance: Tensor,
    generator: Generator,
) -> Tensor:
    """Draws from the density proportional to N(x; mean, std^2 I) N(y; A x, R).

    Arguments:
        mean: The mean m, with shape (batch, channels, time).
        std: The standard deviation r > 0.
        y: The observation, with one item or as many as the batch.
        operator: The operator A.
        variance: The diagonal of R, positive, broadcastable to `y`.
        generator: The source of the two draws, one shaped like `mean`, one like the observation.

    Returns:
        A tensor shaped like `mean`.
    """
    x = mean + std * normal(mean.shape, generator, mean.dtype, mean.device)
    r = y - operator(x)
    noise = variance.sqrt() * normal(r.shape, generator, r.dtype, r.device)
    r = r - operator.restrict(noise)
    return x + operator.adjoint(operator.solve(r, variance / std**2))
