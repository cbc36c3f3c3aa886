"""Few-step distillation: every step of a student is what its teacher does there in several.

The teacher's way from noise to a video is cut into as many windows as the student has steps. At the start of each
window the student learns the one velocity that leads to its end: progressive distillation (Salimans & Ho 2022,
arXiv 2202.00512) to all steps at once, over windows as in PeRFlow (Yan et al. 2024, arXiv 2405.07510). The teacher
samples with guidance, so its guidance is in what the student learns, which needs one pass a step and not two.

    OUT/trajectories/shard-00000.safetensors    states of 256 samples, and the key of what they were made of
       /dit/, /model/, metrics.jsonl            as of `minisora train dit`
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from minisora.config import Config, load
from minisora.data.batches import TrajectoryBatches
from minisora.data.dataset import open_dataset
from minisora.data.folder.record import DataRecord
from minisora.data.latent_cache import key_of
from minisora.errors import UserError
from minisora.flow.schedules import euler_sigmas
from minisora.limits import MAX_COUNT, MAX_STEPS, check_number
from minisora.models.text import TextEncoder
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.training import checkpoint
from minisora.training.launch import main_process_first, process_device
from minisora.training.stages import train_student, with_text_of
from minisora.training.trajectories import make_trajectories, shards_of

# What differs from the teacher's training: fewer, gentler steps from its weights, of one size, nothing known.
STUDENT = (
    "train_dit.steps=1500",
    "train_dit.lr=5e-4",
    "train_dit.muon_lr=5e-3",
    "train_dit.sample_every=0",
    "train_dit.ema_decay=0.995",
    "flow.known_share=0",
    "flow.image_share=0",
    "data.buckets=[]",
)


def distill(
    config: Config,
    teacher: MiniSoraPipeline,
    captions: Sequence[str],
    run: Path,
    console: Console,
    *,
    student_steps: int = 4,
) -> None:
    """Sample the teacher, train the student from the teacher's weights, and write RUN/model.

    Args:
        config: of the student's training; its clip and its model must be the teacher's.
        teacher: the model to distil.
        captions: of the samples to learn from.
        run: folder of the student.
        console: where progress is shown.
        student_steps: sampling steps of the student.

    Raises:
        UserError: the config is of another model, or the run folder cannot be written or holds another run.
    """
    check_number("student_steps", student_steps, 1, MAX_STEPS)
    config = with_text_of(config, teacher)
    _check_same_model(config, teacher)
    sample = config.sample.model_copy(update={"steps": student_steps, "guidance": 1.0, "scheduler": "euler"})
    config = config.model_copy(update={"sample": sample})
    folder = run / "trajectories"
    _check_run(config, teacher, captions, run, folder)
    with main_process_first(), console.status("the teacher samples") as status:
        states = make_trajectories(
            teacher,
            captions,
            folder,
            student_steps,
            progress=lambda done, total: status.update(f"the teacher samples {done}/{total}"),
        )
    sigmas = euler_sigmas(student_steps, teacher.config.sigma_shift).tolist()
    train_student(config, teacher, TrajectoryBatches(states, sigmas, captions, config.seed), run, console)


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
        for key, said in config.model_dump(mode="json", include={section})[section].items():
            value = trained.get(key, said)  # a setting of training alone is nothing of the model
            value = list(value) if isinstance(value, tuple) else value
            if value != said:
                raise UserError(
                    f"the teacher has {section}.{key}={value}, the config says {said}: "
                    "give the config that the teacher was trained with"
                )


def _check_run(
    config: Config, teacher: MiniSoraPipeline, captions: Sequence[str], run: Path, folder: Path
) -> None:
    """Raise UserError if the run holds a model, finished or in training, that is not this student.

    Training would refuse it as well, but only when the samples are made anew over those that it learns from.
    """
    last = checkpoint.newest(run / "dit" / "checkpoints")
    if last is not None:
        state = checkpoint.read_state(last)
        checkpoint.check_resumable(last, state, checkpoint.described(config), state.inputs)
    elif not (run / "model").exists():
        return
    for shard in shards_of(teacher, captions, folder, config.sample.steps):
        if not shard.file.is_file():
            raise UserError(f"{run} holds a model that did not learn from {shard.file}: use another --out")
        if key_of(shard.file) not in (shard.key, None):  # None: damaged, to be made anew
            raise UserError(
                f"{run} holds the student of another teacher, or of other captions or --steps ({shard.file}): "
                "use another --out"
            )


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
    num_samples: int = 4000,
    student_steps: int = 4,
    overrides: Sequence[str] = (),
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

    Raises:
        UserError: the config or the model cannot be read, they do not fit each other, or `out` cannot be used.
    """
    check_number("num_samples", num_samples, 1, MAX_COUNT)
    check_number("student_steps", student_steps, 1, MAX_STEPS)
    resolved = load(config, [*STUDENT, *overrides])
    # Of a run's own data, also where a damaged file was removed since: its captions are what the student is of.
    stage = Path(model).parent / "dit"
    record = DataRecord(stage) if (stage / "data.json").is_file() else None
    captions = open_dataset(resolved, "train", record).captions()
    captions = (captions * math.ceil(num_samples / len(captions)))[:num_samples]
    distill(
        resolved, load_pipeline(model, process_device()), captions, out, console, student_steps=student_steps
    )
