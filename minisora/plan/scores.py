"""Predictions beside everything that was disclosed, each from the other developers alone, as a table and as JSON."""

from collections.abc import Callable
from typing import Any

from minisora.memory import size_text
from minisora.plan.answer import quantity_words
from minisora.plan.held_out import Evidence, HeldOut, evidence, interval_of_errors
from minisora.screen import Table

# "Within" of each quantity: a factor of two of time, a quarter of memory.
WITHIN = {"seconds": 2.0, "training": 2.0, "memory": 1.25}
SHOWN: dict[str, Callable[[float], str]] = {
    "seconds": lambda seconds: quantity_words(seconds, "s"),
    "training": lambda times: f"{1 / times:.1%} of roofline",
    "memory": size_text,
}


def share_within(rows: list[HeldOut], factor: float) -> tuple[int, int]:
    """How many rows are within a factor, of how many."""
    return sum(1 / factor <= row.error <= factor for row in rows), len(rows)


def by_model(rows: list[HeldOut]) -> list[HeldOut]:
    """One row a model, that with the middle one of its errors: a model has one vote, however much it disclosed."""
    own: dict[str, list[HeldOut]] = {}
    for row in rows:
        own.setdefault(row.model, []).append(row)
    return [sorted(each, key=lambda row: row.error)[len(each) // 2] for each in own.values()]


def covered(rows: list[HeldOut], among: list[HeldOut]) -> tuple[int, int]:
    """How many rows lie in the interval that all other developers' errors give, of how many that have one.

    Args:
        rows: that are looked for.
        among: all rows of their quantity.
    """
    inside = counted = 0
    for row in rows:
        ends = interval_of_errors([other for other in among if other.developer != row.developer])
        if ends is not None:
            counted += 1
            inside += ends[0] <= row.error <= ends[1]
    return inside, counted


def back_test_tree(known: Evidence | None = None) -> dict[str, Any]:
    """For JSON."""
    known = known or evidence()
    tree: dict[str, Any] = {
        "use": known.use,
        "use_in_training": known.train,
        "share_that_cards_do_not_shorten": known.alone,
    }
    for quantity, factor in WITHIN.items():
        rows = known.of(quantity)
        near, count = share_within(rows, factor)
        inside, tested = covered(rows, rows)
        models_near, models = share_within(by_model(rows), factor)
        models_inside, models_tested = covered(by_model(rows), rows)
        tree[quantity] = {
            "rows": count,
            f"within_{factor:g}": near,
            "covered": inside,
            "tested": tested,
            "models": models,
            f"models_within_{factor:g}": models_near,
            "models_covered": models_inside,
            "models_tested": models_tested,
            "interval": known.interval(quantity),
            "table": [_row(row) for row in rows],
        }
    return tree


def _row(row: HeldOut) -> dict[str, Any]:
    return {
        "model": row.model,
        "developer": row.developer,
        "case": row.case,
        "disclosed": list(row.disclosed),
        "predicted": row.predicted,
        "error": row.error,
        "grade": row.grade,
    }


def back_test_table(known: Evidence | None = None) -> Table:
    """For the screen."""
    known = known or evidence()
    table = Table(
        "model", "case", "disclosed", "predicted", "over", "source", title="back-test", title_justify="left"
    )
    words = []
    for quantity, factor in WITHIN.items():
        rows = known.of(quantity)
        for row in rows:
            shown, (low, high) = SHOWN[quantity], row.disclosed
            ends = shown(high) if low == high else f"{shown(low)} to {shown(high)}"
            table.add_row(row.model, row.case, ends, shown(row.predicted), f"{1 / row.error:.2f}", row.grade)
        table.add_section()
        for name, some in (("rows", rows), ("models", by_model(rows))):
            near, count = share_within(some, factor)
            inside, tested = covered(some, rows)
            words.append(
                f"{quantity}: {near} of {count} {name} within a factor of {factor:g}; {inside} of {tested} in the "
                "interval of the other developers"
            )
    table.caption = "\n".join(words)
    return table
