"""Contract checks for denoisers, operators and samplers, for use in anyone's tests.

Each check runs one object through what the rest of the package relies on, and raises
AssertionError with what was found where the contract is broken. They say nothing about accuracy:
compare with a closed-form posterior for that.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.operators.base import LinearOperator, Observation, Operator
from ecgdiff.random import Streams
from ecgdiff.samplers.base import NFE, Sampler

__all__ = ["CountingDenoiser", "check_denoiser", "check_operator", "check_sampler"]


class CountingDenoiser(Denoiser):
    """Wraps a denoiser and counts its network calls.

    Arguments:
        denoiser: The denoiser to count; every other attribute is passed on to it.

    Attributes:
        forward: The evaluations so far.
        vjp: The backward passes so far.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self.schedule, self.covariance = denoiser.schedule, denoiser.covariance
        self.forward = 0
        self.vjp = 0

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """The denoiser's answer."""
        return self.count(self._denoiser(x_t, t))

    def count(self, x0: Tensor) -> Tensor:
        """Counts an answer, and the passes back through it that are to come."""
        self.forward += 1
        if x0.requires_grad:
            x0.register_hook(self._count_backward)
        return x0

    def condition(self, observation: Any) -> Denoiser:
        """The conditional denoiser, whose calls count here too."""
        return _Counted(self, self._denoiser.condition(observation))

    def __getattr__(self, name: str) -> Any:
        """An attribute of the wrapped denoiser."""
        if name == "_denoiser":
            raise AttributeError(name)
        return getattr(self._denoiser, name)

    def _count_backward(self, gradient: Tensor) -> None:
        self.vjp += 1


class _Counted(Denoiser):
    """A conditional denoiser whose calls count where its prior's do."""

    def __init__(self, counter: CountingDenoiser, denoiser: Denoiser) -> None:
        self.schedule, self.covariance = denoiser.schedule, denoiser.covariance
        self._counter, self._denoiser = counter, denoiser

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        return self._counter.count(self._denoiser(x_t, t))


def check_denoiser(
    denoiser: Denoiser, shape: tuple[int, int, int], dtype: torch.dtype = torch.float32
) -> None:
    """Checks a denoiser at its first, middle and last level.

    Arguments:
        denoiser: The denoiser.
        shape: A shape (batch, channels, time) it takes, with batch >= 2.
        dtype: The data type it computes in. (A network of single precision takes double, too, but
            its rounding is then more than is allowed.)

    Raises:
        AssertionError: If shape, type or values change where they must not, items of a batch are
            coupled, a tensor of times differs from one time, no gradient reaches x_t, or, at the
            middle level, it is not that of differences.
    """
    top = denoiser.schedule.T
    middle = max(top // 2, 1)
    for t in sorted({1, middle, top}):
        _check_level(denoiser, shape, dtype, t)
    # At low noise a mean may change as fast as a step, at high noise hardly at all.
    x, unit = _streams(shape[0]).normal(shape, dtype), float(denoiser.schedule.std(middle))
    _check_slope(lambda v: denoiser(v, middle), x, unit, f"denoiser at t = {middle}")


def _check_level(
    denoiser: Denoiser, shape: tuple[int, int, int], dtype: torch.dtype, t: int
) -> None:
    tolerance = _tolerance(dtype)
    x = _streams(shape[0]).normal(shape, dtype)
    x0 = denoiser(x, t).detach()
    name = f"denoiser at t = {t}"
    _require(x0.shape == x.shape, f"{name}: shape {tuple(x0.shape)} from {tuple(x.shape)}")
    _require(x0.dtype == dtype, f"{name}: type {x0.dtype} from {dtype}")
    _require(bool(torch.isfinite(x0).all()), f"{name}: the output is not finite")
    _require_close(denoiser(x, t).detach(), x0, 0.0, f"{name}: two calls differ")
    times = torch.full((shape[0],), t)
    _require_close(
        denoiser(x, times).detach(),
        x0,
        tolerance,
        f"{name}: an int and a tensor of times differ",
    )
    _require_close(
        denoiser(x[:1], t).detach(), x0[:1], tolerance, f"{name}: an item depends on its batch"
    )
    gradient = _gradient(lambda v: denoiser(v, t)[0].sum(), x, name)
    _require_close(
        gradient[1:], torch.zeros_like(gradient[1:]), 0.0, f"{name}: an item pulls on another one"
    )


def check_operator(
    operator: Operator,
    shape: tuple[int, int, int],
    dtype: torch.dtype = torch.float64,
    *,
    straight_through: bool = False,
) -> None:
    """Checks an operator, and the adjoint, pseudo-inverse and solve of a LinearOperator.

    Arguments:
        operator: The operator.
        shape: A shape (batch, channels, time) it takes, with batch >= 2.
        dtype: A data type it takes.
        straight_through: Whether its gradient is on purpose not its derivative, as where rounding
            passes gradients straight through; then they are not compared.

    Raises:
        AssertionError: If a batch axis or type is lost, two calls differ, items of a batch are
            coupled, no gradient passes or it is not that of differences, or, for a LinearOperator,
            it is not linear, <A x, y> differs from <x, A^T y>, A A^+ A from A, or solve does not
            solve (A A^T + c I) v = r for a number c or a tensor.
    """
    x = _streams(shape[0]).normal(shape, dtype)
    y = operator(x)
    _require(y.ndim > 1, f"operator: shape {tuple(y.shape)} is no batch axis and data")
    _require(y.shape[0] == shape[0], f"operator: {shape[0]} items became {y.shape[0]}")
    _require(y.dtype == dtype, f"operator: type {y.dtype} from {dtype}")
    _require_close(operator(x), y, 0.0, "operator: two calls differ")
    _check_items(operator, x, y)
    _gradient(lambda v: operator(v).square().sum(), x, "operator")
    if not straight_through:
        _check_slope(operator, x, 1.0, "operator")
    if isinstance(operator, LinearOperator):
        _check_linear(operator, x, y)


def _check_items(operator: Operator, x: Tensor, y: Tensor) -> None:
    """Checks that a change of one item leaves what is seen of the others."""
    batch = len(x)
    others = _streams(batch, batch).normal(x.shape, x.dtype)
    for item in range(batch):
        rest = torch.arange(batch) != item
        changed = torch.where(rest[:, None, None], x, others)
        _require_close(
            operator(changed)[rest],
            y[rest],
            _tolerance(x.dtype),
            "operator: an item depends on its batch",
        )


def _gradient(function: Callable[[Tensor], Tensor], x: Tensor, name: str) -> Tensor:
    """The gradient of a number in x, which must be there and finite."""
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        value = function(leaf)
        found = (
            torch.autograd.grad(value, leaf, allow_unused=True)[0] if value.requires_grad else None
        )
    if found is None:
        raise AssertionError(
            f"{name}: no gradient passes; leave out torch.no_grad, detach and NumPy"
        )
    _require(bool(torch.isfinite(found).all()), f"{name}: the gradient is not finite")
    return found


def _check_slope(function: Callable[[Tensor], Tensor], x: Tensor, unit: float, name: str) -> None:
    """Checks the derivative along one direction per item against a central difference.

    The step is wide and the comparison coarse, since networks may compute in less than the type of
    x, and saturate; a gradient that lacks a part or a factor is farther off.
    """
    step = unit * torch.finfo(x.dtype).eps ** (1 / 6)
    along = _streams(len(x), len(x)).normal(x.shape, x.dtype)
    y = function(x).detach().flatten(1)
    change = (function(x + step * along) - function(x - step * along)).detach().flatten(1)
    slope = change / (2 * step)
    wanted = slope.norm(dim=1, keepdim=True)
    # Seen along the change itself, or, of what stays the same, along all entries alike.
    seen = torch.where(wanted > 0, slope / wanted, slope.shape[1] ** -0.5)
    gradient = _gradient(lambda v: (seen * function(v).flatten(1)).sum(), x, name)
    found = (gradient * along).flatten(1).sum(1)
    off = (found - wanted[:, 0]).abs()
    limit = 0.1 * wanted[:, 0] + 1e-3 * y.norm(dim=1)
    worst = int((off - limit).argmax())
    _require(
        bool((off <= limit).all()),
        f"{name}: the gradient gives a slope of {float(found[worst]):.3g} where differences give "
        f"{float(wanted[worst]):.3g}",
    )


def _check_linear(operator: LinearOperator, x: Tensor, y: Tensor) -> None:
    tolerance = _tolerance(x.dtype)
    other = x.flip(0) + 1
    _require_close(
        operator(2 * x - 3 * other), 2 * y - 3 * operator(other), tolerance, "operator: not linear"
    )
    r = operator(other)
    _require_close(
        (y * r).flatten(1).sum(1),
        (x * operator.adjoint(r)).flatten(1).sum(1),
        tolerance,
        "operator: <A x, y> differs from <x, A^T y>",
    )
    _require_close(operator(operator.pinv(y)), y, tolerance, "operator: A A^+ A differs from A")
    varied = 0.3 + _streams(len(y)).normal(y.shape, y.dtype).abs()
    per_item = varied.flatten(1).amax(1).reshape(-1, *[1] * (y.ndim - 1))
    kinds: dict[str, float | Tensor] = {
        "a number": 0.3,
        "one number per item": per_item,
        "shaped as r": varied,
    }
    for kind, c in kinds.items():
        v = operator.solve(r, c)
        _require_close(
            operator(operator.adjoint(v)) + c * v,
            r,
            tolerance,
            f"operator: solve(r, c) does not solve (A A^T + c I) v = r with c {kind}",
        )


def check_sampler(
    sampler: Sampler,
    denoiser: Denoiser,
    observation: Observation,
    shape: tuple[int, int, int],
    items: Sequence[Observation] | None = None,
) -> None:
    """Checks everything but the accuracy of a sampler.

    Arguments:
        sampler: The sampler; few steps make the check fast.
        denoiser: A denoiser it can use.
        observation: An observation with one item, or as many as the batch, in the data type that
            the denoiser computes in.
        shape: The shape (batch, channels, time) of the draws, with batch >= 2.
        items: The same observation item by item, to check that a draw does not depend on its
            batch; may be left out if `observation` has one item.

    Raises:
        AssertionError: If a draw has the wrong shape or type, is not finite, is not reproducible,
            depends on its batch or on torch's own random state, if the observation changes, or if
            nfe() or the progress calls are not what happened.
        ValueError: If `items` is missing or not as long as the batch.
    """
    items = [observation] * shape[0] if items is None and observation.batch == 1 else items
    if items is None or len(items) != shape[0]:
        raise ValueError(f"Give {shape[0]} items, one observation of one item for each draw.")
    y = observation.y.clone()
    counted = CountingDenoiser(denoiser)
    calls: list[tuple[int, int]] = []
    state = torch.get_rng_state()
    draws = sampler(
        counted,
        observation,
        shape,
        generator=_streams(shape[0]),
        progress=lambda done, total: calls.append((done, total)),
    )
    _require(
        tuple(draws.shape) == tuple(shape), f"sampler: draws of {tuple(draws.shape)}, not {shape}"
    )
    _require(draws.dtype == y.dtype, f"sampler: draws of type {draws.dtype}, y of {y.dtype}")
    _require(bool(torch.isfinite(draws).all()), "sampler: a draw is not finite")
    _require(not draws.requires_grad, "sampler: the draws carry a gradient")
    _require_close(observation.y, y, 0.0, "sampler: y was changed")
    _require(
        bool((torch.get_rng_state() == state).all()), "sampler: used torch's own random state"
    )
    spent = NFE(counted.forward, counted.vjp)
    promised = _promised(sampler, denoiser)
    _require(spent == promised, f"sampler: nfe() promises {promised}, spent {spent}")
    _check_progress(calls)
    _check_draws(sampler, denoiser, observation, items, draws)


def _promised(sampler: Sampler, denoiser: Denoiser) -> NFE:
    """The calls of nfe(), told the schedule by which some samplers plan their moves."""
    nfe: Callable[..., NFE] = sampler.nfe
    takes_schedule = "schedule" in inspect.signature(nfe).parameters
    return nfe(denoiser.schedule) if takes_schedule else nfe()


def _check_progress(calls: list[tuple[int, int]]) -> None:
    done = [call[0] for call in calls]
    total = {call[1] for call in calls}
    _require(bool(calls) and len(total) == 1, f"sampler: progress reported the totals {total}")
    _require(done == sorted(set(done)), f"sampler: progress does not rise: {done}")
    _require(done[-1] == calls[-1][1], f"sampler: progress ended at {calls[-1]}")


def _check_draws(
    sampler: Sampler,
    denoiser: Denoiser,
    observation: Observation,
    items: Sequence[Observation],
    draws: Tensor,
) -> None:
    """Checks that draws repeat, differ between streams, and do not depend on their batch."""
    shape = (draws.shape[0], draws.shape[1], draws.shape[2])
    again = sampler(denoiser, observation, shape, generator=_streams(shape[0]))
    _require_close(again, draws, 0.0, "sampler: the same streams gave other draws")
    _require(not torch.equal(draws[0], draws[1]), "sampler: two streams gave the same draw")
    for number, item in enumerate(items):
        alone = sampler(denoiser, item, (1, *shape[1:]), generator=Streams([number + 1]))
        _require_close(
            alone[0],
            draws[number],
            10 * _tolerance(draws.dtype),
            f"sampler: item {number} depends on its batch",
        )


def _streams(batch: int, after: int = 0) -> Streams:
    return Streams(range(after + 1, after + batch + 1))


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-9 if dtype == torch.float64 else 1e-4


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _require_close(found: Tensor, wanted: Tensor, tolerance: float, message: str) -> None:
    """Requires |found - wanted| <= tolerance times the largest |wanted| (at least 1)."""
    error = float((found - wanted).abs().max()) if wanted.numel() else 0.0
    limit = tolerance * max(float(wanted.abs().max()), 1.0) if wanted.numel() else 0.0
    _require(error <= limit, f"{message} (by {error:.3g}, allowed {limit:.3g})")
