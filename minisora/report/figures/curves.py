"""Figures over axes: the report's break-evens and its demand, redrawn; attention's share; diffusion steps."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minisora.report.assumptions import Assumptions
from minisora.report.claims import printed_values
from minisora.report.cost import ATTENTIONS, forward_macs
from minisora.report.figures.style import (
    CORRECTED,
    GREEN,
    MARKERS,
    NORMAL,
    ORANGE,
    OURS,
    PUBLISHED,
    PURPLE,
    SOFT,
    Drawn,
    canvas,
    color_of,
    log_axis,
    note,
)
from minisora.report.model import Inputs, estimate, number, sora_shape, token_grid
from minisora.report.units import Number
from minisora.report.words import big, percent, short

# Images a day, as the report has it. No result depends on it, so it is no assumption.
INSTAGRAM_IMAGES = 95e6

# When serving has cost as much as training.

# Outputs at which serving has cost as much as training, by line of training, of each panel.
Even = list[dict[str, float]]


def _break_even(
    presets: Sequence[Assumptions],
    training: Mapping[str, str],
    output: tuple[str, float],
    marks: Mapping[str, float],
    axis: tuple[str, str],
) -> tuple[Figure, Even]:
    """Cumulative inference against outputs over flat training lines, one panel under another.

    Args:
        presets: of the panels, the published one first.
        training: results drawn as flat lines, by label.
        output: result that is the cost of one output; that cost as the report rounds it, which its own break-even
            follows.
        marks: vertical lines.
        axis: words of the axis, and of a number on it.
    """
    panels = []
    for position, preset in enumerate(presets):
        values = preset.best
        per_output = output[1] if position == 0 else values[output[0]]
        panels.append((preset, per_output, {label: values[result] for label, result in training.items()}))
    even = [{label: compute / cost for label, compute in lines.items()} for _, cost, lines in panels]
    shown = np.log10([*marks.values(), *(value for panel in even for value in panel.values())])
    low, high = 10 ** np.floor(shown.min() - 0.8), 10 ** np.ceil(shown.max() + 0.2)
    ends = np.array([low, high])
    figure, subplots = canvas(0.9 + 2.0 * len(panels), len(panels))
    for position, (axes, (preset, per_output, lines)) in enumerate(zip(subplots, panels, strict=True)):
        bottom, color = min(lines.values()) / 40, color_of(preset.preset)
        log_axis(axes, "x", low, high, label=short)
        log_axis(axes, "y", bottom, max(lines.values()) * 6)
        axes.set_title(preset.name, loc="left", fontsize=NORMAL, fontweight="bold", color=color)
        counted = "MAC" if preset.entries["count.flops_per_mac"].value == 1 else "FLOP"
        axes.set_ylabel(f"{counted}, cumulative")
        for place, (name, value) in enumerate(marks.items()):
            axes.axvline(value, color=PURPLE, lw=1.2, ls=(0, (1, 1.5)), gid=f"mark-{position}-{place}")
            if position == 0:
                side = ("right", -4) if value < max(marks.values()) else ("left", 4)
                note(axes, name, (value, bottom), (side[1], 9), color=PURPLE, ha=side[0])
        axes.plot(ends, ends * per_output, color=GREEN, gid=f"inference-{position}")
        # A little behind where the line enters.
        start = 4 * max(low, bottom / per_output)
        note(axes, "inference", (start, start * per_output), (-5, 6), color=GREEN, ha="right")
        for label, compute in lines.items():
            axes.axhline(compute, color=color, gid=f"training-{label}-{position}")
            note(axes, f"{label} {big(compute)}", (high, compute), (5, 0), color=color)
            x, gid = even[position][label], f"even-{label}-{position}"
            axes.plot(x, compute, MARKERS[color], color=color, ms=7, mec="white", gid=gid)
            note(
                axes, f"{short(x)} {axis[1]}", (x, compute), (-7, 8), ha="right", fontweight="bold",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
        axes.tick_params(labelbottom=position == len(panels) - 1)
    subplots[-1].set_xlabel(axis[0])
    return figure, even


def dit_break_even(published: Assumptions, other: Assumptions) -> Drawn:
    """Images after which sampling DiT has cost as much as training it."""
    instagram = short(INSTAGRAM_IMAGES)
    figure, even = _break_even(
        (published, other),
        {"training": "dit_training_compute"},
        ("dit_compute_per_image", printed_values()["dit_compute_per_image"]),
        {f"Instagram, {instagram} a day": INSTAGRAM_IMAGES},
        ("images generated", "images"),
    )
    before, after = (short(panel["training"]) for panel in even)
    caption = (
        f"Sampling DiT-XL/2 overtakes its training after {before} images as published and after {after} with the "
        f"preset {other.name}; Instagram takes in {instagram} images a day."
    )
    return Drawn("When generating images costs more than training DiT", caption, figure)


def sora_break_even(published: Assumptions, other: Assumptions) -> Drawn:
    """Minutes of video after which serving Sora has cost as much as training it, for least and most data.

    The published 38.1M needs the cost of a video (of one minute) as printed, 708e15; the model's own 707.4e15
    gives 38.2M.
    """
    tiktok = published.best["tiktok_minutes_per_day"]
    youtube = published.entries["demand.youtube_minutes"].value
    assert isinstance(youtube, float)
    figure, even = _break_even(
        (published, other),
        {end: f"sora_training_compute_{end}" for end in ("low", "high")},
        ("sora_compute_per_minute", printed_values()["sora_compute_per_video"]),
        {f"TikTok, {short(tiktok)} a day": tiktok, f"YouTube, {short(youtube)} a day": youtube},
        ("minutes of video generated", "min"),
    )
    before, after = (f"{short(panel['low'])} to {short(panel['high'])}" for panel in even)
    caption = (
        f"Serving Sora overtakes its training after {before} minutes of video as published and after {after} with the "
        f"preset {other.name}; TikTok takes in {short(tiktok)} and YouTube {short(youtube)} minutes a day."
    )
    return Drawn("When generating video costs more than training Sora", caption, figure)


# Diffusion steps.

STEP_MARKS = (4, 8, 50, 250)
_GUIDANCE = ((1.0, "-", "no guidance"), (2.0, (0, (4, 2)), "guidance"))


def break_even_by_steps(assumptions: Assumptions, steps: np.ndarray, passes: float) -> np.ndarray:
    """Minutes of video until serving has cost as much as training, at that many steps and passes a step."""
    changed: dict[str, Number] = {"serve.steps": steps, "serve.guidance_passes": np.full_like(steps, passes)}
    even = estimate(assumptions.inputs(changed))["sora_break_even"].value
    return np.broadcast_to(np.asarray(even, dtype=float), steps.shape)


def steps_break_even(presets: Sequence[Assumptions]) -> Drawn:
    """Break-even against the number of diffusion steps, with and without guidance, for two presets."""
    steps = np.geomspace(1, 250, 60)
    marks = np.array([float(m) for m in STEP_MARKS])
    lines = [
        (preset, color, passes, style, words, break_even_by_steps(preset, steps, passes))
        for preset, color in zip(presets, (color_of(presets[0].preset), GREEN), strict=True)
        for passes, style, words in _GUIDANCE
    ]
    figure, (axes,) = canvas(4.05)
    log_axis(axes, "x", 1, 250)
    axes.set_xticks([1, 2, *STEP_MARKS, 16, 100])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    every = np.concatenate([line for *_, line in lines])
    log_axis(axes, "y", every.min() / 1.5, every.max() * 1.5, label=short)
    axes.set(xlabel="diffusion steps", ylabel="minutes of video at break-even")
    for mark in STEP_MARKS:
        axes.axvline(mark, color="#b0b0b0", lw=1)
    for place, (preset, color, passes, style, words, line) in enumerate(lines):
        axes.plot(steps, line, color=color, ls=style, gid=f"steps-{place}")
        axes.plot(marks, break_even_by_steps(preset, marks, passes), "o", color=color, ms=4.5, clip_on=False)
        note(axes, f"{preset.name}, {words}", (steps[-1], line[-1]), (8, 0), color=color)
    many, few = break_even_by_steps(presets[0], np.array([250.0, 4.0]), 2.0)
    caption = (
        f"With the preset {presets[0].name} and guidance, going from 250 steps to 4 moves the break-even from "
        f"{short(many)} to {short(few)} minutes of video; at any number of steps guidance about halves it."
    )
    return Drawn("Break-even against the number of diffusion steps", caption, figure)


# Demand.


def demand(corrected: Assumptions, other: Assumptions) -> Drawn:
    """The report's build-up of GPUs, factor by factor, as printed and with its arithmetic mended."""
    printed, mended = printed_values(), corrected.best
    words = {"utilisation_factor": "utilisation", "peak_factor": "peak", "candidates_factor": "candidates"}
    labels = ["average demand", *(f"×{printed[name]:g} for {word}" for name, word in words.items())]
    growth = np.cumprod([1.0, *(printed[name] for name in words)])
    per_gpu, peak = printed["minutes_per_h100_day"], printed["peak_demand_h100"]
    first = growth * printed["ai_minutes_per_day"] / per_gpu
    series = [
        (f"as printed, where {short(first[-1])} is rounded to {short(peak)}", PUBLISHED, first),
        ("sum mended", ORANGE, growth * mended["ai_minutes_per_day"] / per_gpu),
        ("sum mended, and MACs counted as two FLOPs", CORRECTED, growth * mended["demand_gpus"]),
    ]
    figure, (axes,) = canvas(3.5)
    axes.set_ylim(0, max(gpus[-1] for *_, gpus in series) * 1.1)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: short(value) if value else "0")
    axes.grid(axis="x", visible=False)
    axes.set_xticks(range(len(labels)), labels)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("H100")
    for place, (label, color, gpus) in enumerate(series):
        x = np.arange(len(gpus)) + (place - 1) * 0.28
        axes.bar(x, gpus, 0.25, color=color, label=label)
        for at, value in zip(x, gpus, strict=True):
            note(axes, short(value), (at, value), (0, 3), ha="center", va="bottom")
    axes.legend(loc="upper left")
    ends = [short(gpus[-1]) for *_, gpus in series]
    caption = (
        f"As printed, {short(first[0])} H100 grow to {ends[0]}; with the sum over TikTok and YouTube mended it is "
        f"{ends[1]}, and with a multiply-accumulate counted as two FLOPs {ends[2]}."
    )
    if other.preset not in ("as_published", "corrected"):
        needed = other.best["peak_demand_gpus"]
        caption += f" The preset {other.name} needs {short(needed)}, not drawn."
    return Drawn("GPUs for the published demand, step by step", caption, figure)


# Attention.

_KIND_COLORS = {"full": OURS, "divided": PURPLE, "factorised": GREEN}
FRAME_SIZES = {"720p": (720, 1280), "1080p": (1080, 1920)}


def attention_shares(inputs: Inputs, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Attention's share of a pass by kind, at that many video tokens in the preset's number of latent frames."""
    shape, frames = sora_shape(inputs), token_grid(inputs)[0]
    return {
        kind: np.asarray(forward_macs(shape, frames, tokens / frames, kind).attention_share)
        for kind in ATTENTIONS
    }


def places_of(inputs: Inputs, height: float, width: float) -> float:
    """Tokens of one latent frame of that size."""
    return float(height * width / (number(inputs, "sora.vae_pixels") * number(inputs, "sora.patch")) ** 2)


def token_marks(inputs: Inputs) -> dict[str, float]:
    """Tokens of the preset's clip, of larger frames, and where attention costs as much as the rest (S = 6 d)."""
    frames, places = (float(part) for part in token_grid(inputs))
    height, width = number(inputs, "sora.height"), number(inputs, "sora.width")
    marks = {"S = 6d": 6 * float(sora_shape(inputs).width), f"{width:g}×{height:g}": frames * places}
    for name, size in FRAME_SIZES.items():
        tokens = frames * places_of(inputs, *size)
        if tokens not in marks.values():
            marks[name] = tokens
    return marks


def _over_rule(inputs: Inputs) -> str:
    """What a pass at 1080p costs beside the published rule's pass over its own frames of 512x512."""
    frames, places = token_grid(inputs)[0], places_of(inputs, *FRAME_SIZES["1080p"])
    macs = forward_macs(sora_shape(inputs), frames, places, "full").total
    size = number(inputs, "sora.params") / number(inputs, "dit.params")
    ratio = float(macs / (number(inputs, "dit.macs_per_step") * size * frames))
    return f"Full attention at 1080p costs {short(ratio)} times the published rule's pass over frames of 512×512."


def attention_share(assumptions: Assumptions) -> Drawn:
    """Attention's share of a pass against tokens, for the preset's model and number of latent frames."""
    inputs = assumptions.inputs()
    marks = token_marks(inputs)
    at = np.array(list(marks.values()))
    low, high = min(1e4, at.min() / 3), max(3e6, at.max() * 2)
    tokens = np.geomspace(low, high, 120)
    figure, (axes,) = canvas(3.9)
    log_axis(axes, "x", low, high)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: percent(value))
    seconds, frames = number(inputs, "sora.seconds"), float(token_grid(inputs)[0])
    axes.set_xlabel(f"tokens of a clip of {seconds:g} s, {frames:g} latent frames")
    axes.set_ylabel("attention's share of a pass")
    for place, (name, value) in enumerate(marks.items()):
        axes.axvline(value, color=SOFT, lw=0.9, ls=(0, (1, 1.5)), gid=f"mark-{place}")
        note(axes, name, (value, 1), (0, 5), ha="center", va="bottom", color=SOFT)
    levels = attention_shares(inputs, at)
    for kind, share in attention_shares(inputs, tokens).items():
        color = _KIND_COLORS[kind]
        axes.plot(tokens, share, color=color, gid=f"share-{kind}")
        axes.plot(at, levels[kind], "o", color=color, ms=4)
        note(axes, kind, (high, share[-1]), (6, 0), color=color, fontweight="bold")
    full, parts = levels["full"], levels["factorised"]
    for value, level in zip(at, full, strict=True):
        note(axes, percent(level), (value, level), (5, -9), color=_KIND_COLORS["full"])
    clip, largest = list(marks)[1], list(marks)[-1]
    caption = (
        f"With full attention {percent(full[1])} of a pass over the {clip} clip is attention, and {percent(full[-1])} "
        f"at {largest}; with attention factorised it is {percent(parts[1], 1)} and {percent(parts[-1], 1)}. "
        f"Attention costs as much as everything else at S = 6d, {short(marks['S = 6d'])} tokens. {_over_rule(inputs)}"
    )
    return Drawn("Attention's share of a pass, by kind of attention", caption, figure)
