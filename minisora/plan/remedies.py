"""What to do: what fits where a plan does not, and the cheapest way to a clip within so many seconds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from minisora.errors import UserError
from minisora.limits import check_number
from minisora.memory import size_text
from minisora.plan.answer import Plan, plan, quantity_words
from minisora.plan.held_out import Evidence
from minisora.plan.question import KEPT_FREE, Question, cards_by_name, on_cards
from minisora.screen import Table

# Cards that one looks for.
NUMBERS = (1, 2, 4, 8, 16, 32, 64)
# Shorter sides of a picture, with the share of the asked one.
SMALLER = (0.75, 0.5, 0.375, 0.25)


def fitting(own: Plan) -> list[str]:
    """What would fit, a line each: the least that changes nothing of the result, and the largest clip as it is.

    Args:
        own: a plan that does not fit its cards.
    """
    lines = [words for change in _gentle(own.question) if (words := _if_fits(own, *change))][:3]
    smaller = next((words for change in _smaller(own.question) if (words := _if_fits(own, *change))), None)
    return [*lines, *([smaller] if smaller else [])]


def _if_fits(own: Plan, label: str, question: Question | None) -> str | None:
    if question is None:
        return None
    other = plan(question, own.known)
    return f"{label}: {size_text(other.memory)}" if other.fits else None


def _gentle(question: Question) -> Iterator[tuple[str, Question | None]]:
    """Changes that leave the clip and the model as they are, the cheapest in time first."""
    if question.train:
        batches = [n for n in (question.batch // 2, question.batch // 4, 1) if 0 < n < question.batch]
        for batch in batches:
            yield f"--batch {batch} with accumulation", replace(question, batch=batch)
        for kind in ("selective", "full"):
            if question.checkpointing == "none" or kind == "full":
                yield f"--checkpointing {kind}", replace(question, checkpointing=kind)
        for cards in NUMBERS:
            if cards > question.cards:
                many = replace(question, cards=cards, data=cards, fsdp=cards, sequence=1, tensor=1)
                yield f"--cards {cards}, weights over all", many
                yield f"--cards {cards} --checkpointing full", replace(many, checkpointing="full")
        return
    tiles = replace(question, tiles=True)
    if not question.tiles:
        yield "--tiles", tiles
    if question.place == "resident":
        yield "--place swapped", replace(question, place="swapped")
        yield "--place swapped --tiles", replace(tiles, place="swapped")
    if question.place != "streamed":
        yield "--place streamed --tiles", replace(tiles, place="streamed")
    if question.precision == "bfloat16":
        yield "--precision float8 --tiles", replace(tiles, precision="float8")
    for cards in NUMBERS:
        if cards > question.cards:
            shared = on_cards(question, cards)
            yield f"--cards {cards}", shared
            yield (
                f"--cards {cards} --fsdp {cards} --tiles",
                shared and replace(shared, fsdp=cards, tiles=True),
            )


def _smaller(question: Question) -> Iterator[tuple[str, Question]]:
    """Smaller clips: fewer frames, then smaller pictures."""
    subject = question.subject
    for share in SMALLER:
        stride = subject.vae[0]
        frames = int(subject.causal) + stride * max(
            1, int((question.frames - subject.causal) * share) // stride
        )
        if frames < question.frames:
            yield f"--frames {frames}", replace(question, frames=frames)
    for share in SMALLER:
        sides = [
            step * max(1, int(side * share) // step)
            for side, step in zip((question.height, question.width), subject.stride, strict=True)
        ]
        yield f"--size {sides[0]}x{sides[1]}", replace(question, height=sides[0], width=sides[1])


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
        """The five cheapest."""
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
        for each in self.ways[:5]:
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
        if card.price is None or card.memory is None or question.precision not in card.tflops:
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
    return f"does not fit {own.question.card.name}: {size_text(own.memory)} of {size_text(left)}"
