"""The plan as a page: one self-contained HTML file whose sliders move every setting of a question.

The arithmetic on it is `spending.spend`, written down as JavaScript for each kind of attention; the settings become its
inputs as `question.Question.inputs` makes them. A test runs both on random settings.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import jinja2
from markupsafe import Markup

from minisora.plan.answer import Plan, error_factors
from minisora.plan.lines import LINES
from minisora.plan.question import (
    BYTES,
    EIGHT_BITS,
    HOST,
    KEPT_FREE,
    NETWORK,
    PER_MACHINE,
    PRECISIONS,
    Question,
    cards_by_name,
    power_overhead,
)
from minisora.plan.remedies import NUMBERS, SHOWN, SMALLER, TOLD
from minisora.plan.spending import INPUTS, PLACES, spend
from minisora.plan.subject import Subject, attention_words, parse_attention
from minisora.report.javascript import SCRIPT_HEAD, Traced, function_script
from minisora.report.words import numbers_script
from minisora.screen import plain

FOLDER = Path(__file__).parent
# Seconds that a clip may take, where nobody says.
UNDER = 60.0
# Kinds of attention that a reader can choose beside the model's own.
KINDS = ("full", "factorised", "causal:1", "window:3", "window:5", "window:9")


def plan_script(subject: Subject) -> str:
    """`PLANS`: a function for each kind of attention; `fitFrames`: the nearest clip that the VAE can code."""
    functions, names = [SCRIPT_HEAD], {kind: f"plan{i}" for i, kind in enumerate(kinds(subject))}
    for kind, name in names.items():
        work = partial(_spend, subject.seeing(parse_attention(kind)))
        functions.append(function_script(name, INPUTS, work))
    table = ", ".join(f"{json.dumps(kind)}: {name}" for kind, name in names.items())
    functions.append(f"const PLANS = {{ {table} }};\n")
    functions.append(
        function_script(
            "fitFrames", ["frames"], lambda numbers: {"frames": _fitting(subject, numbers["frames"])}
        )
    )
    return "\n".join(functions)


def _spend(subject: Subject, numbers: dict[str, Traced]) -> Mapping[str, Any]:
    return spend(subject, cast(Any, numbers))


def _fitting(subject: Subject, frames: Traced) -> Any:
    return subject.fitting(cast(Any, frames))


def kinds(subject: Subject) -> list[str]:
    """The model's own kind of attention, and those to compare it with."""
    return list(dict.fromkeys([attention_words(subject.attention), *KINDS]))


def settings(question: Question) -> dict[str, Any]:
    """Where the sliders start: what `question.ask` takes, and what the page shows."""
    return {
        "attention": attention_words(question.subject.attention),
        "seconds": question.seconds,
        "fps": question.fps,
        "height": question.height,
        "width": question.width,
        "steps": question.steps,
        "passes": question.passes,
        "reused": question.reused,
        "card": question.card.name,
        "data": question.data,
        "fsdp": question.fsdp,
        "sequence": question.sequence,
        "tensor": question.tensor,
        "precision": question.precision,
        "batch": question.batch,
        "place": question.place,
        "tiles": question.tiles,
        "train": question.train,
        "rank": question.rank,
        "checkpointing": question.checkpointing,
        "samples": question.samples or 1e7,
        "budget": question.budget or 1e5,
    }


def page_data(own: Plan, command: str = "minisora plan", under: float | None = None) -> dict[str, Any]:
    """What the scripts need beside the arithmetic; arguments as of `render`."""
    question, known, subject = own.question, own.known, own.question.subject
    cards = {**cards_by_name(), question.card.name: question.card}
    factors = {
        "train" if train else "clip": {
            name: error_factors(replace(question, card=card, train=train), known)
            for name, card in cards.items()
        }
        for train in (False, True)
    }
    return {
        "command": command,
        "start": {**settings(question), "under": under or UNDER},
        "numbers": NUMBERS,
        "smaller": SMALLER,
        "told": TOLD,
        "shown": SHOWN,
        "stride": subject.stride,
        "heads": subject.heads,
        "kinds": kinds(subject),
        "places": PLACES[:3],
        "precisions": PRECISIONS,
        "eightBits": EIGHT_BITS,
        "bytes": BYTES,
        "decoderBytes": subject.decoder.bytes,
        "attentionTimes": subject.attention_times,
        "network": NETWORK,
        "host": HOST,
        "perMachine": PER_MACHINE,
        "keptFree": KEPT_FREE,
        "overhead": power_overhead(),
        "alone": known.alone,
        "cards": {
            name: {
                "peaks": {each: card.peak(each) for each in card.precisions},
                "typed": plain(card.typed),
                "memory": card.memory,
                "link": card.link,
                "bandwidth": card.bandwidth,
                "power": card.power,
                "price": card.price[1] if card.price else None,
                "use": [each[1] for each in card.use] if card.use else [known.use_of(name), known.train],
            }
            for name, card in cards.items()
        },
        "factors": factors,
        "lines": [
            {
                "name": line.name,
                "label": line.label.format(budget="the money"),
                "unit": line.unit,
                "error": line.error,
                "group": line.group,
                "of": line.of,
                "needs": line.needs,
                "headline": line.headline,
            }
            for line in LINES
        ],
    }


def render(own: Plan, command: str, under: float | None = None) -> str:
    """The page's HTML.

    Args:
        own: where the sliders start.
        command: that names the same model, such as "minisora plan 'wan 14b'".
        under: seconds that a clip may take, of the cheapest ways to it; None: a minute.
    """
    subject = own.question.subject
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
    return environment.get_template("sliders.html").render(
        name=plain(subject.name),
        shape=f"{subject.shape.layers:g} blocks of {subject.shape.width:g} channels, {subject.heads} heads",
        assumed=[plain(each) for each in subject.assumed],
        data=page_data(own, plain(command), under),
        notes=[plain(each) for each in own.notes()],
        scripts=[
            Markup(each)
            for each in (plan_script(subject), numbers_script(), (FOLDER / "sliders.js").read_text())
        ],
    )
