"""The answer to a question: numbers, each with an interval and where it comes from, as a table and as JSON."""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from minisora.memory import size_text
from minisora.plan.held_out import Evidence, Interval, evidence
from minisora.plan.lines import LINES, Line
from minisora.plan.question import EIGHT_BITS, KEPT_FREE, NETWORK, Question
from minisora.plan.spending import Numbers, spend
from minisora.plan.subject import attention_words, count_words
from minisora.plan.vae_training import vae_spend
from minisora.report.words import human, interval_words
from minisora.screen import Table

# Largest difference of counts of one pass (`minisora.flops.agree`), and of bytes of activations against what torch
# keeps (`benchmarks/plan_memory.py`).
COUNT_ERROR, BYTES_ERROR = 0.005, 0.15


@dataclass(frozen=True)
class Answer:
    """One number.

    Args:
        line: what it is.
        label: for people.
        value: None: it cannot be told.
        interval: 5 to 95 %; None: it is exact, or nothing is known of its error.
        kind, source: where it comes from.
    """

    line: Line
    label: str
    value: float | None
    interval: Interval | None
    kind: str
    source: str

    def words(self) -> str:
        """The value with its unit."""
        return quantity_words(self.value, self.line.unit)

    def interval_words(self) -> str:
        """The ends of the interval, without the unit where that is plain."""
        if self.interval is None:
            return ""
        if self.line.unit == "FLOP" and self.value:
            return f"± {self.interval[1] / self.value - 1:.1%}"
        if self.line.unit in ("bytes", "s"):
            low, high = (quantity_words(end, self.line.unit) for end in self.interval)
            return f"{low} to {high}"
        return interval_words(self.interval, self.line.unit)


def quantity_words(value: float | None, unit: str) -> str:
    """A number as a reader writes it: 71.3 GiB, 4.2 min, 6.5 × 10¹⁷ FLOP, $0.42."""
    if value is None or not math.isfinite(value):
        return "–"
    if unit == "bytes":
        return size_text(value)
    if unit == "s":
        for size, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
            if value >= 2 * size:
                return f"{human(value / size, digits=3)} {name}"
        return f"{human(value, digits=3)} s"
    if unit == "share":
        return f"{100 * value:.3g} %"
    text = human(value, unit, digits=3)
    return text if unit.startswith("$") or not unit else f"{text} {unit}"


def error_factors(question: Question, known: Evidence) -> dict[str, Interval | None]:
    """5 to 95 % factors on a number by what its error rests on; None: exact, or nothing is known."""
    price = question.card.price
    if question.card.use:
        # Of a machine of one's own: its passes.
        least, middle, most = question.card.use[question.train]
        time: Interval | None = (middle / most, middle / least)
    else:
        time = known.interval("training" if question.train else "seconds")
    rent = (price[0] / price[1], price[2] / price[1]) if price is not None else None
    money = product(time, rent)
    return {
        "exact": None,
        "counts": (1 - COUNT_ERROR, 1 + COUNT_ERROR),
        "bytes": (1 - BYTES_ERROR, 1 + BYTES_ERROR),
        "memory": known.interval("memory"),
        "time": time,
        "rate": _inverse(time),
        "money": money,
        "bought": _inverse(money),
    }


def _inverse(factors: Interval | None) -> Interval | None:
    return None if factors is None else (1 / factors[1], 1 / factors[0])


def product(*factors: Interval | None) -> Interval | None:
    """The interval of a product of independent factors, on a log scale; None if nothing is known of one."""
    known = [each for each in factors if each is not None]
    if len(known) < len(factors):
        return None
    ends = [(math.log(low), math.log(high)) for low, high in known]
    middle = sum((low + high) / 2 for low, high in ends)
    spread = math.sqrt(sum(((high - low) / 2) ** 2 for low, high in ends))
    return math.exp(middle - spread), math.exp(middle + spread)


@dataclass(frozen=True)
class Plan:
    """A question with everything that follows."""

    question: Question
    known: Evidence

    @cached_property
    def numbers(self) -> Numbers:
        """Every result by name."""
        inputs = self.question.inputs(
            self.known.use_of(self.question.card.name), self.known.train, self.known.alone
        )
        work = vae_spend if self.question.vae else spend
        return {name: float(value) for name, value in work(self.question.subject, inputs).items()}

    @property
    def memory(self) -> float:
        """Bytes of a card, at the peak."""
        return float(self.numbers["train_memory" if self.question.train else "serve_memory"])

    @property
    def seconds(self) -> float:
        """Of a clip."""
        return float(self.numbers["clip_seconds"])

    @property
    def fits(self) -> bool | None:
        """Whether it fits a card; None where a card's memory is unknown."""
        room = self.question.card.memory
        return None if room is None else self.memory <= room - KEPT_FREE

    def lines(self) -> list[Line]:
        """What is told of this question."""
        question = self.question
        told = {
            "text": bool(self.numbers.get("text_flops")),
            "full": question.checkpointing == "full",
            "eight_bits": question.precision in EIGHT_BITS,
            "cache": bool(self.numbers.get("serve_cache")),
            "memory": question.card.bandwidth is not None,
            "many": question.cards > 1,
            "samples": bool(question.samples),
            "budget": bool(question.budget),
        }
        of = "vae" if question.vae else "train" if question.train else "clip"
        lines = [line for line in LINES if of in line.of.split() and told.get(line.needs, True)]
        return [line for line in lines if line.name in self.numbers]

    def answers(self) -> list[Answer]:
        """In the order of the table."""
        words, factors = self._words(), error_factors(self.question, self.known)
        # No training of a VAE was disclosed to be tested on.
        disclosed = "assumed" if self.question.vae else "back-tested"
        kind = "measured" if self.question.card.use else disclosed
        answers = []
        for line in self.lines():
            number = float(self.numbers[line.name])
            value, ends = (number if math.isfinite(number) else None), factors[line.error]
            answers.append(
                Answer(
                    line,
                    line.label.format(**words),
                    value,
                    (value * ends[0], value * ends[1]) if ends is not None and value is not None else None,
                    kind if line.kind == "use" else line.kind,
                    line.source.format(**words),
                )
            )
        return answers

    def _words(self) -> dict[str, str]:
        """What the lines' sources say of this question."""
        question, subject = self.question, self.question.subject
        shape, keys = subject.shape, float(self.numbers.get("keys_seen", math.nan))
        passes = f"{question.steps} steps x {question.passes} pass{'es' if question.passes > 1 else ''}"
        layout = {name: getattr(question, name) for name in ("data", "fsdp", "sequence", "tensor")}
        again = {"none": "nothing", "selective": "the cheap part", "full": "every block"}
        shards = question.fsdp * question.tensor
        prompt = ", and the prompt" if shape.text == "joint" else ""
        return {
            "shape": f"{shape.layers:g} blocks of {shape.width:g} channels, MLP {shape.hidden:.0f}; a token sees "
            f"{human(keys, digits=3)} ({attention_words(subject.attention)}{prompt})",
            "passes": passes + (f", {100 * question.reused:g} % from a cache" if question.reused else ""),
            "decoder": subject.decoder.source,
            "code": (subject.decoder if question.vae else subject.code).source,
            "tiles": ", in tiles" if question.tiles else "",
            "precision": question.precision,
            "trained": "3 passes of the VAE, 8 of the discriminator"
            if question.vae
            else f"adapters of rank {question.rank}: frozen weights only hand gradients on"
            if question.rank
            else "3 passes",
            "weights": f"frozen in {question.precision}, adapters in float32"
            if question.rank
            else f"float32 and in {question.precision}",
            "place": question.place,
            "shards": f"over {shards} cards" if shards > 1 else "on every card",
            "again": f"{again[question.checkpointing]} computed again",
            "layout": ", ".join(f"{name} {ranks}" for name, ranks in layout.items() if ranks > 1)
            + f"; {question.card.link / 1e9:g} GB/s in a machine, {NETWORK / 1e9:g} between machines",
            "samples": f"{human(question.samples, digits=3)} clips",
            "budget": f"${human(question.budget, digits=3)}",
            "use": self._use_words(),
            "kernel": "" if subject.attention_times == 1 else ", and attention runs in a slower kernel",
        }

    def _use_words(self) -> str:
        card = self.question.card
        if card.use:
            least, share, most = card.use[self.question.train]
            why = f"its passes reached {least:.0%} to {most:.0%}, {card.source}"
        elif self.question.train:
            shares = [1 / row.disclosed[0] for row in self.known.of("training")]
            share = self.known.train
            of = (
                "disclosed trainings of transformers, none of a VAE,"
                if self.question.vae
                else "disclosed trainings"
            )
            why = f"{of} reach {min(shares):.0%} to {max(shares):.0%}"
        else:
            where = "it" if self.known.timed_on(card.name) else "any card, as none was timed on it"
            share, why = self.known.use_of(card.name), f"the middle of models timed on {where}"
        limit = f"{card.name}'s peak" if card.use else f"what {card.name}'s peak and memory allow"
        return f"{share:.0%} of {limit} ({why})"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        question, subject = self.question, self.question.subject
        own = {key: value for key, value in asdict(question).items() if key not in ("subject", "card")}
        card = {
            "name": question.card.name,
            "source": question.card.source,
            "memory_bytes": question.card.memory,
        }
        return {
            "model": {
                "name": subject.name,
                "source": subject.source,
                "params": subject.params,
                "attention": attention_words(subject.attention),
                "assumed": list(subject.assumed),
            },
            "question": {**own, "card": card},
            "answers": {
                answer.line.name: {
                    "label": answer.label,
                    "value": answer.value,
                    "unit": answer.line.unit,
                    "interval": list(answer.interval) if answer.interval else None,
                    "kind": answer.kind,
                    "source": answer.source,
                }
                for answer in self.answers()
            },
            "fits": self.fits,
        }

    def table(self) -> Table:
        """For the screen: what rests on what stands below it."""
        question, subject = self.question, self.question.subject
        clip = f"{question.frames} x {question.height} x {question.width} at {question.fps:g} a second"
        title = f"{subject.name}: {clip} ({question.seconds:.3g} s), {question.cards} x {question.card.name}"
        table = Table("", "", "5 to 95 %", "from", title=title, title_justify="left")
        table.columns[1].justify = "right"
        group = ""
        for answer in self.answers():
            if answer.line.group != group:
                if group:
                    table.add_section()
                group = answer.line.group
                table.add_row(group, style="dim")
            style = "bold" if answer.line.headline else ""
            table.add_row(
                f" {answer.label}", answer.words(), answer.interval_words(), answer.kind, style=style
            )
        return table

    def notes(self) -> list[str]:
        """What the numbers rest on, a line each."""
        answers = {answer.line.name: answer for answer in self.answers()}
        shown = [
            "pass_flops",
            "denoise_flops",
            "serve_activations",
            "train_activations",
            "serve_decode",
            "serve_memory",
        ]
        shown += ["stretch", "clip_seconds", "train_step_seconds", "clip_talk_share", "train_talk_share"]
        lines = [f"{answers[name].label}: {answers[name].source}" for name in shown if name in answers]
        if self.question.subject.assumed:
            lines.append(f"not disclosed, so assumed: {', '.join(self.question.subject.assumed)}")
        if "text_flops" in answers:
            lines.append(f"weights of the text encoders: {count_words(self.question.subject.text_params)}")
        return lines


def plan(question: Question, known: Evidence | None = None) -> Plan:
    """Answer a question.

    Args:
        question: from `question.ask`.
        known: what disclosed models say; by default of those that are shipped.
    """
    return Plan(question, known or evidence())
