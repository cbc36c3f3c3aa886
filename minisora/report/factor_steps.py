"""From one preset's result to another's in factors: assumptions change one after the other, in a fixed order.

Each factor is what the result does when that assumption takes its new value, those before it having changed
and those after it not. The product is the whole change, whatever the order; a single factor can depend on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from minisora.report.assumptions import Assumptions
from minisora.report.model import estimate
from minisora.report.words import setting

NEGLIGIBLE = 0.005  # relative change; smaller steps are put together


@dataclass(frozen=True)
class Step:
    """One step from a result to another.

    Args:
        label: what changes, from what to what.
        names: the assumptions.
        before, after: the result around it, in its unit.
    """

    label: str
    names: tuple[str, ...]
    before: float
    after: float

    @property
    def factor(self) -> float:
        """What it multiplies the result by."""
        return self.after / self.before


def bridge(start: Assumptions, end: Assumptions, result: str) -> list[Step]:
    """Steps from the result of one preset to that of another; empty if it is the same.

    Steps that matter less than `NEGLIGIBLE` are one step, the last.

    Args:
        start, end: presets with the same names.
        result: name of a result.
    """
    groups: dict[str, list[str]] = {}
    for name, entry in end.entries.items():
        if entry.value != start.entries[name].value:
            groups.setdefault(entry.brief, []).append(name)

    current, value = start, _result(start, result)
    steps, small = [], []
    for label, names in groups.items():
        entries = {**current.entries, **{name: end.entries[name] for name in names}}
        current = replace(current, entries=entries)
        before, value = value, _result(current, result)
        step = Step(_describe(label, names, start, end), tuple(names), before, value)
        if abs(step.factor - 1) >= NEGLIGIBLE:
            steps.append(step)
        elif step.factor != 1:
            small.append(step)
    if not small:
        return steps
    # Small steps are moved to the end, so the running value of those behind each has to be set anew.
    return _chain([*steps, _joined(small)], _result(start, result), value)


def _joined(small: Sequence[Step]) -> Step:
    product = 1.0
    for step in small:
        product *= step.factor
    label = small[0].label if len(small) == 1 else f"{len(small)} changes under {100 * NEGLIGIBLE:g} % each"
    return Step(label, tuple(name for step in small for name in step.names), 1.0, product)


def _chain(steps: Sequence[Step], start: float, end: float) -> list[Step]:
    chained, value = [], start
    for step in steps:
        following = value * step.factor
        chained.append(replace(step, before=value, after=following))
        value = following
    chained[-1] = replace(chained[-1], after=end)  # the product up to rounding
    return chained


def best_values(assumptions: Assumptions) -> dict[str, float]:
    """Every result of a preset at its best values, in the unit of the result."""
    return {name: float(quantity.value) for name, quantity in estimate(assumptions.inputs()).items()}


def _result(assumptions: Assumptions, result: str) -> float:
    return best_values(assumptions)[result]


def _describe(label: str, names: Sequence[str], start: Assumptions, end: Assumptions) -> str:
    if label == "clip":
        e = end.entries
        seconds, height, width = (e[f"sora.{key}"].value for key in ("seconds", "height", "width"))
        return f"clip: {seconds:g} s of {width:g}×{height:g}"
    (name,) = names
    old, new = start.entries[name].value, end.entries[name].value
    if end.entries[name].is_switch:
        return label if new else f"no {label}"
    return f"{label}: {setting(old)} → {setting(new)}"
