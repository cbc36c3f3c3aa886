"""A question, checked: a model, a clip, cards, and how the work is laid out on them. Bad input names what would do."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Literal

from minisora.errors import UserError, nearest
from minisora.flops.calibration import Calibration, PassKind, read_calibration
from minisora.flops.peaks import CARDS
from minisora.limits import MAX_CARDS, MAX_CLIPS, MAX_FRAMES, MAX_SECONDS, check_number
from minisora.plan.blocks import DECODERS
from minisora.plan.spending import PLACES
from minisora.plan.subject import Subject, attention_words
from minisora.plan.vae_training import SMALLEST_SIDE
from minisora.report.assumptions import gpus, shipped
from minisora.report.cost import Band
from minisora.report.units import Number

Precision = Literal["bfloat16", "float16", "float32", "float8", "int8"]
PRECISIONS: tuple[Precision, ...] = ("bfloat16", "float16", "float32", "float8", "int8")
# Of products with weights; attention stays in 16 bits.
EIGHT_BITS: tuple[Precision, ...] = ("float8", "int8")
Checkpointing = Literal["none", "selective", "full"]
Place = Literal["resident", "swapped", "streamed"]
# Of the peak: least, middle, most.
Shares = tuple[float, float, float]
# Of a weight that serves, and of an activation.
BYTES = {
    "bfloat16": (2.0, 2.0), "float16": (2.0, 2.0), "float32": (4.0, 4.0), "float8": (1.0, 2.0), "int8": (1.0, 2.0),
}  # fmt: skip
# Products in float8 made a clip of Wan 1.13 times as fast as in bfloat16, not twice (arXiv 2503.20314). Of int8 no such
# number is disclosed: it is taken for the same.
EIGHT_BITS_SPEED = 1.13
# Of one card, 400 Gbit/s (NVIDIA DGX H100, one ConnectX-7 a GPU), and cards of such a machine.
NETWORK, PER_MACHINE = 50e9, 8
# PCIe 4.0 x16, one way: from a machine's memory to a card.
HOST = 32e9
# What a process on a card takes before anything is allocated, and an allocator's waste: not to be planned with.
KEPT_FREE = 1 << 30


@dataclass(frozen=True)
class PlanCard:
    """An accelerator, or a machine that was calibrated.

    Args:
        name, source: for people.
        tflops: dense peak in TFLOP/s by precision.
        memory: bytes; None: unknown.
        bandwidth: bytes/s of its own memory; None: of a machine whose `use` has what memory costs in it.
        link: bytes/s one way to its neighbours.
        power: kW, its own; None: unknown.
        price: $ an hour (low, usual, high); None: unknown.
        use: shares of the peak (least, middle, most) of the passes (serving, training) that were measured on it; None:
            the back-test's.
        file: of a calibration; None: a listed card.
    """

    name: str
    source: str
    tflops: Mapping[str, float]
    memory: float | None
    bandwidth: float | None
    link: float
    power: float | None
    price: tuple[float, float, float] | None
    use: tuple[Shares, Shares] | None = None
    file: str | None = None

    @property
    def typed(self) -> str:
        """What --card names it by."""
        return self.file or self.name

    @property
    def precisions(self) -> list[Precision]:
        """Those in which a peak is known."""
        return [each for each in PRECISIONS if self._key(each) in self.tflops]

    def peak(self, precision: Precision) -> float:
        """FLOP/s in a precision.

        Raises:
            UserError: none is known.
        """
        if precision not in self.precisions:
            raise UserError(
                f"no peak of {self.name} in {precision} is known: use --precision {' or '.join(self.precisions)}"
            )
        if precision in EIGHT_BITS:
            return EIGHT_BITS_SPEED * self.tflops["bfloat16"] * 1e12
        return self.tflops[self._key(precision)] * 1e12

    def _key(self, precision: Precision) -> str:
        return "tf32" if precision == "float32" and "tf32" in self.tflops else precision


@cache
def cards_by_name() -> Mapping[str, PlanCard]:
    """Every card that is listed, by name."""
    rented = gpus()
    cards = {
        card.name: PlanCard(
            name=card.name,
            source=card.source,
            tflops=card.tflops,
            memory=card.memory * 2**30,
            bandwidth=card.bandwidth * 1e12,
            link=card.link * 1e9,
            power=rented[card.name].power if card.name in rented else None,
            price=rented[card.name].price if card.name in rented else None,
        )
        for card in CARDS
    }
    # One for all that ask, so nobody may change it.
    return MappingProxyType(cards)


def card_named(name: str) -> PlanCard:
    """A listed card by name or by words of it ("h100 sxm"), or a machine by its calibration.json.

    Raises:
        UserError: there is none, or there are several.
    """
    if name.endswith(".json"):
        return _calibrated(Path(name))
    known = cards_by_name()
    words = name.lower().split()
    found = [each for each in known if each.lower() == name.lower()]
    found = found or [each for each in known if words and all(word in each.lower() for word in words)]
    if len(found) > 1:
        raise UserError(f"--card {name} is {' or '.join(found)}: give more of the name")
    if not found:
        raise UserError(
            f"no card '{name}'{nearest(name, known)}; there are: {', '.join(known)}; or a calibration.json"
        )
    return known[found[0]]


def _calibrated(path: Path) -> PlanCard:
    calibration = read_calibration(path)
    dtype = str(calibration.device["dtype"])
    forward = _shares(calibration, "forward")
    return PlanCard(
        name=calibration.machine,
        source=f"{path.name}, {calibration.date[:10]}",
        tflops={dtype: calibration.measured_peak / 1e12},
        memory=None,
        bandwidth=None,
        link=NETWORK,
        power=None,
        price=None,
        use=(forward or (1.0, 1.0, 1.0), _shares(calibration, "train") or forward or (1.0, 1.0, 1.0)),
        file=str(path),
    )


def _shares(calibration: Calibration, kind: PassKind) -> Shares | None:
    """Shares of the measured peak that its passes of one kind reached; None: there were none."""
    uses = [
        use.mfu_measured for point in calibration.points if (use := calibration.use(point, kind)) is not None
    ]
    return (min(uses), median(uses), max(uses)) if uses else None


@cache
def power_overhead() -> float:
    """Site power over that of the cards (`hardware.power_overhead` of the report)."""
    overhead = shipped("measured").entries["hardware.power_overhead"].value
    assert isinstance(overhead, float)
    return overhead


@dataclass(frozen=True)
class Question:
    """What is asked; `ask` makes one that is checked.

    Args:
        subject: the model.
        frames, height, width: of the clip.
        fps: frames a second.
        steps, passes: of sampling, passes a step.
        reused: share of the passes that a cache replaces.
        card: one of `cards`, which are data x sequence x tensor; fsdp of the data and sequence ranks share weights.
        precision: of products and weights.
        batch: clips at once, of each data rank.
        place: where weights are while a clip is made.
        tiles: the decoder works in tiles of the picture.
        train: whether a training is asked about.
        vae: that of the VAE, against a discriminator.
        rank: of the adapters of attention that learn (LoRA); 0: all weights do.
        checkpointing: what the backward pass computes again.
        samples: clips of a training; 0: not asked.
        budget: $ for it; 0: not asked.
    """

    subject: Subject
    frames: int
    height: int
    width: int
    fps: float
    steps: int
    passes: int
    card: PlanCard
    cards: int
    data: int
    fsdp: int
    sequence: int
    tensor: int
    precision: Precision
    batch: int
    place: Place
    tiles: bool
    train: bool
    vae: bool
    rank: int
    checkpointing: Checkpointing
    reused: float
    samples: float
    budget: float

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return self.frames / self.fps

    def inputs(self, serve: float, train: float, alone: float) -> dict[str, Number]:
        """What `spend` reads.

        Args:
            serve, train: share of what peak and memory allow that a clip and a step of training reach.
            alone: share of a clip's time that more cards do not shorten.
        """
        weight, activation = BYTES[self.precision]
        place = float(PLACES.index(self.place))
        price = self.card.price[1] if self.card.price else math.nan
        return {
            "clip.frames": float(self.frames),
            "clip.height": float(self.height),
            "clip.width": float(self.width),
            "serve.steps": float(self.steps),
            "serve.passes": float(self.passes),
            "serve.reused": self.reused,
            "serve.batch": float(self.batch),
            "train.batch": float(self.batch),
            "cards.data": float(self.data),
            "cards.fsdp": float(self.fsdp),
            "cards.sequence": float(self.sequence),
            "cards.tensor": float(self.tensor),
            "card.peak": self.card.peak(self.precision),
            "card.bandwidth": self.card.bandwidth or math.inf,
            "card.link": self.card.link,
            "card.network": NETWORK,
            "card.host": HOST,
            "card.per_machine": float(PER_MACHINE),
            "card.power": math.nan if self.card.power is None else self.card.power * power_overhead(),
            "card.price": price,
            "use.serve": self.card.use[0][1] if self.card.use else serve,
            "use.train": self.card.use[1][1] if self.card.use else train,
            "use.alone": alone,
            "attention.times": self.subject.attention_times,
            "products.eight_bits": float(self.precision in EIGHT_BITS),
            "bytes.weight": weight,
            "bytes.activation": activation,
            "bytes.text": weight,
            "bytes.vae": self.subject.decoder.bytes or activation,
            "place.text": place,
            "place.denoiser": place,
            "place.vae": place,
            "decode.tiles": float(self.tiles),
            "checkpointing.full": float(self.checkpointing == "full"),
            "checkpointing.selective": float(self.checkpointing == "selective"),
            "train.rank": float(self.rank),
            "train.samples": self.samples or math.nan,
            "train.budget": self.budget or math.nan,
        }


def ask(
    subject: Subject,
    *,
    card: PlanCard,
    seconds: float | None = None,
    frames: int | None = None,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    passes: int | None = None,
    cards: int = 1,
    data: int | None = None,
    fsdp: int | None = None,
    sequence: int | None = None,
    tensor: int = 1,
    precision: Precision = "bfloat16",
    batch: int = 1,
    place: Place = "resident",
    tiles: bool = False,
    train: bool = False,
    vae: bool = False,
    rank: int = 0,
    checkpointing: Checkpointing = "none",
    reused: float = 0.0,
    samples: float = 0.0,
    budget: float = 0.0,
) -> Question:
    """A checked question; arguments as of `Question`, and what is None follows from the model and the cards.

    Args:
        seconds: of the clip: the nearest number of frames that fills its latent frames.
        frames: exactly so many.
        size: (height, width).

    Raises:
        UserError: something cannot be; the message names the nearest that can.
    """
    fps = subject.fps if fps is None else fps
    check_number("fps", fps, 0.01, 1000.0)
    if seconds is not None:
        check_number("seconds", seconds, 0.0, MAX_SECONDS, above=True)
        frames = int(subject.fitting(seconds * fps))
    elif frames is None:
        frames = subject.clip[0]
    else:
        check_number("frames", frames, 1, MAX_FRAMES)
        _check_frames(subject, frames)
    height, width = size or subject.clip[1:]
    _check_size(subject, height, width)
    _check_tile(subject, height, width)
    steps = subject.steps if steps is None else steps
    check_number("steps", steps, 1, 100_000)
    check_number("batch", batch, 1, 1 << 20)
    check_number("rank", rank, 0, subject.width)
    check_number("reused", reused, 0.0, 0.99)
    for name, value in (("samples", samples), ("budget", budget)):
        check_number(name, value, 0.0, MAX_CLIPS)
    if vae and not (subject.decoder.kept and subject.vae_params):
        counted = sorted(name for name, each in DECODERS.items() if each.kept)
        raise UserError(
            f"what training the VAE of {subject.name} costs was not counted, but of: {', '.join(counted)}"
        )
    layout = _layout(subject, cards, data, fsdp, sequence, tensor, train or vae)
    if vae and layout[2] * layout[3] > 1:
        raise UserError("cards share no clip when a VAE is trained: leave out --sequence and --tensor")
    if vae and min(height, width) < SMALLEST_SIDE:
        raise UserError(
            f"{height}x{width} is too small for a patch: use {SMALLEST_SIDE} pixels a side, or more"
        )
    card.peak(precision)
    return Question(
        subject=subject,
        frames=frames,
        height=height,
        width=width,
        fps=fps,
        steps=steps,
        passes=passes or subject.guidance_passes,
        card=card,
        cards=layout[0] * layout[2] * layout[3],
        data=layout[0],
        fsdp=layout[1],
        sequence=layout[2],
        tensor=layout[3],
        precision=precision,
        batch=batch,
        place=place,
        tiles=tiles,
        train=train or vae,
        vae=vae,
        rank=rank,
        checkpointing=checkpointing,
        reused=reused,
        samples=samples,
        budget=budget,
    )


def _check_frames(subject: Subject, frames: int) -> None:
    # The clip that a model was made for is as its makers say.
    near = int(subject.fitting(float(frames)))
    if near != frames and frames != subject.clip[0]:
        stride, rule = subject.vae[0], "1 + a multiple of it" if subject.causal else "a multiple of it"
        raise UserError(f"{frames} frames fit no stride of {stride} ({rule}): use --frames {near}")


def _check_size(subject: Subject, height: int, width: int) -> None:
    near = []
    for name, side, stride in zip(("height", "width"), (height, width), subject.stride, strict=True):
        check_number(name, side, 1, 1 << 16)
        near.append(stride * max(1, round(side / stride)))
    if (height, width) != tuple(near) and (height, width) != subject.clip[1:]:
        rows, columns = subject.stride
        raise UserError(
            f"{height}x{width} fits no stride of {rows}x{columns} pixels: use --size {near[0]}x{near[1]}"
        )


def _check_tile(subject: Subject, height: int, width: int) -> None:
    seen = subject.attention
    if not isinstance(seen, Band) or seen.kind != "tile":
        return
    sides = [math.ceil(side / stride) for side, stride in zip((height, width), subject.stride, strict=True)]
    inside = replace(seen, rows=min(int(seen.rows), sides[0]), columns=min(int(seen.columns), sides[1]))
    if inside != seen:
        raise UserError(
            f"{attention_words(seen)} is larger than a frame of {sides[0]}x{sides[1]} tokens: use --attention "
            f"{attention_words(inside)}"
        )


def _layout(
    subject: Subject,
    cards: int,
    data: int | None,
    fsdp: int | None,
    sequence: int | None,
    tensor: int,
    train: bool,
) -> tuple[int, int, int, int]:
    """(data, fsdp, sequence, tensor) of so many cards."""
    heads = subject.heads
    limits = {"cards": cards, "data": data, "fsdp": fsdp, "sequence": sequence, "tensor": tensor}
    for name, value in limits.items():
        if value is not None:
            check_number(name, value, 1, MAX_CARDS)
    if heads % tensor:
        raise UserError(
            f"--tensor {tensor}: {subject.name} has {heads} heads to divide: use --tensor {_divisor(heads, tensor)}"
        )
    if cards % tensor:
        raise UserError(
            f"--tensor {tensor} does not divide --cards {cards}: use --cards {tensor * (cards // tensor + 1)}"
        )
    left = cards // tensor
    if sequence is None:
        # In training every rank has clips of its own; a clip is made the sooner the more cards share it.
        shared = 1 if train or data else math.gcd(left, heads // tensor)
        sequence = left // data if data and left % data == 0 else shared
    if (heads // tensor) % sequence:
        near = _divisor(heads // tensor, sequence)
        raise UserError(
            f"--sequence {sequence}: {heads // tensor} heads to divide are left: use --sequence {near}"
        )
    data = data or max(1, left // sequence)
    if data * sequence * tensor != cards:
        product = data * sequence * tensor
        raise UserError(
            f"--data {data} x --sequence {sequence} x --tensor {tensor} are {product} cards, not --cards {cards}: use "
            f"--cards {product}"
        )
    ranks = data * sequence
    fsdp = fsdp or (ranks if train else 1)
    if ranks % fsdp:
        raise UserError(
            f"--fsdp {fsdp} does not divide the {ranks} data and sequence ranks: use --fsdp {_divisor(ranks, fsdp)}"
        )
    return data, fsdp, sequence, tensor


def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is at most so large."""
    return max(each for each in range(1, min(most, number) + 1) if number % each == 0)


def on_cards(question: Question, cards: int, **changes: object) -> Question | None:
    """The same question on another number of cards that share a clip; None where the heads do not divide so."""
    if question.subject.heads % cards:
        return None
    return replace(question, cards=cards, data=1, fsdp=1, sequence=cards, tensor=1, **changes)  # type: ignore[arg-type]
