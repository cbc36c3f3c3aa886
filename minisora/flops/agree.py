"""Counts that must agree: fvcore's, torch's and the closed form's, module by module, or no number at all.

Units: MACs of the whole call (1 MAC = 2 FLOPs).
"""

from collections import Counter
from dataclasses import dataclass, field

from minisora.errors import UserError

TOLERANCE = 0.005
"""Largest relative difference of two counts of one thing, half a per cent."""

WAYS = ("fvcore", "torch", "closed form")


@dataclass(frozen=True)
class Count:
    """What one way of counting saw of one call.

    Args:
        way: one of `WAYS`.
        own: (module path, operator) -> MACs done in that module itself, not in its children. Paths are the model's
            own, "" is the root; a closed form has the group of a product for its operator.
        elementwise: other operations, norms included, by the same keys: rough, and in no total of MACs.
    """

    way: str
    own: dict[tuple[str, str], int] = field(default_factory=dict)
    elementwise: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def total_macs(self) -> int:
        """MACs of the whole call."""
        return sum(self.own.values())

    @property
    def total_elementwise(self) -> int:
        """Elementwise operations of the whole call."""
        return sum(self.elementwise.values())

    def own_work(self) -> dict[str, int]:
        """MACs by module path, children left out."""
        sums: Counter[str] = Counter()
        for (path, _), macs in self.own.items():
            sums[path] += macs
        return dict(sums)

    def by_module(self) -> dict[str, int]:
        """MACs by module path, children included ("" is everything)."""
        sums: Counter[str] = Counter()
        for (path, _), macs in self.own.items():
            names = path.split(".") if path else []
            for depth in range(len(names) + 1):
                sums[".".join(names[:depth])] += macs
        return dict(sums)

    def by_operator(self) -> dict[str, int]:
        """MACs by operator name."""
        sums: Counter[str] = Counter()
        for (_, operator), macs in self.own.items():
            sums[operator] += macs
        return dict(sums)


@dataclass(frozen=True)
class Agreement:
    """Counts of one call that agree."""

    counts: tuple[Count, ...]

    @property
    def macs(self) -> int:
        """MACs of the call: the closed form's where there is one, else fvcore's."""
        return self.counts[-1 if len(self.counts) == len(WAYS) else 0].total_macs

    @property
    def max_disagreement(self) -> float:
        """Largest difference of two counts over the largest count; 0.005 is half a per cent."""
        return disagreement(*(count.total_macs for count in self.counts))

    def to_dict(self, batch: int = 1) -> dict[str, int | None]:
        """MACs of one sample by way of counting; None where there is no closed form."""
        totals = {count.way: count.total_macs // batch for count in self.counts}
        return {f"{way.replace(' ', '_')}_macs": totals.get(way) for way in WAYS}


def disagreement(*counts: int) -> float:
    """(max - min) / max of the counts; 0 when all are 0."""
    return (max(counts) - min(counts)) / max(counts) if max(counts) else 0.0


def agree(what: str, *counts: Count | None, by_module: bool = True) -> Agreement:
    """The counts of one call, if they agree.

    Args:
        what: name of the call for messages.
        counts: one of each way, in the order of `WAYS`; None where there is no closed form.
        by_module: whether every single module must agree too, not only the total.

    Raises:
        UserError: two counts differ by more than half a per cent; names the modules and operators that do.
    """
    known = tuple(count for count in counts if count is not None)
    books = [count.own_work() for count in known]
    paths = dict.fromkeys(path for book in books for path in book)
    differing = [path for path in paths if disagreement(*(book.get(path, 0) for book in books)) > TOLERANCE]
    agreement = Agreement(known)
    if agreement.max_disagreement > TOLERANCE or (by_module and differing):
        raise UserError(_message(what, agreement, books, differing))
    return agreement


def _message(what: str, agreement: Agreement, books: list[dict[str, int]], differing: list[str]) -> str:
    counts = agreement.counts

    def row(values: list[int]) -> str:
        return ", ".join(f"{count.way} {value:,}" for count, value in zip(counts, values, strict=True))

    def values_at(path: str) -> list[int]:
        return [book.get(path, 0) for book in books]

    def operators(count: Count) -> str:
        largest_first = sorted(count.by_operator().items(), key=lambda item: -item[1])
        return f"by {count.way}: {', '.join(f'{name} {macs:,}' for name, macs in largest_first) or 'none'}"

    worst = sorted(differing, key=lambda path: min(values_at(path)) - max(values_at(path)))[:3]
    modules = "; ".join(f"'{path or '(root)'}': {row(values_at(path))}" for path in worst)
    return (
        f"the counts of {what} disagree by {agreement.max_disagreement:.2%} (MACs: "
        f"{row([count.total_macs for count in counts])}), so none is given. {len(differing)} modules differ, most: "
        f"{modules}. Operators {'; '.join(map(operators, counts))}"
    )
