"""From what was measured of a person's own model to one line that a newcomer understands, and what to do next.

All thresholds stand here, each with its reason. They are of ratios to real clips and of places between a floor and a
ceiling that the same clips give, so none is of one kind of footage.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minisora.evaluate.memorisation import EARLY, Finding

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
# Guidance beyond which no model that was measured here followed any better (docs/log.md).
STRONG = 5.0
# Captions that a sentence names of several, and letters of each.
NAMED, LETTERS = 3, 60
# Pixels per side of the smallest latent cell that there is (vae.spatial_factor).
SMALLEST_CELL = 4
# Loss on held-out clips over that on training clips, from which a model learns these by heart.
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
    def far(self) -> bool:
        """Whether there is twice or half as much motion."""
        return not 1 / TIMES <= self.ratio <= TIMES

    @property
    def differ(self) -> bool:
        """Whether there is twice or half as much motion, and not by chance."""
        if not self.far:
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
        copies: by caption, "" for all: amounts of VAE copies beside the held-out clips'.
        flicker: of originals, and of their copies.
        finding: whether the model learns, is stuck or memorises.
        overfit: loss on held-out clips over that on training clips.
        judge: shares of held-out clips that follow their captions, and by chance; None where captions tell nothing.
        followed: share of samples that does; None: not measured.
        samples: by caption, "" for all: amounts of samples beside those of `real`.
        frechet: of samples, of training clips (the floor, at most), of still pictures; None: too few clips.
        real: the real clips that samples' motion is read beside, in words.
        best_at: where in the DiT's steps its validation loss was least, in (0, 1]; None: not known.
        views: how often each training clip stands in the set, altered all but once.
        guidance: that the samples were made with; 1 is none, or that of a student, who has its teacher's in itself.
        cell: pixels per latent cell and side.
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
    real: str = "held-out clips"
    best_at: float | None = None
    views: int = 1
    guidance: float = 1.0
    cell: int = SMALLEST_CELL

    @property
    def by_heart(self) -> list[str]:
        """What says that training clips are learned by heart, so that more steps make it no better; empty: nothing."""
        signs = []
        if self.best_at is not None and self.best_at < EARLY:
            signs.append(f"its validation loss was least after {self.best_at:.0%} of its steps")
        if self.overfit > OVERFITTED:
            signs.append(f"its error on held-out clips is {self.overfit:.1f} times that on training clips")
        return signs


@dataclass(frozen=True)
class Fault:
    """What is wrong, in words, and what mends it.

    Args:
        state: its name.
        sentence: what was measured.
        advice: what to do.
        captions: those of which alone it is true, where it is not true of most; empty: it is true of the model.
    """

    state: str
    sentence: str
    advice: str
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class OwnVerdict:
    """What a person should know of their model.

    Args:
        state: the name of the worst fault, "good", "good but for" some captions, or "cannot be told".
        sentence: one line that begins with it.
        faults: names of all faults that are true of the model or of most captions, the worst first.
        advice: what to do, a line each.
        not_told: what the clips are too few for, or captions too alike, a line each.
        exceptions: captions of a few faults that are not true of most, a line each.
    """

    state: str
    sentence: str
    faults: list[str]
    advice: list[str]
    not_told: list[str] = field(default_factory=list)
    exceptions: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the advice, which has a place of its own."""
        return {name: value for name, value in vars(self).items() if name != "advice"}


def conclude(facts: Facts) -> OwnVerdict:
    """The verdict of what was measured."""
    all_faults = [fault for fault in _faults(facts) if fault is not None]
    faults = [fault for fault in all_faults if not fault.captions]
    partial = [fault for fault in all_faults if fault.captions]
    affected = {caption for fault in partial for caption in fault.captions}
    total = len(_captions(facts.copies, facts.samples))
    # Some move too little and some too much: no one fault is that of most, but most have one.
    if not faults and 2 * len(affected) > total:
        partial.sort(key=lambda fault: -len(fault.captions))
        faults, partial = partial[:1], partial[1:]
    exceptions = [f"{fault.state}: {fault.sentence}" for fault in partial]
    not_told = _not_told(facts)
    advice = list(dict.fromkeys(fault.advice for fault in all_faults))
    if facts.by_heart and (more := _more_learning(facts)) not in advice:
        advice.append(more)
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
        state = faults[0].state
        others = [fault.state for fault in faults[1:]]
        others += [f"{fault.state} in {_named(fault.captions)}" for fault in partial]
        sentence = f"{state}: {faults[0].sentence}" + (f" (also: {', '.join(others)})" if others else "")
    elif facts.same == facts.held_out:
        state = "cannot be told"
        sentence = (
            f"{state}: every held-out clip is a training clip, so nothing here says how it does on others"
        )
    elif partial:
        state = f"good but for {len(affected)} of {total} captions"
        sentence = f"{state}: {'; '.join(exceptions)}"
    elif facts.held_out < FEW:
        state = "cannot be told"
        clips = f"{facts.held_out} held-out clip{'s' if facts.held_out > 1 else ''}"
        sentence = (
            f"{state}: nothing wrong is seen, but {clips} say too little to call it good: {_praise(facts)}"
        )
    else:
        state, sentence = "good", f"good: {_praise(facts)}"
    return OwnVerdict(state, sentence, [fault.state for fault in faults], advice, not_told, exceptions)


def _faults(facts: Facts) -> list[Fault | None]:
    """Every fault in the order in which they matter; None where there is none."""
    finding = facts.finding
    memorises = finding.state == "memorising" and facts.same < facts.held_out
    stuck = finding.state == "stuck at predicting the mean"
    remedy = _more_learning(facts)
    unlearned: Fault | None = None
    if stuck and facts.by_heart:
        unlearned = Fault("learned by heart", finding.sentence.partition(": ")[2], remedy)
    elif stuck:
        unlearned = Fault("stuck", finding.sentence.partition(": ")[2], f"{remedy}, then try another lr")
    return [
        Fault(
            "memorising",
            f"{finding.copies:.0%} of its samples are copies of training clips",
            remedy if facts.by_heart else f"it learns by heart: {_against_heart(facts)}",
        )
        if memorises
        else None,
        *_vae_faults(facts),
        unlearned,
        _caption_fault(facts, remedy),
        *_motion_faults(facts, remedy),
        _distance_fault(facts, remedy),
    ]


def _more_learning(facts: Facts) -> str:
    """What makes the DiT better: longer training, or what helps where that only learns clips by heart."""
    if not facts.by_heart:
        return "train longer, --minutes or more steps"
    return f"{' and '.join(facts.by_heart)}: longer training will not help, {_against_heart(facts)} will"


def _against_heart(facts: Facts) -> str:
    """What keeps a model from learning its clips by heart."""
    views = "" if facts.views > 1 else "moved views of them (--set 'data.augment={views: 3, shift: 4}'), "
    return (
        f"more clips ({facts.training} now), {views}a smaller model (dit.width, dit.depth) or fewer minutes"
    )


def _vae_faults(facts: Facts) -> list[Fault]:
    """What the VAE loses, which no sample can have."""
    finer = f", or a vae.spatial_factor of {facts.cell // 2}" if facts.cell > SMALLEST_CELL else ""
    larger = f"give the VAE more minutes and larger latents: more vae.latent_channels{finer}"
    faults = [
        Fault(
            "the VAE loses what moves" if each.less else "the VAE makes still things move",
            f"its copies {each.measured('held-out clips')}",
            larger,
            each.only,
        )
        for each in _departures(facts.copies)
    ]
    # Motion of the right amount can be in the wrong places.
    if any(not fault.captions for fault in faults):
        return faults
    if facts.moving is not None and facts.moving[0] - facts.moving[1] < GAIN:
        of_all = Fault(
            "the VAE loses what moves",
            f"its copies have {facts.moving[0]:.1f} dB on what moves, a still picture has {facts.moving[1]:.1f}",
            larger,
        )
        return [of_all, *(fault for fault in faults if fault.state != of_all.state)]
    real, copies = facts.flicker
    if copies > max(FLICKER, TIMES * real):
        faults.insert(
            0,
            Fault(
                "the VAE flickers",
                f"what stands still trembles by {copies:.1%} of the range in its copies, by {real:.1%} in the clips",
                "give the VAE more minutes",
            ),
        )
    return faults


def _caption_fault(facts: Facts, remedy: str) -> Fault | None:
    if facts.judge is None or facts.followed is None or not _trusted(facts.judge) or facts.held_out < FEW:
        return None
    right, chance = facts.judge
    if facts.followed >= chance + FOLLOWS * (right - chance):
        return None
    return Fault(
        "not following captions",
        f"{facts.followed:.0%} of its samples show what their captions say, {right:.0%} of real clips do, "
        f"{chance:.0%} would by chance",
        f"{_guided(facts.guidance)}; {remedy}" if 1 < facts.guidance < STRONG else remedy,
    )


def _guided(guidance: float) -> str:
    """What can be tried at once where captions are not followed."""
    return (
        f"ask for more guidance than {guidance:g}, which costs variety and no training (--guidance "
        f"{min(STRONG, 2 * guidance):g} of 'minisora sample' and 'minisora evaluate run')"
    )


def _motion_faults(facts: Facts, remedy: str) -> list[Fault]:
    through = _departures(facts.copies)
    # What the VAE loses or adds is no fault of what is sampled.
    if any(not each.only for each in through):
        less = next(each.less for each in through if not each.only)
        departures = [each for each in _departures(facts.samples) if each.less != less]
    else:
        known = {(caption, each.less) for each in through for caption in each.only}
        own = {c: a for c, a in facts.samples.items() if (c, a.ratio < 1) not in known}
        departures = _departures(own, total=len(_captions(facts.samples)))
    return [
        Fault(
            "moving too little" if each.less else "moving too much",
            f"its samples {each.measured(facts.real)}",
            remedy,
            each.only,
        )
        for each in departures
    ]


def _distance_fault(facts: Facts, remedy: str) -> Fault | None:
    if facts.frechet is None:
        return None
    samples, floor, still = facts.frechet
    if samples <= max(still, FAR * floor):
        return None
    return Fault(
        "far from real clips",
        f"its samples lie {samples / max(floor, 1e-9):.1f} times as far from held-out clips as other real clips do, "
        "and further than still pictures",
        remedy,
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
    return ", ".join(parts)


@dataclass(frozen=True)
class _Departure:
    """Motion that is too far from real clips', one way.

    Args:
        less: too little; else too much.
        amounts: that its figures are of.
        caption: that they are of; "": of all.
        only: captions of which alone it is true; empty: it is true of most.
        count, total: captions that it is true of, and all.
        others: captions that it is not true of, where it is true of most.
    """

    less: bool
    amounts: Amounts
    caption: str
    only: tuple[str, ...] = ()
    count: int = 0
    total: int = 0
    others: tuple[str, ...] = ()

    def measured(self, real: str) -> str:
        """What was measured, beside what real clips are called."""
        of = f"of {_named([self.caption])} " if self.caption else ""
        seen, there = np.mean(self.amounts.seen), np.mean(self.amounts.real)
        text = f"{of}change in {seen:.2%} of pixels from frame to frame, {real} in {there:.2%}"
        if self.only:
            more = [caption for caption in self.only if caption != self.caption]
            return text + (f"; also those of {_named(more)}" if more else "")
        if self.others:
            return f"{text}; so in {self.count} of {self.total} captions, not in {_named(self.others)}"
        return text


def _departures(all_amounts: Mapping[str, Amounts], total: int = 0) -> list[_Departure]:
    """Too little and too much motion: of most captions, or else of some alone.

    Args:
        all_amounts: by caption, "" for all.
        total: captions that there are; 0: those of `all_amounts`.
    """
    captions = {caption: amounts for caption, amounts in all_amounts.items() if caption}
    total = total or len(captions)
    whole = all_amounts.get("")
    found = []
    for less in (True, False):
        far = [c for c, a in captions.items() if a.far and (a.ratio < 1) == less]
        sure = [c for c in far if captions[c].differ]
        # Worst first.
        sure.sort(key=lambda caption: -abs(math.log(captions[caption].ratio)))
        of_whole = whole is not None and whole.differ and (whole.ratio < 1) == less
        # Of the whole where no caption stands for it; of most captions where each is sure, or where the whole is.
        if (of_whole and (2 * len(far) > total or not sure)) or (sure and 2 * len(sure) > total):
            if of_whole and whole is not None:
                amounts, of = whole, ""
            else:
                amounts, of = captions[sure[0]], sure[0]
            others = tuple(caption for caption in captions if caption not in far) if far else ()
            found.append(_Departure(less, amounts, of, (), len(far), total, others))
        elif sure:
            found.append(_Departure(less, captions[sure[0]], sure[0], tuple(sure), len(sure), total))
    return found


def _captions(*all_amounts: Mapping[str, Amounts]) -> list[str]:
    """Captions that have amounts of their own."""
    return list(dict.fromkeys(caption for amounts in all_amounts for caption in amounts if caption))


def _named(captions: Sequence[str]) -> str:
    """Captions in quotes, a few and none of them long."""
    texts = [c if len(c) <= LETTERS else c[: LETTERS - 1].rstrip() + "…" for c in captions[:NAMED]]
    more = len(captions) - len(texts)
    return ", ".join(f"'{text}'" for text in texts) + (f" and {more} more" if more else "")


def _trusted(judge: tuple[float, float]) -> bool:
    right, chance = judge
    return chance < 1 and right >= chance + TRUSTED * (1 - chance)
