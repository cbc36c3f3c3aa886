"""From what was measured of a person's own model to one line that a newcomer understands, and what to do next.

All thresholds stand here, each with its reason. They are of ratios to real clips and of places between a floor and a
ceiling that the same clips give, so none is of one kind of footage.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minisora.evaluate.memorisation import Finding

# Held-out clips from which a spread and a distance of sets can be told: of three, one clip decides.
FEW = 4
# Training clips below which every advice begins with more of them: a tenth of them, held out, are fewer than `FEW`.
FEW_TRAINING = 10 * FEW
# dB on what moves by which a VAE's copy must beat the still picture: at 6 dB its error is half of leaving it out.
GAIN = 6.0
# Times as much motion as real clips have, or its inverse: beyond it a viewer sees it without a measure.
TIMES = 2.0
# Share of pixels added to both sides of such a ratio; two pixels of 64 x 64, so that noise of still clips is none.
LEAST = 0.0005
# Standard errors that a difference of motion must exceed: one in twenty differs so by chance.
SURE = 2.0
# Tremble of what stands still, above which it is seen: noise of 2 of 255 levels (x sqrt(6), the second difference's).
FLICKER = 0.02
# Way from chance to certainty that the judge must go on real clips before it may judge samples.
TRUSTED = 0.5
# Way from chance to the judge's share of real clips that samples must go: one in five may be judged wrongly.
FOLLOWS = 0.8
# Real-against-real distances that samples may lie away, where still pictures lie no further.
FAR = 3.0
# Loss on held-out clips over that on training clips, from which more steps make it worse rather than better.
OVERFITTED = 3.0


@dataclass(frozen=True)
class Amounts:
    """Shares of pixels that change from frame to frame, one a clip."""

    real: Sequence[float]
    seen: Sequence[float]
    # The clips of the two are the same, in this order.
    paired: bool = False

    @property
    def ratio(self) -> float:
        """Mean amount over the real one; 1 is alike, also where neither moves."""
        return float((np.mean(self.seen) + LEAST) / (np.mean(self.real) + LEAST))

    @property
    def differ(self) -> bool:
        """Whether there is twice or half as much motion, and not by chance."""
        if 1 / TIMES <= self.ratio <= TIMES:
            return False
        if self.paired:
            return True
        if min(len(self.real), len(self.seen)) < 2:
            return False
        error = math.sqrt(sum(float(np.var(x, ddof=1)) / len(x) for x in (self.real, self.seen)))
        return abs(float(np.mean(self.real) - np.mean(self.seen))) > SURE * error


@dataclass(frozen=True)
class Facts:
    """What was measured, as far as it could be.

    Args:
        training, held_out: clips.
        same: held-out clips that are training clips.
        captions: different ones in training.
        moving: PSNR in dB of copies, and of the still picture, on what moves; None where nothing does.
        copies: by caption, "" for all: amounts of VAE copies beside the originals'.
        flicker: of originals, and of their copies.
        finding: whether the model learns, is stuck or memorises.
        overfit: loss on held-out clips over that on training clips.
        judge: shares of held-out clips that follow their captions, and by chance; None where captions tell nothing.
        followed: share of samples that does; None: not measured.
        samples: by caption, "" for all: amounts of samples beside real clips'.
        frechet: of samples, of training clips (the floor, at most), of still pictures; None: too few clips.
    """

    training: int
    held_out: int
    same: int
    captions: int
    moving: tuple[float, float] | None
    copies: Mapping[str, Amounts]
    flicker: tuple[float, float]
    finding: Finding
    overfit: float
    judge: tuple[float, float] | None
    followed: float | None
    samples: Mapping[str, Amounts]
    frechet: tuple[float, float, float] | None


@dataclass(frozen=True)
class Fault:
    """What is wrong, in words, and what mends it.

    Args:
        state: its name.
        sentence: what was measured.
        advice: what to do.
    """

    state: str
    sentence: str
    advice: str


@dataclass(frozen=True)
class OwnVerdict:
    """What a person should know of their model.

    Args:
        state: the name of the worst fault, "good", or "cannot be told".
        sentence: one line that begins with it.
        faults: names of all faults, the worst first.
        advice: what to do, a line each.
        not_told: what the clips are too few for, or captions too alike, a line each.
    """

    state: str
    sentence: str
    faults: list[str]
    advice: list[str]
    not_told: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the advice, which has a place of its own."""
        return {name: value for name, value in vars(self).items() if name != "advice"}


def conclude(facts: Facts) -> OwnVerdict:
    """The verdict of what was measured."""
    faults = [fault for fault in _faults(facts) if fault is not None]
    not_told = _not_told(facts)
    advice = list(dict.fromkeys(fault.advice for fault in faults))
    if facts.overfit > OVERFITTED and not any(fault.state == "memorising" for fault in faults):
        advice.append(
            f"its error on held-out clips is {facts.overfit:.1f} times that on training clips: more clips, or fewer "
            "steps, will do more than longer training"
        )
    if facts.judge is None or (facts.judge[1] < 1 and not _trusted(facts.judge)):
        advice.append(
            "write captions that say what differs from clip to clip: "
            + (
                "all say the same"
                if facts.captions < 2
                else "those of real clips cannot be told apart by what they show"
            )
        )
    if facts.training < FEW_TRAINING and not any("more clips" in line for line in advice):
        advice.append(
            f"record more clips: {facts.training} are few, and {facts.held_out} held out tell little; "
            f"from {FEW_TRAINING} on both get better"
        )
    if faults:
        state, more = faults[0].state, len(faults) - 1
        others = f" (also: {', '.join(fault.state for fault in faults[1:])})" if more else ""
        sentence = f"{state}: {faults[0].sentence}{others}"
    elif facts.same == facts.held_out:
        state = "cannot be told"
        sentence = (
            f"{state}: every held-out clip is a training clip, so nothing here says how it does on others"
        )
    else:
        state, sentence = "good", f"good: {_praise(facts)}"
    return OwnVerdict(state, sentence, [fault.state for fault in faults], advice, not_told)


def _faults(facts: Facts) -> list[Fault | None]:
    """Every fault in the order in which they matter; None where there is none."""
    finding = facts.finding
    memorises = finding.state == "memorising" and facts.same < facts.held_out
    stuck = finding.state == "stuck at predicting the mean"
    longer = "train longer, --minutes or more steps" + (
        "" if facts.overfit < OVERFITTED else ", on more clips"
    )
    return [
        Fault(
            "memorising",
            f"{finding.copies:.0%} of its samples are copies of training clips",
            f"record more clips ({facts.training} now), or train for fewer steps: it learns by heart",
        )
        if memorises
        else None,
        _vae_fault(facts),
        Fault("stuck", finding.sentence.partition(": ")[2], f"{longer}, then try another lr")
        if stuck
        else None,
        _caption_fault(facts, longer),
        _motion_fault(facts, longer),
        _distance_fault(facts, longer),
    ]


def _vae_fault(facts: Facts) -> Fault | None:
    """What the VAE loses, which no sample can have."""
    larger = (
        "give the VAE more minutes and larger latents: more vae.latent_channels, a smaller vae.spatial_factor"
    )
    worst = _worst(facts.copies)
    if worst is not None:
        caption, amounts = worst
        word = "loses what moves" if amounts.ratio < 1 else "makes still things move"
        return Fault(
            f"the VAE {word}",
            f"its copies of held-out clips change in {np.mean(amounts.seen):.2%} of pixels from frame to frame, "
            f"the clips in {np.mean(amounts.real):.2%}{_of(caption)}",
            larger,
        )
    if facts.moving is not None and facts.moving[0] - facts.moving[1] < GAIN:
        return Fault(
            "the VAE loses what moves",
            f"its copies have {facts.moving[0]:.1f} dB on what moves, a still picture has {facts.moving[1]:.1f}",
            larger,
        )
    real, copies = facts.flicker
    if copies > max(FLICKER, TIMES * real):
        return Fault(
            "the VAE flickers",
            f"what stands still trembles by {copies:.1%} of the range in its copies, by {real:.1%} in the clips",
            "give the VAE more minutes",
        )
    return None


def _caption_fault(facts: Facts, longer: str) -> Fault | None:
    if facts.judge is None or facts.followed is None or not _trusted(facts.judge) or facts.held_out < FEW:
        return None
    right, chance = facts.judge
    if facts.followed >= chance + FOLLOWS * (right - chance):
        return None
    return Fault(
        "not following captions",
        f"{facts.followed:.0%} of its samples show what their captions say, {right:.0%} of real clips do, "
        f"{chance:.0%} would by chance",
        longer,
    )


def _motion_fault(facts: Facts, longer: str) -> Fault | None:
    worst = _worst(facts.samples)
    if worst is None:
        return None
    caption, amounts = worst
    through = _worst(facts.copies)
    # What the VAE loses or adds is no fault of what is sampled.
    if through is not None and (through[1].ratio < 1) == (amounts.ratio < 1):
        return None
    return Fault(
        "moving too little" if amounts.ratio < 1 else "moving too much",
        f"{np.mean(amounts.seen):.2%} of its samples' pixels change from frame to frame, "
        f"{np.mean(amounts.real):.2%} of real clips'{_of(caption)}",
        longer,
    )


def _distance_fault(facts: Facts, longer: str) -> Fault | None:
    if facts.frechet is None:
        return None
    samples, floor, still = facts.frechet
    if samples <= max(still, FAR * floor):
        return None
    return Fault(
        "far from real clips",
        f"its samples lie {samples / max(floor, 1e-9):.1f} times as far from held-out clips as other real clips do, "
        "and further than still pictures",
        longer,
    )


def _not_told(facts: Facts) -> list[str]:
    lines = []
    clips = f"{facts.held_out} held-out clip" + ("s" if facts.held_out > 1 else "")
    if facts.held_out < FEW:
        lines.append(
            f"{clips}: how far samples lie from real clips, how speeds and directions differ and how far to trust "
            f"the judge of captions cannot be told below {FEW}"
        )
    if facts.same > 0:
        what = "all of them are" if facts.same == facts.held_out else f"{facts.same} of them are"
        lines.append(f"{clips}: {what} equal to training clips, so these say nothing of unseen ones")
    if facts.judge is None:
        lines.append(
            "whether samples follow captions cannot be told: no word of the captions tells clips apart"
        )
    elif facts.held_out >= FEW and not _trusted(facts.judge):
        lines.append(
            "whether samples follow captions cannot be told: all held-out clips have one caption"
            if facts.judge[1] == 1
            else f"whether samples follow captions cannot be told: of real clips only {facts.judge[0]:.0%} are matched "
            f"with their own, {facts.judge[1]:.0%} by chance"
        )
    if facts.moving is None:
        lines.append("how well what moves is kept cannot be told: nothing moves in the held-out clips")
    return lines


def _praise(facts: Facts) -> str:
    parts = []
    if facts.judge is not None and facts.followed is not None and _trusted(facts.judge):
        real = f" ({facts.judge[0]:.0%} of real clips do)" if facts.held_out >= FEW else ""
        parts.append(f"{facts.followed:.0%} of its samples follow their captions{real}")
    if "" in facts.samples and facts.moving is not None:
        parts.append(f"they move {facts.samples[''].ratio:.1f} times as much as real clips")
    parts.append("they are no copies of training clips")
    text = ", ".join(parts)
    return text + (f"; {facts.held_out} held-out clips tell little more" if facts.held_out < FEW else "")


def _worst(all_amounts: Mapping[str, Amounts]) -> tuple[str, Amounts] | None:
    """The caption whose motion is furthest from real clips', if any is too far."""
    differ = [(caption, amounts) for caption, amounts in all_amounts.items() if amounts.differ]
    return max(differ, key=lambda each: abs(math.log(each[1].ratio)), default=None)


def _of(caption: str) -> str:
    return f", of '{caption}'" if caption else ""


def _trusted(judge: tuple[float, float]) -> bool:
    right, chance = judge
    return chance < 1 and right >= chance + TRUSTED * (1 - chance)
