"""Scaling laws fitted to finished runs, with intervals from the noise of the loss.

    L(C) = E + A C^-alpha                  the best loss at each budget (`fit_budget_law`)
    L(N, D) = E + A N^-alpha + B D^-beta   every run (`fit_loss_law`; Hoffmann et al. 2022, arXiv 2203.15556, eq. 2)
    N*(C) = k C^a                          minima of parabolas in log N, one per budget (their approach 2)

C is the DiT's counted training FLOPs, N its parameters, D the latent tokens that it was trained on. Both losses are
fitted as there: Huber loss (delta 1e-3) of log residuals, L-BFGS from a grid of starts, the best kept.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import fdtri

from minisora.errors import UserError
from minisora.report.ladder_law import FittedLaw, Optimum

Array = NDArray[np.float64]
_HUBER = 1e-3
_INTERVAL = 0.90
# The range of exponents searched.
_EXPONENTS = (0.005, 3.0)
# An exponent whose interval spans this factor is not determined.
_WIDE = 3.0
# Relative; losses that fit better than this are not known better.
_LEAST_NOISE = 1e-4
# Losses within this factor of a budget's least shape its parabola.
_NEAR = 1.15


@dataclass(frozen=True)
class Law:
    """A function of compute, or of size and data.

    Args:
        formula: as text.
        constants: by name.
        error: largest relative error of the loss over the points fitted.
        intervals: of 90 %, by constant.
        flat: exponents that the losses do not tell from an end of the range searched.
    """

    formula: str
    constants: dict[str, float]
    error: float
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    flat: tuple[str, ...] = ()

    def record(self) -> FittedLaw:
        """Its entry of law.json."""
        return FittedLaw(self.formula, self.constants, self.intervals, self.error, self.determined)

    @property
    def determined(self) -> bool:
        """Whether the runs tell every exponent.

        Told is one for which both ends of the range searched fit the losses worse, beyond their noise (`flat`), and
        whose interval is within a factor of 3. Where the search stopped says nothing: along an exponent that the
        losses do not tell, it stops anywhere.
        """
        low, high = _EXPONENTS
        for name in ("alpha", "beta", "a"):
            if name in self.flat or not low <= self.constants.get(name, low) <= high:
                return False
            if name in self.intervals:
                least, most = self.intervals[name]
                if least <= 0 or most > _WIDE * least:
                    return False
        return True

    def loss(self, flops: ArrayLike) -> Array:
        """L(C) of a budget law."""
        k = self.constants
        return k["E"] + k["A"] * np.asarray(flops, float) ** -k["alpha"]

    def loss_of(self, params: ArrayLike, tokens: ArrayLike) -> Array:
        """L(N, D) of a loss law."""
        k = self.constants
        n, d = np.asarray(params, float), np.asarray(tokens, float)
        return k["E"] + k["A"] * n ** -k["alpha"] + k["B"] * d ** -k["beta"]


def fit_budget_law(flops: ArrayLike, losses: ArrayLike, near: Law | None = None) -> Law:
    """L(C) = E + A C^-alpha through the best loss of each budget.

    Args:
        flops, losses: of the budgets.
        near: start from this law alone, instead of from a grid, and take over which exponents are flat.

    Raises:
        UserError: fewer than 3 budgets, or a loss that is not above 0.
    """
    c, loss = _checked(flops, losses, 3, "budgets")
    k = near.constants if near else {}
    starts = [(k["E"], [k["A"]], [k["alpha"]])] if k else []
    e, (a,), (alpha,), error, flat = _fit_terms([c], loss, starts)
    names = near.flat if near else tuple(itertools.compress(["alpha"], flat))
    return Law("L = E + A C^-alpha", {"E": e, "A": a, "alpha": alpha}, error, flat=names)


def fit_loss_law(params: ArrayLike, tokens: ArrayLike, losses: ArrayLike, near: Law | None = None) -> Law:
    """L(N, D) = E + A N^-alpha + B D^-beta through every run.

    Args:
        params, tokens, losses: of the runs.
        near: start from this law alone, instead of from a grid, and take over which exponents are flat.

    Raises:
        UserError: fewer than 6 runs, or a loss that is not above 0.
    """
    n, loss = _checked(params, losses, 6, "runs")
    k = near.constants if near else {}
    starts = [(k["E"], [k["A"], k["B"]], [k["alpha"], k["beta"]])] if k else []
    e, (a, b), (alpha, beta), error, flat = _fit_terms([n, np.asarray(tokens, float)], loss, starts)
    constants = {"E": e, "A": a, "B": b, "alpha": alpha, "beta": beta}
    names = near.flat if near else tuple(itertools.compress(["alpha", "beta"], flat))
    return Law("L = E + A N^-alpha + B D^-beta", constants, error, flat=names)


def find_optimum(flops: float, params: ArrayLike, losses: ArrayLike) -> Optimum:
    """The best size of one budget, from the isoFLOP parabola through the sizes near it.

    Sizes whose loss is within 15 % of the least take part, at least the best and its two neighbours: far from the
    optimum the loss is no parabola.

    Args:
        flops: the budget.
        params, losses: of runs of different sizes.

    Raises:
        UserError: fewer than 3 sizes, two runs of one size, or a loss that is not above 0.
    """
    n, loss = _checked(params, losses, 3, f"sizes at {flops:.3g} FLOPs")
    order = np.argsort(n)
    n, loss = n[order], loss[order]
    if (np.diff(n) == 0).any():
        raise UserError(f"two runs of one size at {flops:.3g} FLOPs: take the mean of their losses")
    best = int(loss.argmin())
    edge = Optimum(flops, float(n[best]), float(loss[best]), inside=False)
    if best in (0, len(n) - 1):
        return edge
    near = loss <= _NEAR * loss[best]
    near[best - 1 : best + 2] = True
    x = np.log(n[near])
    middle = x.mean()
    c2, c1, c0 = np.polyfit(x - middle, loss[near], 2)
    if c2 <= 0:
        return edge
    at = -c1 / (2 * c2)
    if not x.min() <= at + middle <= x.max():
        return edge
    return Optimum(flops, float(np.exp(at + middle)), float(c0 + c1 * at + c2 * at**2), inside=True)


def fit_size_law(flops: ArrayLike, params: ArrayLike) -> Law:
    """N* = k C^a through the optimal sizes of budgets, a line on log axes.

    Raises:
        UserError: fewer than 2 budgets.
    """
    c, n = _checked(flops, params, 2, "budgets with an optimal size")
    a, b = np.polyfit(np.log(c), np.log(n), 1)
    error = float(np.max(np.abs(np.exp(a * np.log(c) + b) / n - 1)))
    return Law("N = k C^a", {"k": float(np.exp(b)), "a": float(a)}, error)


def intervals(
    fit: Callable[[Array], dict[str, float]], losses: Array, noise: float, times: int = 200, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """90 % intervals of constants: every loss moved by its noise, the whole fit done again.

    Args:
        fit: constants from losses; draws for which it raises UserError, or gives others, are left out.
        losses: of the runs.
        noise: relative standard deviation of a loss, such as over seeds.
        times: of drawing.
        seed: of the draws.

    Raises:
        UserError: hardly any draw could be fitted.
    """
    generator = np.random.default_rng(seed)
    wanted = set(fit(losses))
    fitted: list[dict[str, float]] = []
    for _ in range(times):
        try:
            constants = fit(losses * np.exp(noise * generator.standard_normal(len(losses))))
        except UserError:
            continue
        if set(constants) == wanted:
            fitted.append(constants)
    if len(fitted) < times / 4:
        raise UserError(f"only {len(fitted)} of {times} noisy ladders could be fitted: more runs are needed")
    low, high = (1 - _INTERVAL) / 2, (1 + _INTERVAL) / 2
    return {
        name: (
            float(np.quantile([row[name] for row in fitted], low)),
            float(np.quantile([row[name] for row in fitted], high)),
        )
        for name in sorted(wanted)
    }


def _fit_terms(
    inputs: Sequence[Array], loss: Array, starts: Sequence[tuple[float, list[float], list[float]]]
) -> tuple[float, list[float], list[float], float, list[bool]]:
    """E, factors, exponents and largest relative error of loss = E + sum of factor_k input_k^-exponent_k.

    Last, with no starts given, which exponents are flat: held at an end of the range searched, all else fitted again,
    the objective rises less than an F test at 90 % asks for, with the noise that the best fit leaves.

    Inputs are taken over their geometric means, which frees the factors of the exponents; all but the exponents'
    signs is then free in logarithms, and the logarithm of the sum has a gradient of softmax weights.
    """
    count = len(inputs)
    centers = [float(np.log(x).mean()) for x in inputs]
    x = np.stack([np.log(each) - center for each, center in zip(inputs, centers, strict=True)])  # K runs
    target, least = np.log(loss), float(np.log(loss.min()))

    def terms(p: Array) -> Array:
        rows = p[1 : count + 1, None] - np.exp(p[count + 1 :])[:, None] * x
        return np.vstack([np.full(len(loss), p[0]), rows])  # K+1 runs

    def objective(p: Array) -> tuple[float, Array]:
        logs = terms(p)
        total = np.logaddexp.reduce(logs, axis=0)
        residual = total - target
        outer = np.abs(residual) > _HUBER
        value = np.where(outer, _HUBER * (np.abs(residual) - _HUBER / 2), residual**2 / 2).sum()
        slope = np.clip(residual, -_HUBER, _HUBER)  # d value / d total
        weights = np.exp(logs - total) * slope  # K+1 runs
        by_exponent = -(weights[1:] * x).sum(1) * np.exp(p[count + 1 :])
        gradient = np.concatenate([weights.sum(1), by_exponent])
        return float(value / _HUBER**2), gradient / _HUBER**2

    tried = [
        np.array(
            [
                np.log(e),
                *(np.log(f) - k * center for f, k, center in zip(factors, exponents, centers, strict=True)),
                *np.log(exponents),
            ]
        )
        for e, factors, exponents in starts
    ] or [
        np.array(
            [least + np.log(share), *(count * [least + np.log((1 - share) / count)]), *np.log(exponents)]
        )
        for share in (0.05, 0.3, 0.6, 0.9)
        for exponents in itertools.product((0.05, 0.15, 0.4, 0.8), repeat=count)
    ]
    low, high = np.log(_EXPONENTS).tolist()
    bounds = [(least - 12, least), *(count * [(least - 14, least + 4)]), *(count * [(low, high)])]

    def search(start: Array, within: Sequence[tuple[float, float]]) -> Any:
        options = {"maxiter": 3000}
        return minimize(objective, start, jac=True, method="L-BFGS-B", bounds=within, options=options)

    results = [search(start, bounds) for start in tried]
    best = min(results, key=lambda result: result.fun)
    p = best.x

    def rise(place: int, end: float) -> float:
        """How much worse the best fit is with an exponent held at one end of its range."""
        held = [*bounds[:place], (end, end), *bounds[place + 1 :]]
        starts_held = [each.x for each in results] if count == 1 else [p]
        return min(search(np.clip(x, *np.transpose(held)), held).fun for x in starts_held) - best.fun

    spare = max(1, len(loss) - len(p))
    noise = max(best.fun / spare, (_LEAST_NOISE / _HUBER) ** 2 / 2)
    asked = noise * fdtri(1, spare, _INTERVAL)
    flat = [
        not starts and any(rise(place, end) < asked for end in (low, high))
        for place in range(count + 1, 2 * count + 1)
    ]
    exponents = [float(value) for value in np.exp(p[count + 1 :])]
    factors = [
        float(np.exp(a + k * center))
        for a, k, center in zip(p[1 : count + 1], exponents, centers, strict=True)
    ]
    error = np.exp(np.logaddexp.reduce(terms(p), axis=0) - target) - 1
    return float(np.exp(p[0])), factors, exponents, float(np.abs(error).max()), flat


def _checked(x: ArrayLike, y: ArrayLike, least: int, what: str) -> tuple[Array, Array]:
    first, second = np.asarray(x, float), np.asarray(y, float)
    if len(first) < least:
        raise UserError(f"{len(first)} {what} are too few to fit: {least} at least")
    if not (
        np.isfinite(first).all() and np.isfinite(second).all() and (first > 0).all() and (second > 0).all()
    ):
        raise UserError(f"the {what} hold values that are not finite and above 0: remove those runs")
    return first, second
