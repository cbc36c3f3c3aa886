"""Counts that must agree: fvcore's, torch's and the closed form's, module by module, or no number at all.

Units: MACs of the whole call.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from minisora.errors import UserError
from minisora.flops.count_fvcore import FvcoreCount

TOLERANCE = 0.005


@dataclass(frozen=True)
class Counts:
    """MACs of one pass by each way of counting; None where there is no closed form."""

    fvcore_macs: int
    torch_macs: int
    closed_form_macs: int | None

    @property
    def max_disagreement(self) -> float:
        """Largest difference of two counts over the largest count; 0.005 is half a per cent."""
        return disagreement(self.fvcore_macs, self.torch_macs, self.closed_form_macs)

    def to_dict(self) -> dict[str, int | None]:
        """As JSON."""
        return asdict(self)


def disagreement(*counts: int | None) -> float:
    """(max - min) / max of the counts there are; 0 when all are 0."""
    known = [count for count in counts if count is not None]
    return (max(known) - min(known)) / max(known) if max(known) else 0.0


def own_work(inclusive: Mapping[str, int]) -> dict[str, int]:
    """Each module's own work from totals that include children: path -> work, zeros left out.

    A path's children are taken from its nearest ancestor that is listed (containers are never called).
    """
    own = dict(inclusive)
    for path, work in inclusive.items():
        parent = path
        while parent:
            parent = parent.rpartition(".")[0]
            if parent in inclusive:
                own[parent] -= work
                break
    return {path: work for path, work in own.items() if work}


def agree(
    what: str,
    fvcore: FvcoreCount,
    torch_flops: Mapping[str, int],
    closed: Mapping[str, int] | None,
    *,
    by_module: bool = True,
    torch_operators: Mapping[str, int] | None = None,
) -> Counts:
    """Compare the counts of one pass.

    Args:
        what: name of the pass for messages.
        fvcore: MACs by module and operator.
        torch_flops: FLOPs by module, children included, from `StrictFlopCounter.by_module`.
        closed: MACs by module (own work), or None where there is no closed form.
        by_module: whether every single module must agree too, not only the total. Foreign models may share a
            module or call a child's parts, which each tool books in its own way.
        torch_operators: FLOPs by operator, for the message.

    Raises:
        UserError: two counts differ by more than half a per cent; names the modules and operators that do.
    """
    books = [own_work(fvcore.by_module()), {p: f // 2 for p, f in own_work(torch_flops).items()}]
    if closed is not None:
        books.append(dict(closed))
    totals = [sum(book.values()) for book in books]
    paths = dict.fromkeys(path for book in books for path in book)
    differing = [p for p in paths if disagreement(*(book.get(p, 0) for book in books)) > TOLERANCE]
    if disagreement(*totals) > TOLERANCE or (by_module and differing):
        raise UserError(_message(what, books, totals, differing, fvcore.by_operator(), torch_operators))
    return Counts(totals[0], totals[1], totals[2] if closed is not None else None)


def _message(
    what: str,
    books: list[dict[str, int]],
    totals: list[int],
    differing: list[str],
    operators: Mapping[str, int],
    torch_operators: Mapping[str, int] | None,
) -> str:
    names = ("fvcore", "torch", "closed form")

    def row(values: list[int]) -> str:
        return ", ".join(f"{name} {value:,}" for name, value in zip(names, values, strict=False))

    def gap(path: str) -> int:
        values: list[Any] = [book.get(path, 0) for book in books]
        return max(values) - min(values)

    worst = sorted(differing, key=gap, reverse=True)[:3]
    modules = "; ".join(f"'{p or '(root)'}': {row([book.get(p, 0) for book in books])}" for p in worst)
    seen = ", ".join(f"{name} {macs:,}" for name, macs in sorted(operators.items(), key=lambda kv: -kv[1]))
    by_torch = ", ".join(f"{op} {flops // 2:,}" for op, flops in (torch_operators or {}).items())
    return (
        f"the counts of {what} disagree by {disagreement(*totals):.2%} (MACs: {row(totals)}), so none is "
        f"given. {len(differing)} modules differ, most: {modules}. Operators by fvcore: {seen or 'none'}"
        + (f"; by torch: {by_torch}" if by_torch else "")
    )
