"""Few-step distillation: every step of a student is what its teacher does there in several.

The teacher's way from noise to a video is cut into as many windows as the student has steps. At the start of each
window the student learns the one velocity that leads to its end: progressive distillation (Salimans & Ho 2022,
arXiv 2202.00512) to all steps at once, over windows as in PeRFlow (Yan et al. 2024, arXiv 2405.07510). The teacher
samples with guidance, so its guidance is in what the student learns, which needs one pass a step and not two.

    OUT/trajectories/shard-00000.safetensors    states of 256 samples, and the key of what they were made of
       /dit/, /model/, metrics.jsonl            as of `minisora train dit`
"""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import SafetensorError
from torch import Tensor, nn

from minisora.config import Config, load
from minisora.data.batches import TrajectoryBatches
from minisora.data.dataset import open_dataset
from minisora.data.folder.record import DataRecord
from minisora.data.latent_cache import fingerprint, key_of, read_shard, write_shard
from minisora.errors import UserError
from minisora.flow.schedules import euler_sigmas, make_scheduler
from minisora.limits import MAX_COUNT, MAX_STEPS, check_number
from minisora.memory import available_memory, size_text
from minisora.models.text import TextEncoder
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.screen import Progress
from minisora.training import checkpoint
from minisora.training.launch import main_process_first, process_device
from minisora.training.minutes import elapsed, keep_plan
from minisora.training.stage_minutes import open_stage_plan, plan_stage
from minisora.training.stages import train_student, with_text_of

# Samples of the teacher to learn from.
NUM_SAMPLES = 4000
# Trajectories in a file.
_SHARD = 256
# Of a plan of minutes: the share in which the teacher samples, the most samples, and those that it is timed by.
_SAMPLING_SHARE, _MOST_SAMPLES, _TIMED = 0.4, 20_000, 16

# What differs from the teacher's training: fewer, gentler steps from its weights, of one size, nothing known.
STUDENT: dict[str, Any] = {
    "train_dit.steps": 1500,
    "train_dit.lr": 5e-4,
    "train_dit.muon_lr": 5e-3,
    "train_dit.sample_every": 0,
    "train_dit.ema_decay": 0.995,
    "dit.dropout": 0.0,
    "flow.known_share": 0.0,
    "flow.image_share": 0.0,
    "data.buckets": (),
}


def teacher_of(run: Path, out: Path) -> tuple[Path, Path]:
    """Config file and model folder of a finished run whose student is to go to `out`.

    Raises:
        UserError: the run holds no model, or `out` is the run itself.
    """
    file, model = run / "config.yaml", run / "model"
    if not file.is_file() or not model.is_dir():
        raise UserError(
            f"{run} holds no finished run: it needs config.yaml and model/, as minisora train writes"
        )
    if out.resolve() == run.resolve():
        raise UserError(f"--out {out} is the teacher's own run: choose another folder")
    return file, model


def distill_model(
    config: str | Path,
    model: str | Path,
    out: Path,
    console: Console,
    *,
    num_samples: int = NUM_SAMPLES,
    student_steps: int = 4,
    overrides: Sequence[str] = (),
    minutes: float | None = None,
) -> None:
    """Distil a model on captions of its own training set.

    Args:
        config: that the teacher was trained with, a file or a shipped one by name.
        model: the teacher, a folder or a shipped model by name.
        out: the student's run folder.
        console: where progress is shown.
        num_samples: of the teacher, to learn from.
        student_steps: sampling steps of the student.
        overrides: `section.key=value` of the student's config, over the teacher's and `STUDENT`.
        minutes: of the whole command, by which `num_samples` and the steps are chosen; None: as they are given.

    Raises:
        UserError: the config or the model cannot be read, they do not fit each other, `out` cannot be used, or there
            are too few minutes.
    """
    plan = None if minutes is None else open_stage_plan(out, minutes)
    check_number("num_samples", num_samples, 1, MAX_COUNT)
    check_number("student_steps", student_steps, 1, MAX_STEPS)
    settings = load(config, overrides, STUDENT)
    # Of a run's own data, also where a damaged file was removed since: its captions are what the student is of.
    stage = Path(model).parent / "dit"
    record = DataRecord(stage) if (stage / "data.json").is_file() else None
    captions = open_dataset(settings, "train", record).captions()
    teacher = load_pipeline(model, process_device())
    settings = with_text_of(settings, teacher)
    _check_same_model(settings, teacher)
    settings = settings.replace(
        **{"sample.steps": student_steps, "sample.guidance": 1.0, "sample.scheduler": "euler"}
    )
    if plan is not None:
        if not plan.samples:
            plan.samples = _samples_for(plan.minutes, teacher, captions[0], student_steps)
            keep_plan(plan, out)
        num_samples = plan.samples
        # Of a plan that goes on: its checkpoints have its steps.
        settings = plan.apply(settings)
    captions = (captions * math.ceil(num_samples / len(captions)))[:num_samples]
    folder = out / "trajectories"
    _check_run(settings, teacher, captions, out, folder)
    with main_process_first(), console.status("the teacher samples") as status:
        states = make_trajectories(
            teacher,
            captions,
            folder,
            student_steps,
            progress=lambda done, total: status.update(f"the teacher samples {done}/{total}"),
        )
    sigmas = euler_sigmas(student_steps, teacher.config.sigma_shift).tolist()
    samples = TrajectoryBatches(states, sigmas, captions, settings.seed)
    if plan is not None:
        settings = plan_stage(
            plan,
            "dit",
            settings,
            out,
            console,
            lambda few, folder, quiet: train_student(few, teacher, samples, folder, quiet),
        )
    train_student(settings, teacher, samples, out, console)


def _samples_for(minutes: float, teacher: MiniSoraPipeline, caption: str, windows: int) -> int:
    """How many samples the teacher makes in its share of the minutes."""
    seconds = []
    # The first batch pays for what is done once.
    for _ in range(2):
        start = time.perf_counter()
        _sample(teacher, [caption] * _TIMED, 0, windows)
        seconds.append((time.perf_counter() - start) / _TIMED)
    left = _SAMPLING_SHARE * (60 * minutes - elapsed())
    return max(_TIMED, min(_MOST_SAMPLES, int(left / seconds[-1])))


def _check_same_model(config: Config, teacher: MiniSoraPipeline) -> None:
    """Raise UserError, naming the first setting that differs, unless the config is of the teacher's model.

    The student is a copy of the teacher, but its clip size and its config.yaml come from the config.
    """
    frames, height, width = teacher.config.default_size
    dit = {**teacher.dit.config, "text_conditioning": teacher.text_encoder is not None}
    parts: dict[str, dict[str, Any]] = {
        "clip": {"frames": frames, "height": height, "width": width, "fps": teacher.config.fps},
        "vae": dict(teacher.vae.config),
        "dit": dit,
        "flow": {"shift": teacher.config.sigma_shift},
    }
    if isinstance(teacher.text_encoder, TextEncoder):
        parts["text"] = {**teacher.text_encoder.config, "kind": "scratch"}
    elif teacher.text_encoder is not None:
        parts["text"] = {"kind": "pretrained"}
    for section, trained in parts.items():
        for key, wanted in config.model_dump(mode="json", include={section})[section].items():
            # A setting of training alone is nothing of the model.
            value = trained.get(key, wanted)
            value = list(value) if isinstance(value, tuple) else value
            if value != wanted:
                raise UserError(
                    f"the teacher has {section}.{key}={value}, the config says {wanted}: "
                    "give the config that the teacher was trained with"
                )


def _check_run(
    config: Config, teacher: MiniSoraPipeline, captions: Sequence[str], run: Path, folder: Path
) -> None:
    """Raise UserError if the run holds a model, finished or in training, that is not this student.

    Training would refuse it as well, but only when the samples are made anew over those that it learns from.
    """
    begun = checkpoint.resume_point(run / "dit" / "checkpoints", checkpoint.described(config))
    if begun is None and not (run / "model").exists():
        return
    for shard in shards_of(teacher, captions, folder, config.sample.steps):
        if not shard.file.is_file():
            raise UserError(f"{run} holds a model that did not learn from {shard.file}: use another --out")
        # None: damaged, to be sampled again.
        if key_of(shard.file) not in (shard.key, None):
            raise UserError(
                f"{run} holds the student of another teacher, or of other captions or --steps ({shard.file}): "
                "use another --out"
            )


@dataclass(frozen=True)
class Shard:
    """A file of trajectories: its captions, the seed of the first one's noise, and the key of what it depends on."""

    file: Path
    captions: Sequence[str]
    start: int
    key: str


def make_trajectories(
    teacher: MiniSoraPipeline,
    captions: Sequence[str],
    folder: Path,
    windows: int,
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Tensor:
    """The teacher's states on the way from noise to latents; kept in shards, so a run that was killed goes on.

    The teacher samples by its own settings, but in Euler steps, and as many as make the windows equal.

    Args:
        teacher: the model to distil.
        captions: one trajectory each; the i-th starts from the noise of seed i.
        folder: of the shards; those of another teacher, other captions or other sampling are made anew.
        windows: parts that the steps are divided into, the student's steps.
        batch_size: trajectories at a time.
        progress: called with (trajectories done, in all).

    Returns:
        N (windows + 1) Z T' H' W' float32: the noise, the state after each window, the last of them the latents.

    Raises:
        UserError: there is no caption, memory for all is not there, or the folder cannot be written.
    """
    if not captions:
        raise UserError("no captions to sample the teacher with: give at least one")
    shape = teacher.latent_shape(*teacher.config.default_size)
    need, free = 4 * len(captions) * (windows + 1) * math.prod(shape), available_memory()
    if need > free:
        raise UserError(
            f"{len(captions)} trajectories of {windows + 1} states are {size_text(need)}, and {size_text(free)} are "
            "free: take fewer --samples"
        )
    parts: list[Tensor] = []
    for shard in shards_of(teacher, captions, folder, windows):
        tensors = read_shard(shard.file, shard.key)
        if tensors is None:
            rows = []
            for first in range(0, len(shard.captions), batch_size):
                some = shard.captions[first : first + batch_size]
                rows.append(_sample(teacher, some, shard.start + first, windows))
                if progress is not None:
                    progress(shard.start + first + len(some), len(captions))
            tensors = {"states": torch.cat(rows)}
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_shard(shard.file, tensors, shard.key)
            except (OSError, SafetensorError) as error:
                raise UserError(f"cannot write {shard.file}: {error}; free space and run again") from error
        parts.append(tensors["states"])
    return torch.cat(parts)


def _sample(teacher: MiniSoraPipeline, captions: Sequence[str], seed: int, windows: int) -> Tensor:
    """States of some trajectories, B (windows + 1) Z T' H' W'."""
    steps = teacher_steps(teacher, windows)
    noise = teacher.noise(len(captions), teacher.latent_shape(*teacher.config.default_size), seed)
    states = [noise]

    def keep(step: int, _: float, x: Tensor) -> None:
        if (step + 1) % (steps // windows) == 0:
            states.append(x.cpu().float())

    own, teacher.scheduler = teacher.scheduler, make_scheduler("euler")
    try:
        teacher(
            captions,
            latents=noise,
            num_inference_steps=steps,
            callback_on_step_end=keep,
            output_type="latent",
            progress=False,
        )
    finally:
        teacher.scheduler = own
    return torch.stack(states, dim=1)


def teacher_steps(teacher: MiniSoraPipeline, windows: int) -> int:
    """The teacher's own number of steps, or the next one that the windows divide."""
    return math.ceil(teacher.config.default_steps / windows) * windows


def shards_of(teacher: MiniSoraPipeline, captions: Sequence[str], folder: Path, windows: int) -> list[Shard]:
    """The files that the trajectories of these captions go into."""
    sampling = [
        {name: _described(part) for name, part in teacher.components.items() if name != "scheduler"},
        teacher.config.sigma_shift,
        [teacher_steps(teacher, windows), windows],
        float(teacher.config.default_guidance),
        teacher.latent_shape(*teacher.config.default_size),
    ]
    shards = []
    for number, start in enumerate(range(0, len(captions), _SHARD)):
        part = captions[start : start + _SHARD]
        content = json.dumps([sampling, start, list(part)], sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()
        shards.append(Shard(folder / f"shard-{number:05}.safetensors", part, start, key))
    return shards


def _described(part: Any) -> list[Any] | None:
    """What decides how a part of the teacher behaves: its kind, its settings and its weights if it has any."""
    if part is None:
        return None
    # Neither where it was read from nor the version that wrote it: what it makes does not depend on them.
    settings = {
        key: value
        for key, value in json.loads(part.to_json_string()).items()
        if not key.startswith("_") and key != "path"
    }
    weights = fingerprint(part) if isinstance(part, nn.Module) else ""
    return [type(part).__name__, settings, weights]
