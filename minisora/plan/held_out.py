"""How far the planner is off on models that it has not seen: disclosed seconds and memory, a developer left out.

Three numbers of the method come from what was disclosed: the share of what its peak and memory allow that a card
reaches in a clip, that of training, and the share of a clip's time that more cards do not shorten. Memory takes nothing
from it, so each row tests it as it is. Of training there are timed steps and stated utilisations, of too few models to
tell cards apart.

A prediction's error is disclosed / predicted. Its interval is where a row of one more developer would lie in nine
cases of ten, by the wider of two. Student's t on logarithms: developers' means differ, and so do the rows of each; it
knows how few they are, and takes them for normal. Conformal prediction for rows in groups (Lee, Barber & Willett
2023, arXiv 2306.06342): of K developers and one more each is as likely to be the one that is off the most, whatever
the distribution. Rows of one developer are off together: where the one left out is among the extremes, the first
alone would miss most of its rows.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import median

import numpy as np

from minisora.plan.question import BYTES, PlanCard, Question, ask, cards_by_name
from minisora.plan.spending import ELSEWHERE, PLACES, spend
from minisora.plan.subject import Triple, has_shape, of_disclosed
from minisora.report.backtest import chip
from minisora.report.one_more import one_more
from minisora.report.units import Number
from minisora.report.video_models import DisclosedRun, Grade, VideoModel, shipped_models

Interval = tuple[float, float]
# Of rows of one more developer that shall lie in an interval.
_SHARE = 0.9
# Bytes of a weight by the format it is kept in, where that is another than that of the products.
WEIGHT_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "float8": 1.0, "int8": 1.0, "nf4": 0.5}


@dataclass(frozen=True)
class HeldOut:
    """One disclosed number beside its prediction from all other developers.

    Args:
        model, developer, case: whose; which clip on which cards.
        quantity: "seconds" of a clip, "memory" (bytes of a card), or "training" (time over what peak and memory allow).
        disclosed: least and most that the printed number can mean.
        predicted: from the others.
        grade: of the sources.
    """

    model: str
    developer: str
    case: str
    quantity: str
    disclosed: Interval
    predicted: float
    grade: Grade

    @property
    def error(self) -> float:
        """Disclosed / predicted: 1 if what was printed can mean what was predicted."""
        low, high = self.disclosed
        return float(np.clip(self.predicted, low, high)) / self.predicted


@dataclass(frozen=True)
class Evidence:
    """What the disclosed rows say.

    Args:
        use: share of what peak and memory allow on one card, by card and (under "") of all.
        train: the same in training, on any card.
        alone: share of a clip's time that more cards do not shorten.
        rows: every disclosed number with its prediction.
    """

    use: dict[str, float]
    train: float
    alone: float
    rows: list[HeldOut]

    def of(self, quantity: str) -> list[HeldOut]:
        """The rows of one quantity."""
        return [row for row in self.rows if row.quantity == quantity]

    def interval(self, quantity: str) -> Interval | None:
        """Factors on a prediction, for nine cases of ten; None for fewer than three developers."""
        return interval_of_errors(self.of(quantity))

    def timed_on(self, card: str) -> bool:
        """Whether a clip of some model was timed on it."""
        return chip(card) in self.use

    def use_of(self, card: str) -> float:
        """Share of what a card allows: of models timed on it, or else of all."""
        return self.use.get(chip(card), self.use[""])


def interval_of_errors(rows: Sequence[HeldOut]) -> Interval | None:
    """Where the error of a row of one more developer lies; None for fewer than three developers."""
    logs: dict[str, list[float]] = {}
    for row in rows:
        logs.setdefault(row.developer, []).append(float(np.log(row.error)))
    own = [float(np.var(each, ddof=1)) for each in logs.values() if len(each) > 1]
    ends = one_more([float(np.mean(each)) for each in logs.values()], float(np.mean(own)) if own else 0.0)
    if ends is None:
        return None
    off = math.exp(_off_by(list(logs.values())))
    return min(ends[0], 1 / off), max(ends[1], off)


def _off_by(groups: Sequence[Sequence[float]]) -> float:
    """How far a value of one more group lies from 0, at most, in nine cases of ten.

    A group has one vote, which its values share, and the one more has a vote for what is farther than all of them
    (Lee, Barber & Willett 2023, arXiv 2306.06342, section 4). With fewer than nine groups that vote is more than a
    tenth: then the farthest value, which holds in K of K + 1 cases.
    """
    votes = [(abs(value), 1 / len(group)) for group in groups for value in group]
    needed, gathered = _SHARE * (len(groups) + 1), 0.0
    for far, vote in sorted(votes):
        gathered += vote
        # Up to the rounding of so many sums.
        if gathered >= needed - 1e-9:
            return far
    return max(far for far, _ in votes)


@dataclass(frozen=True)
class _Timed:
    """A disclosed time: seconds that one card allows and of talk, beside what was printed."""

    model: VideoModel
    run: DisclosedRun
    card: str
    cards: int
    clip: Triple
    at_peak: float
    talk: float
    seconds: float

    @property
    def what(self) -> tuple[str, Triple, str]:
        """Model, clip and card: what is the same on one card and on several."""
        return self.model.name, self.clip, self.card

    @property
    def use(self) -> float:
        """Share of what one card allows."""
        return self.at_peak / self.seconds

    def predict(self, use: float, alone: float) -> float:
        """Seconds."""
        return self.at_peak / use * (alone + (1 - alone) / self.cards) + self.talk


@cache
def evidence() -> Evidence:
    """Of the shipped models, predicted once a process."""
    return weigh(shipped_models())


def weigh(models: Sequence[VideoModel]) -> Evidence:
    """Predict every disclosed number that can be, each from the other developers' alone."""
    trained = [each for model in models for each in _trained(model)]
    models = [model for model in models if has_shape(model)]
    times = [timed for model in models for run in model.timings if (timed := _timed(model, run)) is not None]
    rows = []
    for timed in times:
        others = [other for other in times if other.model.developer != timed.model.developer]
        uses = _uses(others)
        use, alone = uses.get(timed.card, uses.get("")), _alone(others)
        if use is not None:
            rows.append(
                HeldOut(
                    timed.model.name,
                    timed.model.developer,
                    _case(timed.clip, timed.cards, timed.card),
                    "seconds",
                    (timed.seconds, timed.seconds),
                    timed.predict(use, alone),
                    timed.model.grade(timed.run),
                )
            )
    for each in trained:
        others_train = _train_use([o for o in trained if o.model.developer != each.model.developer])
        if others_train is not None:
            rows.append(
                HeldOut(
                    each.model.name,
                    each.model.developer,
                    each.case,
                    "training",
                    (1 / each.use, 1 / each.use),
                    1 / others_train,
                    each.grade,
                )
            )
    rows += [row for model in models for run in model.memories if (row := _memory(model, run)) is not None]
    return Evidence(_uses(times), _train_use(trained) or 1.0, _alone(times), rows)


def _case(clip: Triple, cards: int, card: str | None, more: str = "") -> str:
    where = f"{cards} x {card}" if card else f"{cards} card{'s' if cards > 1 else ''}"
    return ", ".join(part for part in ("x".join(map(str, clip)), where, more) if part)


def _uses(times: Iterable[_Timed]) -> dict[str, float]:
    """Share of what cards allow, by card, and under "" of all: the median model's median."""
    shares: dict[tuple[str, str], list[float]] = {}
    for timed in times:
        if timed.cards == 1:
            shares.setdefault((timed.card, timed.model.name), []).append(timed.use)
    medians: dict[str, list[float]] = {}
    for (card, _), values in shares.items():
        medians.setdefault(card, []).append(median(values))
        medians.setdefault("", []).append(median(values))
    return {card: median(values) for card, values in medians.items()}


def _alone(times: Sequence[_Timed]) -> float:
    """Share of a clip's time that more cards do not shorten: the median of models timed on one and on several."""
    ones: dict[tuple[str, Triple, str], list[float]] = {}
    for one in times:
        if one.cards == 1:
            ones.setdefault(one.what, []).append(one.seconds)
    shares: dict[str, list[float]] = {}
    for many in times:
        if many.cards > 1 and many.what in ones:
            rest = (many.seconds - many.talk) / median(ones[many.what])
            shares.setdefault(many.model.name, []).append(
                float(np.clip((rest - 1 / many.cards) / (1 - 1 / many.cards), 0.0, 1.0))
            )
    return median(median(each) for each in shares.values()) if shares else 0.0


def _card(name: str) -> PlanCard | None:
    """A disclosed card; None where it is not listed."""
    return cards_by_name().get(chip(name))


def _question(model: VideoModel, run: DisclosedRun, card: PlanCard, cards: int) -> Question | None:
    """A row of somebody's table as a question; None where it does not say enough."""
    clip = run.clip or model.clip
    steps, passes = run.steps or model.steps, run.guidance_passes or model.guidance_passes
    if clip is None:
        return None
    subject = of_disclosed(model)
    frames, height, width = clip.value
    if subject.heads % cards:
        return None
    made = ask(
        subject,
        card=card,
        steps=steps.value if steps else 1,
        passes=passes.value if passes else 1,
        cards=cards,
        sequence=cards,
    )
    # As disclosed, whether or not it fits the strides.
    return replace(made, frames=frames, height=height, width=width)


def _timed(model: VideoModel, run: DisclosedRun) -> _Timed | None:
    """A time that can be scored: of a whole clip, its weights on the card, steps and passes of guidance known."""
    steps, passes = run.steps or model.steps, run.guidance_passes or model.guidance_passes
    stays = run.dit is None or run.dit.value == "resident"
    if run.seconds is None or run.gpu is None or run.gpus is None or not (steps and passes and stays):
        return None
    if run.weights is not None and run.weights.value in ("int8", "nf4", "float8"):
        return None
    card = _card(run.gpu.value)
    if card is None or "bfloat16" not in card.precisions:
        return None
    question = _question(model, run, card, run.gpus.value)
    if question is None:
        return None
    numbers = spend(question.subject, question.inputs(1.0, 1.0, 0.0))
    only_denoising = run.covers is not None and run.covers.value == "denoising"
    part = numbers["denoise_flops"] / numbers["clip_flops"] if only_denoising else 1.0
    return _Timed(
        model,
        run,
        chip(run.gpu.value),
        run.gpus.value,
        (question.frames, question.height, question.width),
        float(numbers["clip_compute_seconds"] * question.cards * part),
        float(numbers["clip_talk_seconds"]),
        run.seconds.value,
    )


@dataclass(frozen=True)
class _Trained:
    """A share of what cards allow that a training reached: of a timed step, or as its makers say."""

    model: VideoModel
    case: str
    use: float
    grade: Grade


def _trained(model: VideoModel) -> list[_Trained]:
    """Every one that a model disclosed."""
    found = []
    for run in model.timed_steps if has_shape(model) else []:
        if not (run.gpu and run.gpus and run.seconds and run.samples):
            continue
        card = _card(run.gpu.value)
        question = card and _question(model, run, card, run.token_shards.value if run.token_shards else 1)
        if not question:
            continue
        inputs = question.inputs(1.0, 1.0, 0.0)
        inputs["checkpointing.full"] = float(run.checkpointing is not None and run.checkpointing.value)
        numbers = spend(question.subject, inputs)
        flops = float(numbers["train_flops"] + numbers["recomputed_flops"])
        work = run.samples.value * flops * float(numbers["stretch"])
        speed = question.card.peak("bfloat16") * run.gpus.value
        clip = (question.frames, question.height, question.width)
        case = _case(clip, run.gpus.value, run.gpu.value, "a step")
        found.append(_Trained(model, case, work / speed / run.seconds.value, model.grade(run)))
    if model.training is not None and model.training.mfu is not None:
        fact = model.training.mfu
        case = f"all of it, {model.training.gpu.value}"
        found.append(_Trained(model, case, fact.value * _stretch(model), model.grades[fact.source]))
    return found


def _stretch(model: VideoModel) -> float:
    """Time of a pass over its clip over that of its products, on the card it was trained on; 1 where that is unknown.

    What a stated utilisation of the peak becomes of what peak and memory allow.
    """
    card = _card(model.training.gpu.value) if model.training else None
    if card is None or not has_shape(model):
        return 1.0
    question = ask(of_disclosed(model), card=card, train=True)
    return float(spend(question.subject, question.inputs(1.0, 1.0, 0.0))["stretch"])


def _train_use(trained: Sequence[_Trained]) -> float | None:
    """Share of what cards allow in training: the median model's median."""
    shares: dict[str, list[float]] = {}
    for each in trained:
        shares.setdefault(each.model.name, []).append(each.use)
    return median(median(each) for each in shares.values()) if shares else None


def _memory(model: VideoModel, run: DisclosedRun) -> HeldOut | None:
    """A peak that can be scored: it says where every part's weights were."""
    covers = run.covers.value if run.covers else "pipeline"
    if run.peak_bytes is None or run.reading != "peak" or covers not in ("pipeline", "denoising"):
        return None
    if run.dit is None or (covers == "pipeline" and (run.text is None or run.vae is None)):
        return None
    sequence = run.token_shards.value if run.token_shards else 1
    # Bytes are those of any card.
    question = _question(model, run, cards_by_name()["H100 SXM"], sequence)
    # Hunyuan's decoder takes a clip whole or in tiles, ten times apart: the row has to say which.
    if question is None or (run.decode is None and question.subject.decoder.tile_frames):
        return None
    inputs: dict[str, Number] = question.inputs(1.0, 1.0, 0.0)
    weight, activation = BYTES[run.precision.value if run.precision else "bfloat16"]
    elsewhere = float(ELSEWHERE)
    weight = WEIGHT_BYTES[run.weights.value] if run.weights else weight
    inputs |= {
        "bytes.weight": weight,
        "bytes.text": WEIGHT_BYTES[run.text_weights.value] if run.text_weights else weight,
        "bytes.activation": activation,
        "bytes.vae": max(question.subject.decoder.bytes, activation),
        "cards.fsdp": float(run.weight_shards.value if run.weight_shards else 1),
        "place.text": float(PLACES.index(run.text.value)) if run.text else elsewhere,
        "place.denoiser": float(PLACES.index(run.dit.value)),
        "place.vae": float(PLACES.index(run.vae.value)) if run.vae and covers == "pipeline" else elsewhere,
        "decode.tiles": float(run.decode is not None and run.decode.value == "tiles"),
    }
    if run.batch is not None and question.subject.code.guidance_together:
        inputs["serve.batch"] = run.batch.value / question.passes
    clip = (question.frames, question.height, question.width)
    places = {part.value for part in (run.text, run.dit, run.vae) if part}
    more: list[str] = [*sorted(places - {"resident"})]
    more += [fact.value for fact in (run.decode, run.weights) if fact is not None]
    return HeldOut(
        model.name,
        model.developer,
        _case(clip, sequence, run.gpu.value if run.gpu else None, ", ".join(more)),
        "memory",
        run.peak_bytes,
        float(spend(question.subject, inputs)["serve_memory"]),
        model.grade(run),
    )
