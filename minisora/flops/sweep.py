"""A calibration of a machine: real passes over a grid of shapes, and the laws fitted to them.

Shapes differ in width, depth, frames, size, patch, attention, image and video, batch.

Every point is built, counted (fvcore and torch on the real tensors, and the closed form), and timed forward
and forward with backward. Nothing in a point is computed from a formula.

Units: MACs of one sample; FLOPs and seconds of a call (the whole batch).
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

import torch
from torch import nn

from minisora.config import Config
from minisora.flops.calibration import Calibration, SweepPoint, fit_macs, fit_naive, fit_seconds
from minisora.flops.clock import measure
from minisora.flops.count_closed_form import Size, dit_terms, total
from minisora.flops.count_torch import StepCount, count_step
from minisora.flops.device import built_on, describe_device
from minisora.flops.ledger import count_pass
from minisora.flops.measured_peak import measure_peak
from minisora.flops.passes import dit_pass
from minisora.flops.peaks import Timing
from minisora.flops.timing import known_peak
from minisora.models.build import build_dit
from minisora.models.clip_grid import token_grid
from minisora.models.dit import VideoDiT

LATENT_CHANNELS = 4
# Fewer fit no law, whatever the time.
MINIMUM_POINTS = 10
# A short calibration: its points; forward passes that a point amounts to (counted, warmed up, timed, trained), the
# share of the peak that they reach, and seconds that a point takes beside them.
SHORT_POINTS = 12
_FORWARDS, _SHARE_OF_PEAK, _POINT_SECONDS = 20, 0.25, 0.4


@dataclass(frozen=True)
class SweepShape:
    """One place of the grid; sizes in latent cells."""

    width: int
    depth: int
    latent_size: Size
    patch: Size
    attention: Literal["full", "factorised"]
    batch: int = 1

    def config(self) -> Config:
        """An unconditional DiT of this shape with heads of 64 channels (16 when narrow)."""
        heads = self.width // (64 if self.width >= 256 else 16)
        dit = {
            "patch": self.patch,
            "width": self.width,
            "depth": self.depth,
            "heads": heads,
            "attention": self.attention,
            "text_conditioning": False,
        }
        return Config.model_validate({"dit": dit, "vae": {"latent_channels": LATENT_CHANNELS}})

    def planned_macs(self) -> int:
        """MACs of the call, by arithmetic: only to plan what to run."""
        terms = dit_terms(self.config(), self.latent_size, text_width=None, text_tokens=0)
        return self.batch * total(terms)


def grid(kind: Literal["cpu", "cuda"]) -> list[SweepShape]:
    """The shapes of a calibration, smallest first.

    CPU: 0.02 to 4 GMACs a call. CUDA: up to some billion parameters and 51k tokens.
    """
    if kind == "cpu":
        models = [(64, 4), (128, 2), (128, 6), (192, 4), (256, 4), (256, 8), (384, 6)]
        clips: list[tuple[Size, Size]] = [
            ((1, 8, 8), (1, 1, 1)),
            ((1, 16, 16), (1, 2, 2)),
            ((1, 32, 32), (1, 2, 2)),
            ((5, 8, 8), (1, 2, 2)),
            ((5, 16, 16), (1, 2, 2)),
            ((8, 16, 16), (2, 2, 2)),
            ((9, 16, 16), (1, 4, 4)),
        ]
        low, high, count, batches, max_cells = 2e7, 4e9, 36, (1, 4), 2**20
    else:
        models = [(512, 8), (768, 12), (1024, 16), (1152, 28), (2048, 16), (2048, 32), (3072, 24)]
        models.append((4096, 20))
        clips = [
            ((1, 32, 32), (1, 2, 2)),
            ((1, 64, 64), (1, 2, 2)),
            ((1, 128, 128), (1, 2, 2)),
            ((9, 32, 32), (1, 2, 2)),
            ((16, 32, 32), (2, 2, 2)),
            ((17, 64, 64), (1, 2, 2)),
            ((33, 60, 104), (1, 2, 2)),
            ((33, 60, 104), (1, 4, 4)),
        ]
        low, high, count, batches, max_cells = 5e10, 2e14, 56, (1, 8), 2**18
    kinds: tuple[Literal["full", "factorised"], ...] = ("full", "factorised")
    every = [
        SweepShape(width, depth, size, patch, attention, batch)
        for (width, depth), (size, patch), attention, batch in itertools.product(
            models, clips, kinds, batches
        )
        # A one-frame clip has no time to factor out.
        if (attention == "full" or size[0] > patch[0]) and size[0] * size[1] * size[2] * batch <= max_cells
    ]
    every = sorted((s for s in every if low <= s.planned_macs() <= high), key=SweepShape.planned_macs)
    step = max(1.0, len(every) / count)
    return [every[int(i * step)] for i in range(min(count, len(every)))]


def short_grid(kind: Literal["cpu", "cuda"], peak: float, seconds: float) -> list[SweepShape]:
    """`SHORT_POINTS` shapes of the grid, evenly through it up to the largest that there is time for, smallest first.

    Args:
        kind: of the device.
        peak: measured there, FLOP/s.
        seconds: for all of them, about.
    """
    shapes = grid(kind)
    for count in range(len(shapes), SHORT_POINTS - 1, -1):
        picked = [shapes[round(i * (count - 1) / (SHORT_POINTS - 1))] for i in range(SHORT_POINTS)]
        flops = sum(2 * _FORWARDS * shape.planned_macs() for shape in picked)
        if SHORT_POINTS * _POINT_SECONDS + flops / (_SHARE_OF_PEAK * peak) <= seconds:
            break
    return picked


def run(
    shapes: Sequence[SweepShape],
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    budget: float = 240.0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[SweepPoint]:
    """Measure the shapes, largest first, until the time is up; the smallest are the ones to miss.

    Shapes that do not fit the card's memory are left out.

    Args:
        shapes: from `grid`.
        device: "cpu" or "cuda".
        dtype: of weights and activations.
        budget: seconds for all of it, about; with less time each point is run fewer times, then left out.
        progress: called with (points done, points in all) before each point.
    """
    started = time.perf_counter()
    shapes = sorted(shapes, key=SweepShape.planned_macs, reverse=True)
    work = [shape.planned_macs() for shape in shapes]
    for i, shape in enumerate(shapes):
        left = budget - (time.perf_counter() - started)
        if left < 0 and i >= MINIMUM_POINTS:
            break
        if progress:
            progress(i, len(shapes))
        share = left * (work[i] + max(work) / 20) / sum(w + max(work) / 20 for w in work[i:])
        try:
            yield measure_shape(shape, device=device, dtype=dtype, budget=share)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    if progress:
        progress(len(shapes), len(shapes))


def measure_shape(
    shape: SweepShape, *, device: str = "cpu", dtype: torch.dtype = torch.float32, budget: float = 5.0
) -> SweepPoint:
    """Build, count and time one shape; `budget` seconds decide how often it is run (two to ten times)."""
    config = shape.config()
    with built_on(device, dtype):
        dit = build_dit(config, None)
    what = dit_pass(
        config, dit, shape.latent_size, text_width=None, batch=shape.batch, device=device, dtype=dtype
    )
    count = count_pass(what)

    def forward() -> None:
        with torch.no_grad():
            what()

    def train() -> None:
        what.loss().backward()
        dit.zero_grad()

    once = measure(forward, device, warmup=1, runs=1).median
    # A train step takes about three forwards.
    runs = max(2, min(10, int(budget / 8 / max(once, 1e-5))))
    forward_timing = measure(forward, device, warmup=0, runs=runs)
    train_timing: Timing | None = None
    try:
        step = count_step(what.loss)
        dit.zero_grad()
        train_timing = measure(train, device, warmup=1, runs=max(2, runs // 2))
    # Too large to train here: its FLOPs by shapes, its time not at all.
    except torch.OutOfMemoryError:
        dit.zero_grad()
        torch.cuda.empty_cache()
        step = _count_on_meta(shape)
    grid_size = token_grid(shape.latent_size, shape.patch)
    token, sample = _split_params(dit)
    attention = count.fvcore.by_operator()["scaled_dot_product_attention"] // shape.batch
    tokens = grid_size[0] * grid_size[1] * grid_size[2]
    return SweepPoint(
        **asdict(shape),
        tokens=tokens,
        params=sum(p.numel() for p in dit.parameters()),
        token_params=token,
        sample_params=sample,
        attention_pairs=_pairs(dit, grid_size) * shape.width,
        macs=count.macs,
        attention_macs=attention,
        forward_flops=step.forward_flops,
        train_flops=step.train_flops,
        model_flops=step.model_flops,
        forward=forward_timing,
        train=train_timing,
    )


def _count_on_meta(shape: SweepShape) -> StepCount:
    with torch.device("meta"):
        dit = build_dit(shape.config(), None)
    return count_step(
        dit_pass(shape.config(), dit, shape.latent_size, text_width=None, batch=shape.batch).loss
    )


def _split_params(dit: VideoDiT) -> tuple[int, int]:
    """Weights of linear layers that run on every token, and of those that run once per sample."""
    token = sample = 0
    for path, module in dit.named_modules():
        if isinstance(module, nn.Linear):
            once = "modulation" in path or path.startswith("embed_sigma")
            if once:
                sample += module.weight.numel()
            else:
                token += module.weight.numel()
    return token, sample


def _pairs(dit: VideoDiT, grid_size: Size) -> int:
    """Pairs of token and key over all blocks; a token sees all, those of its frame, or those of its place."""
    frames, places = grid_size[0], grid_size[1] * grid_size[2]
    keys = {"all": frames * places, "space": places, "time": frames}
    return sum(frames * places * keys[str(block.axis)] for block in dit.blocks)


def calibrate(
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    shapes: list[SweepShape] | None = None,
    budget: float | None = None,
    short: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Sweep a grid of real passes on this machine and fit the laws.

    Args:
        device: "cpu" or "cuda".
        dtype: bfloat16 on CUDA, float32 on a CPU by default.
        shapes: another grid than the device's own.
        budget: seconds of the sweep, about; the peak takes up to 4 more.
        short: few shapes of the grid, chosen so that they take no longer than the budget.
        progress: called with (points done, points in all) before each point.
    """
    # Time laws are fitted to the fastest run of each point: what the work takes, not what neighbours do.
    kind: Literal["cpu", "cuda"] = "cuda" if torch.device(device).type == "cuda" else "cpu"
    dtype = dtype or (torch.bfloat16 if kind == "cuda" else torch.float32)
    budget = budget or (420.0 if kind == "cuda" else 200.0)
    measure_peak.cache_clear()
    peak = measure_peak(device, dtype)
    if shapes is None:
        shapes = short_grid(kind, peak.flops_per_second, budget) if short else grid(kind)
    points = list(run(shapes, device=device, dtype=dtype, budget=budget, progress=progress))
    measure_peak.cache_clear()
    # Neighbours may have been busy before.
    peak = peak.merge(measure_peak(device, dtype))
    trained = [point for point in points if point.train is not None]
    ratio = sum(p.model_flops / p.forward_flops for p in trained) / max(len(trained), 1)
    return Calibration(
        points=points,
        mac_law=fit_macs(points),
        naive_law=fit_naive(points),
        forward_time_law=fit_seconds(points, [p.forward.minimum for p in points]),
        train_time_law=fit_seconds(trained, [p.train.minimum for p in trained if p.train], ratio)
        if trained
        else None,
        measured_peak=peak.flops_per_second,
        peak_ways=peak.ways,
        datasheet_peak=known_peak(device, dtype),
        device=describe_device(device, dtype),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
