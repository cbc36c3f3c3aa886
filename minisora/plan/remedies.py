"""What to do: what fits where a plan does not, and the cheapest way to a clip within so many seconds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from minisora.errors import UserError
from minisora.limits import check_number
from minisora.memory import size_text
from minisora.plan.answer import Plan, plan, quantity_words
from minisora.plan.held_out import Evidence
from minisora.plan.question import EIGHT_BITS, KEPT_FREE, Question, cards_by_name, on_cards
from minisora.screen import Table

# Cards that one looks for.
NUMBERS = (1, 2, 4, 8, 16, 32, 64)
# Shorter sides of a picture, with the share of the asked one.
SMALLER = (0.75, 0.5, 0.375, 0.25)
# Remedies that change nothing of the result, at most.
TOLD = 3
# Ways to a clip that are shown.
SHOWN = 5


@dataclass(frozen=True)
class Remedy:
    """One thing to try.

    Args:
        kind: of each kind only the first that fits is told.
        words: as it is typed.
        settings: of the question, that it changes.
    """

    kind: str
    words: str
    settings: dict[str, Any]


def fitting(own: Plan) -> list[str]:
    """What would fit, a line each: the least that changes nothing of the result, and the largest clip as it is.

    Args:
        own: a plan that does not fit its cards.
    """
    gentle, smaller = (
        _that_fit(own, gentle_remedies(own.question)),
        _that_fit(own, smaller_clips(own.question)),
    )
    return [*islice(gentle, TOLD), *islice(smaller, 1)]


def _that_fit(own: Plan, remedies: Iterable[Remedy]) -> Iterator[str]:
    """The first of each kind, with its memory."""
    kinds: set[str] = set()
    for remedy in remedies:
        if remedy.kind not in kinds:
            other = plan(replace(own.question, **remedy.settings), own.known)
            if other.fits:
                kinds.add(remedy.kind)
                yield f"{remedy.words}: {size_text(other.memory)}"


def gentle_remedies(question: Question) -> Iterator[Remedy]:
    """Changes that leave the clip and the model as they are, the cheapest in time first."""
    if question.train:
        batch = question.batch // 2
        while batch:
            yield Remedy("batch", f"--batch {batch}, with accumulation", {"batch": batch})
            batch //= 2
        for kind in ("selective", "full"):
            yield Remedy("checkpointing", f"--checkpointing {kind}", {"checkpointing": kind})
        sharing = question.sequence * question.tensor
        for cards in NUMBERS:
            if cards > question.cards and cards % sharing == 0:
                data, fsdp = cards // sharing, cards // question.tensor
                words = f"--cards {cards} --data {data} --fsdp {fsdp}"
                many = {"cards": cards, "data": data, "fsdp": fsdp}
                yield Remedy("cards", words, many)
                yield Remedy("cards", f"{words} --checkpointing full", {**many, "checkpointing": "full"})
        return
    yield Remedy("tiles", "--tiles", {"tiles": True})
    yield Remedy("place", "--place swapped", {"place": "swapped"})
    yield Remedy("place", "--place swapped --tiles", {"place": "swapped", "tiles": True})
    yield Remedy("place", "--place streamed --tiles", {"place": "streamed", "tiles": True})
    for precision in EIGHT_BITS:
        if question.precision in ("bfloat16", "float16") and precision in question.card.precisions:
            words = f"--precision {precision} --tiles"
            yield Remedy("precision", words, {"precision": precision, "tiles": True})
    kept, heads = question.data * question.tensor, question.subject.heads // question.tensor
    for cards in NUMBERS:
        sequence = cards // kept
        if cards > question.cards and cards % kept == 0 and heads % sequence == 0:
            words, shared = f"--cards {cards} --sequence {sequence}", {"cards": cards, "sequence": sequence}
            fsdp = cards // question.tensor
            if fsdp % question.fsdp == 0:
                yield Remedy("cards", words, shared)
            yield Remedy("cards", f"{words} --fsdp {fsdp} --tiles", {**shared, "fsdp": fsdp, "tiles": True})


def smaller_clips(question: Question) -> Iterator[Remedy]:
    """Fewer frames, then smaller pictures, then both, the largest first."""
    subject = question.subject
    shorter, smaller = [], []
    for share in SMALLER:
        frames = int(subject.fitting(share * question.frames))
        height, width = (
            step * max(1, int(side * share) // step)
            for side, step in zip((question.height, question.width), subject.stride, strict=True)
        )
        smaller.append(Remedy("clip", f"--size {height}x{width}", {"height": height, "width": width}))
        if frames < question.frames:
            shorter.append(Remedy("clip", f"--frames {frames}", {"frames": frames}))
    yield from shorter
    yield from smaller
    for few, small in zip(shorter, smaller, strict=False):
        yield Remedy("clip", f"{few.words} {small.words}", few.settings | small.settings)


@dataclass(frozen=True)
class Ways:
    """Ways to a clip within a limit, the cheapest first; without any, the fastest that there is."""

    seconds: float
    ways: list[Plan]
    fastest: Plan | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"within_seconds": self.seconds, "ways": [_way(each) for each in self.ways]}

    def table(self) -> Table:
        """The cheapest few."""
        title = f"cheapest ways to a clip within {self.seconds:g} s"
        table = Table(
            "cards",
            "weights, decoder",
            "seconds",
            "$ a clip",
            "memory of a card",
            title=title,
            title_justify="left",
        )
        for each in self.ways[:SHOWN]:
            question = each.question
            table.add_row(
                f"{question.cards} x {question.card.name}",
                f"{question.place}{', tiles' if question.tiles else ''}{', fsdp' if question.fsdp > 1 else ''}",
                quantity_words(each.seconds, "s"),
                quantity_words(float(each.numbers["clip_cost"]), "$"),
                size_text(each.memory),
            )
        if not self.ways:
            nearest = self.fastest
            table.caption = (
                "none of the listed cards, up to 64 of them"
                if nearest is None
                else f"none; the fastest takes {quantity_words(nearest.seconds, 's')}: {nearest.question.cards} x "
                f"{nearest.question.card.name}. Fewer steps (--steps), a cache (--reused) or a smaller clip would do it"
            )
        return table


def _way(each: Plan) -> dict[str, Any]:
    question = each.question
    return {
        "card": question.card.name,
        "cards": question.cards,
        "place": question.place,
        "tiles": question.tiles,
        "fsdp": question.fsdp,
        "seconds": each.seconds,
        "dollars": float(each.numbers["clip_cost"]),
        "memory_bytes": each.memory,
    }


def cheapest(question: Question, seconds: float, known: Evidence | None = None) -> Ways:
    """Every listed card that has a price, 1 to 64 of them on one clip, the least change of layout that fits.

    Args:
        question: of serving; its own card and layout are not used.
        seconds: limit for a clip.
        known: as of `plan`.

    Raises:
        UserError: a training is asked about, or the limit is none.
    """
    check_number("under", seconds, 0.0, 1e9, above=True)
    if question.train:
        raise UserError(f"--under {seconds:g} is of a clip's time: leave out --train")
    found = []
    for card in cards_by_name().values():
        if card.price is None or card.memory is None or question.precision not in card.precisions:
            continue
        for number in NUMBERS:
            shared = on_cards(question, number, card=card)
            if shared is None:
                continue
            tries = [shared, replace(shared, tiles=True)]
            tries += [replace(shared, tiles=True, fsdp=number)] if number > 1 else []
            fits = next((each for each in (plan(one, known) for one in tries) if each.fits), None)
            if fits is not None:
                found.append(fits)
    within = [each for each in found if each.seconds <= seconds]
    within.sort(key=lambda each: (float(each.numbers["clip_cost"]), each.seconds))
    return Ways(seconds, within, min(found, key=lambda each: each.seconds, default=None))


def verdict(own: Plan) -> str:
    """Whether it fits, in a line."""
    room = own.question.card.memory
    if room is None:
        return f"memory of {own.question.card.name} is unknown: {size_text(own.memory)} are needed"
    left = room - KEPT_FREE
    if own.fits:
        return f"fits: {size_text(own.memory)} of {size_text(left)} that a process may take of {own.question.card.name}"
    return f"does not fit {own.question.card.name}: {size_text(own.memory)}, and a process may take {size_text(left)}"
