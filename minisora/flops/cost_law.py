"""Laws fitted to measured passes: what a forward pass costs, and how long passes take, from a model's shape.

**Cost.** MACs of one sample = a N P_token + b A + c P_sample, by least squares on counted passes: P_token are
the weights that meet every one of the N tokens, P_sample those that run once (modulation, noise level), and
A = sum over blocks of N K D, with K the keys that a token sees. Arithmetic says a = 1, b = 2, c = 1; the fit
must find that out for itself. The popular law N P, with all parameters P and no attention, is fitted beside
it to show its error.

**Time.** Seconds of a call = overhead L + FLOPs_linear s_linear + FLOPs_attention s_attention + elements
s_element, none negative: fixed cost of L blocks, products, attention, and elementwise traffic (elements =
batch N D L).

Both minimise relative errors, so small and large points weigh the same, and both are tested on the largest
fifth of the points, which they did not see.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisora.flops.sweep import SweepPoint

Array = NDArray[np.float64]
HELD_OUT = 0.2


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    `coefficients` by name; errors are relative: the largest on the points fitted, the largest and the median
    on those held out.
    """

    formula: str
    coefficients: dict[str, float]
    fitted_points: int
    held_out_points: int
    fit_error: float
    held_out_error: float
    held_out_median: float
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def split(points: Sequence[SweepPoint], share: float = HELD_OUT) -> tuple[list[int], list[int]]:
    """Indices to fit and to hold out: the largest `share` of the points by MACs, one at least."""
    order = sorted(range(len(points)), key=lambda i: points[i].macs * points[i].batch)
    cut = len(order) - max(1, round(share * len(order)))
    return order[:cut], order[cut:]


def fit_macs(points: Sequence[SweepPoint]) -> Fit:
    """Fit the cost law to counted MACs of one sample."""
    features = np.array(
        [[p.tokens * p.token_params, p.attention_pairs, p.sample_params] for p in points], float
    )
    target = np.array([p.macs for p in points], float)
    return _fit(
        "MACs = a N P_token + b sum_blocks(N K D) + c P_sample",
        ("a", "b", "c"),
        features,
        target,
        split(points),
    )


def fit_naive(points: Sequence[SweepPoint]) -> Fit:
    """Fit the popular law, every parameter meeting every token and no attention."""
    features = np.array([[p.tokens * p.params] for p in points], float)
    return _fit("MACs = a N P", ("a",), features, np.array([p.macs for p in points], float), split(points))


def fit_seconds(points: Sequence[SweepPoint], seconds: Sequence[float], passes: float = 1.0) -> Fit:
    """Fit the time law to seconds of a call.

    Args:
        points: measured points.
        seconds: of each, of one call over its whole batch.
        passes: FLOPs of the call over forward FLOPs, so that rates come out in FLOP/s (about 3 for training).
    """
    linear = [2 * passes * p.batch * (p.tokens * p.token_params + p.sample_params) for p in points]
    attention = [4 * passes * p.batch * p.attention_pairs for p in points]
    elements = [p.batch * p.tokens * p.width * p.depth for p in points]
    features = np.array([[p.depth for p in points], linear, attention, elements], float).T
    fit = _fit(
        "seconds = overhead L + FLOPs_linear s_linear + FLOPs_attention s_attention + elements s_element",
        ("overhead", "s_linear", "s_attention", "s_element"),
        features,
        np.array(seconds, float),
        split(points),
    )
    rates = [
        f"{name.removeprefix('s_')}: {1 / value / 1e9:,.1f} G/s"
        for name, value in fit.coefficients.items()
        if name.startswith("s_") and value > 0
    ]
    fit.notes.extend(rates)
    return fit


def _fit(
    formula: str,
    names: tuple[str, ...],
    features: Array,
    target: Array,
    parts: tuple[list[int], list[int]],
) -> Fit:
    """Least squares of relative errors with no negative coefficient (active set: drop the most negative)."""
    train, held = parts
    scaled = features[train] / target[train][:, None]  # predicted / measured; its target is 1
    active = list(range(features.shape[1]))
    while True:
        norms = np.linalg.norm(scaled[:, active], axis=0)
        norms[norms == 0] = 1.0
        solution = np.linalg.lstsq(scaled[:, active] / norms, np.ones(len(train)), rcond=None)[0] / norms
        if solution.min() >= 0 or len(active) == 1:
            break
        active.pop(int(np.argmin(solution * norms)))
    coefficients = np.zeros(features.shape[1])
    coefficients[active] = solution
    errors = np.abs(features @ coefficients / target - 1)
    return Fit(
        formula,
        {name: float(value) for name, value in zip(names, coefficients, strict=True)},
        len(train),
        len(held),
        float(errors[train].max()),
        float(errors[held].max()),
        float(np.median(errors[held])),
    )
