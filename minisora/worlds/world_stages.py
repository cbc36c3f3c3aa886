"""A run of a world: the VAE, the codes, the dynamics, and the folder that is played.

    RUN/config.yaml       the resolved config
       /metrics.jsonl     numbers of all stages
       /vae/              checkpoints/ and model/, as of any run
       /actions/          checkpoints/, model/, what finds codes, and the codes of all clips
       /cache/            latents of the training clips
       /dynamics/         checkpoints/
       /world/            what is played (`minisora.worlds.dream`)

Nothing here knows which buttons were pressed. Every function goes on where a run stopped.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from safetensors import SafetensorError
from torch import Tensor

from minisora.config import Config
from minisora.data.clips import ClipDataset, to_float
from minisora.data.dataset import open_dataset
from minisora.data.latent_cache import fingerprint, read_shard, write_shard
from minisora.errors import UserError
from minisora.training.latents import build_latents
from minisora.training.loop import StageResult
from minisora.training.progress import StepProgress
from minisora.training.run_stage import run_stage
from minisora.training.stages import load_vae, open_record, read_model, save_config, train_vae
from minisora.worlds.actions import ActionModel
from minisora.worlds.dream import Dream, DreamSettings, load_dream
from minisora.worlds.world_tasks import ActionTask, DynamicsTask

# First frames that a world may begin with.
_NUM_STARTS = 16
# Clips whose codes are found at a time.
_CLIPS_AT_ONCE = 4


def train_world(config: Config, run: Path, console: Console) -> Path:
    """Train all three stages, or what is left of them; returns the folder of the world.

    Raises:
        UserError: the data, the config or the run folder cannot be used.
    """
    check_world(config)
    train_vae(config, run, console)
    train_actions(config, run, console)
    train_dynamics(config, run, console)
    return run / "world"


def check_world(config: Config) -> None:
    """Refuse a config that no world can be trained by; before the time of a stage is spent.

    Raises:
        UserError: the message says what does not fit and how to mend it.
    """
    vae, clip = config.vae, config.clip
    if vae.temporal_factor > 1 or vae.mixes_frames:
        raise UserError(
            "a world is played frame by frame, so its VAE codes each by itself: set vae.temporal_factor=1 and "
            "vae.mixes_frames=false"
        )
    if config.dit.patch[0] > 1:
        raise UserError("a world is played frame by frame: set dit.patch=[1,2,2]")
    if clip.frames < 3:
        raise UserError(f"clip.frames={clip.frames} is too short to learn what follows: set it to 3 or more")
    if config.data.buckets or config.data.packing:
        raise UserError("a world has frames of one size: leave data.buckets and data.packing out")


def train_actions(config: Config, run: Path, console: Console) -> StageResult:
    """Find codes in the frames of the training clips and write RUN/actions/model.

    Raises:
        UserError: the data, the config or the run folder cannot be used.
    """
    out = run / "actions"
    record = open_record(out)
    train, validation = (open_dataset(config, split, record) for split in ("train", "validation"))

    def finish(task: ActionTask, weights: dict[str, Tensor]) -> ActionModel:
        model = task.fresh_model()
        model.load_state_dict(weights)
        return model

    return run_stage(
        config,
        config.train_actions,
        out,
        console,
        title="Actions",
        width=config.world.action_width,
        inputs=train.fingerprint(),
        begin=lambda: save_config(config, run, record),
        make_task=lambda accelerator: ActionTask(config, train, validation),
        model=out / "model",
        finish=finish,
    )


def train_dynamics(
    config: Config,
    run: Path,
    console: Console,
    steps_by: Callable[[int], int] | None = None,
    told: Callable[[ClipDataset], Tensor] | None = None,
) -> StageResult:
    """Train what follows from frames and codes, on latents of RUN/vae/model, and write RUN/world.

    Args:
        config: the run's.
        run: with a trained VAE and trained actions.
        console: where progress is shown.
        steps_by: as of `minisora.training.loop.Trainer`.
        told: gives the true buttons of all steps of clips, N T-1, in place of the codes that were found: of a baseline,
            which knows what no world here may know.

    Raises:
        UserError: the data, the config, an earlier stage or the run folder cannot be used.
    """
    check_world(config)
    out = run / "dynamics"
    vae, actions = load_vae(run / "vae" / "model"), load_actions(run / "actions" / "model")
    record = open_record(out)
    train, validation = (open_dataset(config, split, record) for split in ("train", "validation"))

    def make_task(accelerator: Accelerator) -> DynamicsTask:
        vae.to(accelerator.device)
        actions.to(accelerator.device)
        given: list[Any] = []
        for dataset, name in ((train, "training"), (validation, "validation")):
            given.append(build_latents(config, vae, dataset, run / "cache", console, name, accelerator))
            file = run / "actions" / f"{name}.safetensors"
            given.append(
                find_codes(actions, dataset, file, console, accelerator) if told is None else told(dataset)
            )
        return DynamicsTask(config, *given)

    def finish(task: DynamicsTask, weights: dict[str, Tensor]) -> Dream | None:
        # A finished run keeps its folder, and the names in it.
        if _holds(run / "world", weights):
            return None
        dit = task.fresh_model()
        dit.load_state_dict(weights)
        clip, world = config.clip, config.world
        settings = DreamSettings(
            clip.height,
            clip.width,
            clip.fps,
            world.steps,
            world.context_sigma,
            world.objective,
            told is not None,
        )
        few = range(min(_NUM_STARTS, len(validation)))
        starts = torch.cat([validation.clips([index])[:, :, 0] for index in few])  # N 3 H W
        return Dream(vae.cpu(), dit, actions.cpu(), settings, starts)

    return run_stage(
        config,
        config.train_dynamics,
        out,
        console,
        title="Dynamics",
        width=config.dit.width,
        inputs=f"{train.fingerprint()}-{fingerprint(actions) if told is None else 'told'}-{fingerprint(vae)}",
        begin=lambda: save_config(config, run, record),
        make_task=make_task,
        model=run / "world",
        finish=finish,
        steps_by=steps_by,
    )


def load_actions(folder: Path) -> ActionModel:
    """What `train_actions` wrote.

    Raises:
        UserError: there is none, or it is damaged.
    """
    again = "delete that folder and run 'minisora world train' again"
    missing = f"no codes were found yet in {folder}: run 'minisora world train'"
    return read_model(ActionModel, folder, again, missing)


def find_codes(
    actions: ActionModel, dataset: ClipDataset, file: Path, console: Console, accelerator: Accelerator
) -> Tensor:
    """The codes of all steps of all clips, N T-1, found once and kept in a file.

    `codes[:, t]` leads from frame t to frame t + 1.

    Args:
        actions: what finds them, on the stage's device.
        dataset: the clips.
        file: where they are kept.
        console: where progress is shown.
        accelerator: of the stage: in its precision.

    Raises:
        UserError: the file cannot be written.
    """
    key = f"{dataset.fingerprint()} {fingerprint(actions)} {accelerator.mixed_precision}"
    kept = read_shard(file, key)
    if kept is not None and len(kept.get("codes", ())) == len(dataset):
        return kept["codes"]
    found = []
    with StepProgress(console, "finding codes", 0, len(dataset), unit="", at_least=200) as progress:
        for start in range(0, len(dataset), _CLIPS_AT_ONCE):
            clips = dataset.clips(range(start, min(start + _CLIPS_AT_ONCE, len(dataset))))
            with accelerator.autocast():
                found += [actions.codes_of(to_float(clip.to(actions.device))).cpu() for clip in clips]
            progress.update(len(found))
    codes = torch.stack(found)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_shard(file, {"codes": codes}, key)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {file}: {error}; free space or use another --out") from error
    return codes


def _holds(folder: Path, weights: dict[str, Tensor]) -> bool:
    """Whether the world in a folder has these weights of the dynamics."""
    try:
        own = dict(load_dream(folder, "cpu").dit.named_parameters())
    except UserError:
        return False
    return all(name in weights and value.equal(weights[name]) for name, value in own.items())
