"""Few-step distillation by reflow: a student learns the straight lines between a teacher's noise and its videos.

Rectified flow (Liu et al. 2022, arXiv 2209.03003, section 2.2) trains again on pairs of noise and the sample that
the trained model makes of it. The pairs no longer cross, so the paths between them are nearly straight and a few
Euler steps follow them. The teacher samples with guidance, so its guidance is in the pairs and the student needs
one pass a step where the teacher needs two.

    OUT/pairs/shard-00000.safetensors    noise and latents of 256 pairs, and the key of what they were made of
       /dit/, /model/, metrics.jsonl     as of `minisora train dit`
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minisora.config import Config, load
from minisora.data.batches import PairBatches
from minisora.data.sources import open_dataset
from minisora.errors import UserError
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.training.stages import train_student
from minisora.training.tasks import fingerprint

_SHARD = 256  # pairs
# What differs from the teacher's training: fewer, gentler steps from its weights, all noise levels alike.
STUDENT = (
    "train_dit.steps=1500",
    "train_dit.lr=5e-4",
    "train_dit.muon_lr=5e-3",
    "train_dit.sample_every=0",
    "train_dit.ema_decay=0.995",
    "flow.sigma_mean=0",
    "flow.sigma_std=1.5",
    "flow.shift=1",
    "flow.known_share=0",
    "flow.image_share=0",
    "data.buckets=[]",
)


def make_pairs(
    teacher: MiniSoraPipeline,
    captions: Sequence[str],
    folder: Path,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Noise and the teacher's latents for every caption, kept in shards: a run that was killed goes on.

    Args:
        teacher: the model to distil.
        captions: one pair each; pair i starts from the noise of seed i.
        folder: of the shards; those of another teacher or other captions are made anew.
        steps, guidance: of the teacher's sampling; its own by default.
        batch_size: pairs at a time.
        progress: called with (pairs done, pairs in all).

    Returns:
        Noise and latents, each N Z T' H' W' float32.

    Raises:
        UserError: the folder cannot be written.
    """
    frames, height, width = teacher.config.default_size
    shape = teacher.latent_shape(frames, height, width)
    folder.mkdir(parents=True, exist_ok=True)
    made_by = [fingerprint(teacher.dit), fingerprint(teacher.vae), steps, guidance, list(shape)]
    parts: list[tuple[Tensor, Tensor]] = []
    for number, start in enumerate(range(0, len(captions), _SHARD)):
        file = folder / f"shard-{number:05}.safetensors"
        said = captions[start : start + _SHARD]
        key = hashlib.sha256(json.dumps([made_by, start, list(said)]).encode()).hexdigest()
        pairs = _read_pairs(file, key)
        if pairs is None:
            rows = []
            for first in range(0, len(said), batch_size):
                some = said[first : first + batch_size]
                noise = teacher.noise(len(some), shape, start + first)
                made = teacher(
                    some,
                    latents=noise,
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    output_type="latent",
                    progress=False,
                )
                rows.append((noise, made.videos.cpu().float()))
                if progress is not None:
                    progress(start + first + len(some), len(captions))
            pairs = torch.cat([a for a, _ in rows]), torch.cat([b for _, b in rows])
            partial = file.with_name(f".{file.name}.partial")
            try:
                save_file({"noise": pairs[0], "latents": pairs[1]}, partial, metadata={"key": key})
                partial.replace(file)
            except OSError as error:
                raise UserError(f"cannot write {file}: {error.strerror}; free space and run again") from error
        parts.append(pairs)
    return torch.cat([noise for noise, _ in parts]), torch.cat([latents for _, latents in parts])


def _read_pairs(file: Path, key: str) -> tuple[Tensor, Tensor] | None:
    """Noise and latents of a shard; None if it is not there, not whole, or of another teacher or other captions."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as shard:
            if (shard.metadata() or {}).get("key") != key:
                return None
            return shard.get_tensor("noise"), shard.get_tensor("latents")
    except (OSError, SafetensorError):
        return None


def distill(
    config: Config,
    teacher: MiniSoraPipeline,
    captions: Sequence[str],
    run: Path,
    console: Console,
    *,
    student_steps: int = 4,
) -> None:
    """Make pairs, train the student from the teacher's weights, and write RUN/model.

    Args:
        config: of the student's training; its model must be the teacher's.
        teacher: the model to distil.
        captions: of the pairs.
        run: folder of the student.
        console: where progress is shown.
        student_steps: default number of sampling steps of the student.

    Raises:
        UserError: the run folder cannot be written, or holds another run.
    """
    with console.status("the teacher samples") as status:
        noise, latents = make_pairs(
            teacher,
            captions,
            run / "pairs",
            progress=lambda done, total: status.update(f"the teacher samples {done}/{total}"),
        )
    sample = config.sample.model_copy(update={"steps": student_steps, "guidance": 1.0})
    config = config.model_copy(update={"sample": sample})
    train_student(config, teacher, PairBatches(noise, latents, captions, config.seed), run, console)


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
    num_pairs: int = 4000,
    student_steps: int = 4,
    overrides: Sequence[str] = (),
) -> None:
    """Distil a model on captions of its own training set.

    Args:
        config: that the teacher was trained with, a file or a shipped one by name.
        model: the teacher, a folder or a shipped model by name.
        out: the student's run folder.
        console: where progress is shown.
        num_pairs: samples of the teacher.
        student_steps: default number of sampling steps of the student.
        overrides: `section.key=value` of the student's config, over the teacher's and `STUDENT`.

    Raises:
        UserError: the config or the model cannot be read, or `out` cannot be used.
    """
    resolved = load(config, [*STUDENT, *overrides])
    captions = open_dataset(resolved, "train").captions()
    captions = (captions * math.ceil(num_pairs / len(captions)))[:num_pairs]
    distill(resolved, load_pipeline(model), captions, out, console, student_steps=student_steps)
