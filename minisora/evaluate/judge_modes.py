"""How well each mode of a checkpoint works, on the shapes world, where the truth is known.

Every test starts from rendered clips of prompts, shows the model a part of them, and judges what it adds: is what
was given still there, does the object go on as it went, is it still the same one. A clip's own second part is what
a perfect model would have made, so the data's own numbers stand beside the model's.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from minisora.data.shapes_world.grammar import COLORS, Light, Motion, ShapesPrompt, parse
from minisora.evaluate.fidelity import psnr
from minisora.evaluate.judge.verdict import judge_all
from minisora.evaluate.sample_and_judge import reconstruct
from minisora.evaluate.trial import (
    ModeScore,
    Trial,
    near_paths,
    rate,
    same_object,
    shows,
    step_sizes,
    velocity_jump,
)
from minisora.flops.device import peak_memory_mib
from minisora.flow.denoise import DEFAULTS, SampleSettings
from minisora.pipelines.modes import (
    connect,
    default_context,
    extend,
    image_to_video,
    keyframes,
    known_length,
    long_video_pieces,
    loop,
)
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.restyle import inpaint, restyle

OPPOSITE: dict[Motion, Motion] = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "still": "still",
}
_SAME_DB = 99.0  # what equal clips are given for their infinite PSNR


def evaluate_modes(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    batch_size: int = 12,
    long_frames: int = 480,
    long_runs: int = 20,
    on_mode: Callable[[str], None] | None = None,
    settings: SampleSettings = DEFAULTS,
) -> dict[str, ModeScore]:
    """The score of every mode.

    Args:
        pipeline: a model of the shapes world, trained with `flow.known_share` above 0.
        prompts: of the grammar, with motion; a mode is tried once on each.
        seed: of clips and noise.
        batch_size: clips at a time.
        long_frames, long_runs: length and number of the long videos; 0 runs leave them out.
        on_mode: called with the name of each mode as it begins.
        settings: how to sample; `seed` is the one above.
    """
    parsed = [parse(prompt) for prompt in prompts]
    trial = Trial.of(pipeline, parsed, batch_size, seed, settings)
    days = [replace(prompt, light="day") for prompt in parsed]
    by_day = Trial.of(pipeline, days, batch_size, seed, settings)
    tests: dict[str, Callable[[], ModeScore]] = {
        "animate": lambda: _animate(trial),
        "extend": lambda: score_extension(trial, backward=False),
        "prepend": lambda: score_extension(trial, backward=True),
        "connect": lambda: _connect(trial),
        "loop": lambda: _loop(trial),
        "inpaint": lambda: _inpaint(trial),
        "keyframes": lambda: _keyframes(trial),
        "day_to_night": lambda: _restyle(by_day, "night"),
        "night_to_day": lambda: _restyle(trial, "day"),
        "recolour": lambda: _recolour(trial),
    }
    if long_runs:
        tests["long"] = lambda: _long(trial, long_runs, long_frames)
    found = {}
    for name, test in tests.items():
        if on_mode is not None:
            on_mode(name)
        found[name] = test()
    return found


def _animate(trial: Trial) -> ModeScore:
    made = trial.make(image_to_video, trial.prompts, [trial.clips[:, :, 0]])
    kept = psnr(made[:, :, :1], trial.clips[:, :, :1])
    rates = {
        "motion": shows(made, trial.prompts, "motion"),
        "identity": shows(made, trial.prompts, "color", "shape"),
    }
    numbers = {"first_frame_db": float(kept.mean()), "first_frame_worst_db": float(kept.min())}
    return trial.score(rates, numbers, trial.prompts, made)


def score_extension(trial: Trial, *, backward: bool) -> ModeScore:
    """What `extend` sees of every clip by default is given; the rest is made, and compared with what was taken away."""
    pipeline, clips = trial.pipeline, trial.clips
    context = default_context(pipeline, clips, backward=backward)
    given = known_length(pipeline, context, at_start=not backward)
    cut = clips.shape[2] - given if backward else given  # of the first part
    part = clips[:, :, cut:] if backward else clips[:, :, :cut]
    made = trial.make(extend, trial.prompts, [part], backward=backward, context=context)
    same = [same_object(video, cut, prompt) for video, prompt in zip(made, trial.prompts, strict=True)]
    limit = float(np.nanpercentile([velocity_jump(video, cut) for video in clips], 95))
    coded = reconstruct(pipeline.vae, clips)  # the true second half, as sharp as the VAE can show it
    joined = torch.cat(
        [coded[:, :, :cut], clips[:, :, cut:]] if backward else [part, coded[:, :, cut:]], dim=2
    )
    coded_limit = float(np.nanpercentile([velocity_jump(video, cut) for video in joined], 95))
    jumps = np.array([velocity_jump(video, cut) for video in made])
    new = (
        made[:, :, : cut + 1] if backward else made[:, :, cut - 1 :]
    )  # what was made, and the frame that it joins
    rates = {
        "motion": shows(new, trial.prompts, "motion"),
        "identity": rate(same),
        "smooth": rate((jumps <= limit).tolist()),
        "smooth_as_coded_data": rate((jumps <= coded_limit).tolist()),
    }
    numbers = {
        "jump_px": float(np.nanmedian(jumps)),
        "jump_p95_of_data_px": limit,
        "jump_p95_of_coded_data_px": coded_limit,
    }
    return trial.score(rates, numbers, trial.prompts, made)


def _connect(trial: Trial) -> ModeScore:
    """The first frame and the last ones of a clip are given as two videos."""
    clips, factor = trial.clips, trial.frames_per_latent
    made = trial.make(connect, trial.prompts, [clips[:, :, :1], clips[:, :, -factor:]])
    ends = torch.minimum(
        psnr(made[:, :, :1], clips[:, :, :1]), psnr(made[:, :, -factor:], clips[:, :, -factor:])
    )
    rates = {
        "all_right": shows(made, trial.prompts, "color", "shape", "motion"),
        "path": rate(near_paths(made, clips)),
    }
    return trial.score(rates, {"worst_end_db": float(ends.min().clamp(max=_SAME_DB))}, trial.prompts, made)


def _loop(trial: Trial) -> ModeScore:
    """There and back: the way home is asked for in words, as the opposite motion.

    The seam closes by construction (`loop` arrives over the given start run backwards), so the largest step of all,
    which includes both ends of what was made, stands beside it.
    """
    back = [replace(prompt, motion=OPPOSITE[prompt.motion]) for prompt in trial.prompts]
    made = trial.make(loop, back, [trial.clips])
    round_trip = torch.cat([made, made[:, :, :1]], dim=2)
    seams, same, excess, largest = [], [], [], []
    for video, prompt in zip(round_trip, trial.prompts, strict=True):
        steps = step_sizes(video)
        excess.append(steps[-1] - np.nanmax(steps[:-1]))
        seams.append(bool(excess[-1] <= 1e-6))
        given = np.nanmax(steps[: trial.clips.shape[2] - 1])
        largest.append(np.nanmax(steps) / max(given, 1e-6))
        same.append(same_object(video, trial.clips.shape[2], prompt))
    numbers = {
        "seam_over_largest_step_px": float(np.nanmedian(excess)),
        "largest_step_over_given": float(np.nanmedian(largest)),
    }
    return trial.score({"no_seam": rate(seams), "identity": rate(same)}, numbers, back, made)


def _inpaint(trial: Trial) -> ModeScore:
    """The middle third of the columns is made anew."""
    clips, width = trial.clips, trial.clips.shape[4]
    mask = torch.zeros(1, *clips.shape[2:], dtype=torch.bool)
    mask[..., width // 3 : 2 * width // 3] = True
    made = trial.make(inpaint, trial.prompts, [clips], mask)
    untouched = psnr(torch.where(mask[:, None], clips, made), clips).clamp(max=_SAME_DB)
    rates = {"all_right": shows(made, trial.prompts, "color", "shape", "motion")}
    return trial.score(rates, {"untouched_db": float(untouched.min())}, trial.prompts, made)


def _keyframes(trial: Trial) -> ModeScore:
    """The first, the middle and the last frame of a clip are given."""
    clips = trial.clips
    places = [0, (clips.shape[2] - 1) // 2, clips.shape[2] - 1]
    made = trial.make(keyframes, trial.prompts, [clips[:, :, places].transpose(1, 2)], places)
    kept = psnr(made[:, :, places], clips[:, :, places])
    rates = {
        "all_right": shows(made, trial.prompts, "color", "shape", "motion"),
        "path": rate(near_paths(made, clips)),
    }
    return trial.score(rates, {"keyframes_db": float(kept.mean())}, trial.prompts, made)


def _restyle(trial: Trial, light: Light) -> ModeScore:
    """The same by another light."""
    other = [replace(prompt, light=light) for prompt in trial.prompts]
    return _remade(replace(trial, say_night=True), other, "light", ("color", "shape"))


def _recolour(trial: Trial) -> ModeScore:
    """Every object becomes of another colour."""
    colors = list(COLORS)
    other = [replace(p, color=colors[colors.index(p.color) - 1]) for p in trial.prompts]
    return _remade(trial, other, "color", ("shape",))


def _remade(trial: Trial, wanted: list[ShapesPrompt], changed: str, kept: Sequence[str]) -> ModeScore:
    """Clips restyled to prompts that differ in one attribute: is it there, and is all else as it was?"""
    made = trial.make(restyle, wanted, [trial.clips], sources=trial.captions(trial.prompts))
    near = near_paths(made, trial.clips)
    same = [
        all(verdict.matches(prompt)[name] for name in kept)
        for verdict, prompt in zip(judge_all(made), wanted, strict=True)
    ]
    rates = {
        "style": shows(made, wanted, changed),
        "kept": rate([a and b for a, b in zip(near, same, strict=True)]),
        "kept_" + "_and_".join(kept): rate(same),
        "kept_path": rate(near),
    }
    return trial.score(rates, {}, wanted, made)


def _long(trial: Trial, runs: int, frames: int) -> ModeScore:
    """The object goes to and fro: every extension is asked for the opposite motion of the one before.

    Drift is the share of runs whose object is still the prompt's, piece after piece.
    """
    prompts = trial.prompts[:runs]
    said = [prompt.caption() for prompt in prompts]
    back = [replace(prompt, motion=OPPOSITE[prompt.motion]).caption() for prompt in prompts]
    settings = replace(trial.settings, seed=trial.seed, progress=False)
    pieces = long_video_pieces(trial.pipeline, said, context=1, later=(back, said), settings=settings)
    count, example = 0, []  # the pieces of all runs are not kept: memory is measured
    drift, seconds, peak_mib = {}, [], []
    while count < frames:
        start = time.perf_counter()
        piece = next(pieces).cpu()
        seconds.append((time.perf_counter() - start) / piece.shape[2] / len(prompts))
        peak_mib.append(peak_memory_mib())
        count += piece.shape[2]
        example.append(piece[:1].clone())
        same = [same_object(video, 0, prompt) for video, prompt in zip(piece, prompts, strict=True)]
        drift[f"identity_at_frame_{count}"] = sum(same) / len(same)
    half = len(seconds) // 2
    numbers = {
        "frames": float(count),
        "seconds_a_frame_first_half": float(np.median(seconds[:half])),
        "seconds_a_frame_second_half": float(np.median(seconds[half:])),
        "peak_memory_half_way_mib": peak_mib[half],
        "peak_memory_mib": peak_mib[-1],
        **drift,
    }
    return ModeScore({"identity_at_end": rate(same)}, numbers, said[0], torch.cat(example, dim=2)[0])
