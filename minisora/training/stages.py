"""A run: the VAE stage, the DiT stage, and the pipeline folder that comes out.

    RUN/config.yaml      the resolved config
       /metrics.jsonl    numbers of both stages
       /vae/             checkpoints/ and model/, the trained VAE, and what it was begun on (`DataRecord`)
       /cache/           latents of the training clips
       /dit/             checkpoints/, samples/ and what it was begun on
       /model/           the pipeline, for `minisora sample --model`

Every function goes on where a run stopped: what is finished is not done again.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from accelerate import Accelerator
from diffusers.models.modeling_utils import ModelMixin
from rich.console import Console
from torch import Tensor

from minisora import files
from minisora.config import Config, save
from minisora.data.batches import LatentSource, TrajectoryBatches
from minisora.data.clips import ClipDataset
from minisora.data.dataset import bucket_configs, open_dataset
from minisora.data.folder.record import DataRecord
from minisora.data.latent_cache import fingerprint
from minisora.errors import UserError
from minisora.memory import is_out_of_memory
from minisora.models.build import build_vae
from minisora.models.text import TextEncoder
from minisora.models.tokenizer import CaptionTokenizer, caption_tokenizer, cut_captions, fitting_tokens
from minisora.models.vae import VideoVAE
from minisora.pipelines.model_folder import UNREADABLE, first_line
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.sample_files import write_videos
from minisora.screen import say
from minisora.training import checkpoint
from minisora.training.dit_task import DiTTask, StudentTask, check_dit
from minisora.training.latents import build_latents
from minisora.training.launch import process_device
from minisora.training.loop import StageResult
from minisora.training.run_stage import run_stage
from minisora.training.vae_task import VAETask

NUM_SAMPLES = 4
Model = TypeVar("Model", bound=ModelMixin)
# Called on the main process after each validation: the model of averaged weights, the held-out clips, the step.
OnValidate: TypeAlias = Callable[[VideoVAE | MiniSoraPipeline, ClipDataset, int], None]


def train_vae(
    config: Config,
    run: Path,
    console: Console,
    on_validate: OnValidate | None = None,
    steps_by: Callable[[int], int] | None = None,
) -> StageResult:
    """Train the VAE and write RUN/vae/model; `steps_by` as of the loop's `Trainer`.

    Raises:
        UserError: the data, the config or the run folder cannot be used.
    """
    out = run / "vae"
    record = open_record(out)
    # Files of every shape: the DiT's clips of all sizes are its latents. As they are: its crops lie anywhere already.
    data = config.replace(**{"data.buckets_by_shape": False, "data.augment": {}})
    train, validation = (open_dataset(data, split, record) for split in ("train", "validation"))
    _check_not_in_use(config, run)
    # What a stage that goes on began with lies in its checkpoint: the other model may be gone.
    begun = checkpoint.newest(out / "checkpoints") is not None
    as_begun = config.replace(**{"train_vae.init": None}) if begun else config

    def finish(task: VAETask, weights: dict[str, Tensor]) -> VideoVAE | None:
        # A finished stage keeps its file: statistics measured anew, on another device, would differ in their last
        # bits, and neither the latent cache nor a checkpoint of the DiT would take the VAE for the one they are of.
        if _holds(out / "model", weights):
            return None
        vae = build_vae(config)
        # The buffers are set next.
        vae.load_state_dict(weights, strict=False)
        task.set_statistics(vae.to(process_device()).eval())
        return vae.cpu()

    def show(task: VAETask, step: int, weights: dict[str, Tensor]) -> None:
        assert on_validate is not None
        with torch.random.fork_rng(devices=[]):
            vae = build_vae(config)
        vae.load_state_dict(weights, strict=False)
        on_validate(vae.to(process_device()).eval(), validation, step)

    return run_stage(
        config,
        config.train_vae,
        out,
        console,
        title="VAE",
        width=config.vae.widths[0],
        inputs=train.fingerprint(),
        begin=lambda: save_config(config, run, record),
        make_task=lambda accelerator: VAETask(as_begun, train, validation),
        model=out / "model",
        finish=finish,
        on_validate=None if on_validate is None else show,
        steps_by=steps_by,
    )


def open_record(out: Path) -> DataRecord:
    """The record of the data of the stage in a folder."""
    return DataRecord(out, begun=bool(checkpoint.checkpoints(out / "checkpoints")))


def _check_not_in_use(config: Config, run: Path) -> None:
    """Refuse to train a finished VAE further under the DiT that learned from it.

    Raises:
        UserError: RUN/dit has checkpoints, and they are of RUN/vae/model as it is.
    """
    before, above = (checkpoint.newest(run / stage / "checkpoints") for stage in ("vae", "dit"))
    if before is None or above is None or not (run / "vae" / "model").exists():
        return
    # Behind a damaged checkpoint there are steps to do again, which end in the same VAE.
    done = checkpoint.read_state(before).step
    if done >= config.train_vae.steps or checkpoint.passed_over(before.parent):
        return
    if checkpoint.read_state(above).inputs.endswith(fingerprint(load_vae(run / "vae" / "model"))):
        raise UserError(
            f"{run / 'dit'} is trained on latents of this VAE, which {config.train_vae.steps - done} more steps would "
            f"change: set train_vae.steps={done}, or use another --out"
        )


def load_vae(folder: Path) -> VideoVAE:
    """A VAE saved by `train_vae`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    again = "delete that folder and run 'minisora train vae', or pass --vae DIR"
    missing = f"no trained VAE in {folder}: run 'minisora train vae' first or pass --vae DIR"
    return read_model(VideoVAE, folder, again, missing)


def read_model(kind: type[Model], folder: Path, remedy: str, missing: str = "") -> Model:
    """A model for use from its safetensors in a folder, and from nothing else.

    Checksums are looked at if there are any.

    Args:
        kind: of model.
        folder: that it was saved in.
        remedy: what the message of one that is damaged ends with.
        missing: the message where there is none; "": none is a damaged one.

    Raises:
        UserError: the folder holds no whole model of this kind.
    """
    if missing and not (folder / "config.json").is_file():
        raise UserError(missing)
    if (changed := files.changed_file(folder)) is not None:
        raise UserError(f"{kind.__name__} {folder} cannot be read ({changed}): {remedy}")
    try:
        model = kind.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except UNREADABLE as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{kind.__name__} {folder} cannot be read ({first_line(error)}): {remedy}") from error
    return model.eval().requires_grad_(False)


def _holds(folder: Path, weights: dict[str, Tensor]) -> bool:
    """Whether the VAE in a folder has these weights, whatever its statistics."""
    try:
        own = dict(load_vae(folder).named_parameters())
    except UserError:
        return False
    return all(name in weights and value.equal(weights[name]) for name, value in own.items())


def train_dit(
    config: Config,
    run: Path,
    console: Console,
    vae_folder: Path | None = None,
    on_validate: OnValidate | None = None,
    steps_by: Callable[[int], int] | None = None,
) -> StageResult:
    """Train the DiT on latents of the VAE in RUN/vae/model (or `vae_folder`) and write RUN/model.

    Raises:
        UserError: the data, the config, the VAE or the run folder cannot be used.
    """
    check_dit(config)
    vae = load_vae(vae_folder or run / "vae" / "model")
    trained = {key: vae.config[key] for key in config.vae.model_dump()}
    for key, value in config.vae.model_dump(mode="json").items():
        if value != (list(trained[key]) if isinstance(value, list) else trained[key]):
            raise UserError(
                f"the VAE has {key}={trained[key]}, the config says {value}: use the VAE's config"
            )
    record = open_record(run / "dit")
    train, validation = (open_dataset(config, split, record) for split in ("train", "validation"))
    buckets = [open_dataset(part, "train", record) for part in bucket_configs(config)]
    captions = [caption for each in (train, validation, *buckets) for caption in each.captions()]
    config = settle_text(config, captions, run / "dit")
    inputs = "-".join([*(each.fingerprint() for each in (train, *buckets)), fingerprint(vae)])

    def make_task(accelerator: Accelerator) -> DiTTask:
        vae.to(accelerator.device)
        sources = [
            build_latents(config, vae, dataset, run / "cache", console, name, accelerator)
            for name, dataset in (
                ("training", train),
                ("validation", validation),
                *(("training", bucket) for bucket in buckets),
            )
        ]
        return DiTTask(config, vae, sources[0], sources[1], sources[2:])

    def show(pipeline: MiniSoraPipeline, step: int) -> None:
        assert on_validate is not None
        on_validate(pipeline, validation, step)

    return _run_dit(
        config,
        run,
        console,
        "DiT",
        inputs,
        make_task,
        validation.captions(),
        record,
        on_validate=None if on_validate is None else show,
        steps_by=steps_by,
    )


def train_dit_on(
    config: Config, vae: VideoVAE, train: LatentSource, validation: LatentSource, run: Path, console: Console
) -> StageResult:
    """Train the DiT on latents from anywhere and write RUN/model; to resume is up to the caller to be consistent.

    They are of one size: sizes that the config has beside it are left out.

    Raises:
        UserError: the config or the run folder cannot be used.
    """
    config = config.replace(**{"data.buckets": ()})
    check_dit(config)
    config = settle_text(config, [*train.captions(), *validation.captions()], run / "dit")
    captions = hashlib.sha256("\n".join(train.captions()).encode()).hexdigest()[:16]

    def make_task(accelerator: Accelerator) -> DiTTask:
        return DiTTask(config, vae.to(accelerator.device), train, validation)

    inputs = f"{captions}-{fingerprint(vae)}"
    return _run_dit(config, run, console, "DiT", inputs, make_task, validation.captions())


def train_student(
    config: Config, teacher: MiniSoraPipeline, samples: TrajectoryBatches, run: Path, console: Console
) -> StageResult:
    """Train a student on samples of its teacher (`minisora.training.distill`) and write RUN/model.

    Raises:
        UserError: the config or the run folder cannot be used.
    """
    config = with_text_of(config, teacher)

    def make_task(accelerator: Accelerator) -> StudentTask:
        teacher.to(accelerator.device)
        return StudentTask(config, teacher, samples)

    inputs = samples.fingerprint()
    return _run_dit(config, run, console, "Student", inputs, make_task, samples.all_captions)


def _run_dit(
    config: Config,
    run: Path,
    console: Console,
    title: str,
    inputs: str,
    make_task: Callable[[Accelerator], DiTTask],
    prompts: Sequence[str],
    record: DataRecord | None = None,
    on_validate: Callable[[MiniSoraPipeline, int], None] | None = None,
    steps_by: Callable[[int], int] | None = None,
) -> StageResult:
    """`run_stage` of a DiT: it samples some of the prompts on the way and writes RUN/model."""
    out = run / "dit"
    prompts = list(dict.fromkeys(prompts))[:NUM_SAMPLES]

    def make(accelerator: Accelerator) -> DiTTask:
        task = make_task(accelerator)
        if accelerator.is_main_process and task.model.text_encoder is not None:
            warn_of_cuts(console, task.model.text_encoder.lengths, task.source.all_captions)
        return task

    def sample(task: DiTTask, step: int, weights: dict[str, Tensor]) -> None:
        videos = _pipeline(config, task, weights)(prompts, seed=config.seed, progress=False).videos
        write_videos(out / "samples" / f"step-{step:08d}.mp4", videos, prompts, config.clip.fps)

    def show(task: DiTTask, step: int, weights: dict[str, Tensor]) -> None:
        assert on_validate is not None
        on_validate(_pipeline(config, task, weights), step)

    return run_stage(
        config,
        config.train_dit,
        out,
        console,
        title=title,
        width=config.dit.width,
        inputs=inputs,
        begin=lambda: save_config(config, run, record),
        make_task=make,
        model=run / "model",
        finish=partial(_pipeline, config),
        on_sample=sample,
        on_validate=None if on_validate is None else show,
        steps_by=steps_by,
    )


def settle_text(config: Config, captions: Sequence[str], out: Path) -> Config:
    """The config with what a stage settles about text before it starts.

    `text.max_tokens`, if it is null, becomes what all captions fit into; and a stage that older code began, when
    there was one tokenizer, goes on with that one.

    Args:
        config: the whole run's.
        captions: of training and validation.
        out: the stage's folder.

    Raises:
        UserError: the tokenizer of a pretrained encoder, or the newest checkpoint, cannot be read.
    """
    begun = checkpoint.checkpoints(out / "checkpoints")
    if begun and "tokenizer_version" not in checkpoint.read_state(begun[-1]).config["text"]:
        config = config.replace(**{"text.tokenizer_version": 1})
    text = config.text
    if text.max_tokens is None:
        reads_text = config.dit.text_conditioning
        fitting = fitting_tokens(caption_tokenizer(text), captions) if reads_text else text.tokens
        config = config.replace(**{"text.max_tokens": fitting})
    return config


def with_text_of(config: Config, teacher: MiniSoraPipeline) -> Config:
    """The config with the tokenizer of a teacher, and its `text.max_tokens` if the config leaves that open."""
    encoder = teacher.text_encoder
    if encoder is None:
        return config
    if config.text.max_tokens is None:
        config = config.replace(**{"text.max_tokens": encoder.config.max_tokens})
    if isinstance(encoder, TextEncoder):
        config = config.replace(**{"text.tokenizer_version": encoder.config.tokenizer_version})
    return config


def warn_of_cuts(console: Console, tokenizer: CaptionTokenizer, captions: Sequence[str]) -> None:
    """Print how many captions are cut, if any are."""
    if line := cut_captions(tokenizer, captions):
        say(console, line, style="yellow")


def discard_checkpoints(run: Path) -> None:
    """Remove the checkpoints of a finished DiT stage; RUN/model stays, and the stage can no longer be resumed."""
    shutil.rmtree(run / "dit" / "checkpoints", ignore_errors=True)


def _pipeline(config: Config, task: DiTTask, weights: dict[str, Tensor]) -> MiniSoraPipeline:
    """A pipeline with these weights, apart from the model in training."""
    fresh = task.fresh_model()
    # Frozen text weights are in place already.
    fresh.load_state_dict(weights, strict=False)
    return MiniSoraPipeline.build(config, task.vae, fresh.dit, fresh.text_encoder).to(task.vae.device)


def save_config(config: Config, run: Path, record: DataRecord | None) -> None:
    """Write down what the run is and what the stage is begun on; raises OSError where that cannot be written."""
    save(config, run / "config.yaml")
    if record is not None:
        record.keep()
