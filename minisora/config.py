"""Every setting of a run, typed and strict: an unknown key is an error that names the nearest right one.

A run is one YAML file plus `--set section.key=value` overrides; the resolved result is written into the
run folder, so a run says what it was. This module imports neither torch nor the rest of minisora, which
keeps `minisora --help` fast.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from minisora.config_files import NOT_YAML, find, read_yaml
from minisora.errors import UserError
from minisora.files import write_whole
from minisora.limits import MAX_FRAMES, MAX_GUIDANCE, MAX_SIDE, MAX_STEPS
from minisora.section import (
    Decay,
    Fraction,
    Frames,
    Natural,
    PositiveInt,
    Rate,
    Section,
    Seed,
    Side,
    put,
    validate,
)

# Tokens of a caption, where a run chooses text.max_tokens from its captions.
MIN_TOKENS, MAX_TOKENS = 24, 256


class ClipConfig(Section):
    """The clip a model is trained on. Sizes are pixels, (height, width); `frames` includes the first."""

    frames: Frames = 17
    height: Side = 64
    width: Side = 64
    fps: Rate = 8.0


class BucketConfig(Section):
    """One more size of clips to train on."""

    frames: Frames
    height: Side
    width: Side
    # share of steps and of clips, relative to 1 for the size in `clip`
    share: Annotated[float, Field(gt=0)] = 1.0


class AugmentConfig(Section):
    """Further views of each training clip, altered only where its caption stays true; validation has none."""

    # how often each clip stands in the set: as it is, and so many times less one altered as the other keys say
    views: PositiveInt = 1
    # pixels up, down and sideways, at most; the border is repeated
    shift: Annotated[int, Field(ge=0, le=MAX_SIDE)] = 0
    # brightness and contrast differ by at most this share; not where a caption names brightness
    color: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    # half of the views are mirrored left to right; not where a caption names a side, letters or digits
    mirror: bool = False
    # times faster or slower, at most: every n-th frame of a file with enough frames; not where a caption names a speed
    speed: Annotated[float, Field(ge=1.0, le=4.0)] = 1.0
    # at the end, as its learning rate falls, the DiT sees each clip so often as it is, without views; 0: never
    plain_epochs: Annotated[float, Field(ge=0.0, le=MAX_STEPS)] = 50.0


class DataConfig(Section):
    """Where clips come from."""

    source: Literal["shapes", "folder", "torchvision"] = "shapes"
    # folder: the folder; torchvision: the root it was downloaded to
    path: Path | None = None
    # torchvision: the class name
    dataset: str = "MovingMNIST"
    # shapes: how many clips the training set has
    num_clips: PositiveInt = 10_000
    # shapes: share of the clips moving left or right that pass behind a wall
    wall_share: Fraction = 0.2
    # further sizes for the DiT, beside `clip`; one size a step, unless `packing` is set
    buckets: tuple[BucketConfig, ...] = ()
    # folder, with buckets: a file gives clips of the size nearest to its shape only, to the DiT (False: of every size)
    buckets_by_shape: bool = False
    # clips of all sizes in each step, in common rows of so many tokens
    packing: PositiveInt | None = None
    # clips to validate on; a folder gives them from the tenth of its files that is held out
    num_validation_clips: PositiveInt = 64
    # seed of the DiT's validation noise; null: the run's seed + 1
    validation_seed: Seed | None = None
    # what becomes of a clip with too few frames; pad: its last frame is repeated
    short_clips: Literal["pad", "skip", "error"] = "pad"
    # what becomes of a picture of another shape than the clip: its centre is cut out; all of it, black beside it;
    # all of it, stretched
    fit: Literal["crop", "pad", "squash"] = "crop"
    # share of a clip that the next one shows again, in training: a long file gives more clips, at other moments
    overlap: Annotated[float, Field(ge=0.0, le=0.95)] = 0.0
    # further views of each training clip, altered
    augment: AugmentConfig = AugmentConfig()
    # folder: skip a file without a caption (False: train it on "")
    require_captions: bool = True


class VAEConfig(Section):
    """Shape of `VideoVAE`: factors of compression and widths."""

    temporal_factor: Literal[1, 2, 4, 8] = 4
    spatial_factor: Literal[4, 8, 16, 32] = 8
    latent_channels: PositiveInt = 8
    # pixels folded into channels before the first convolution
    pixel_patch: Literal[1, 2, 4] = 4
    # one per spatial level, finest first
    widths: tuple[PositiveInt, ...] = (64, 128)
    blocks_per_level: PositiveInt = 2
    # blocks per level of the encoder; null: as many as the decoder has
    encoder_blocks: PositiveInt | None = None
    # whether a frame is coded with those before it; false: each by itself, for worlds that are played
    mixes_frames: bool = True


class DiTConfig(Section):
    """Shape of `VideoDiT`."""

    # (time, height, width) in latent cells
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 2, 2)
    width: PositiveInt = 128
    depth: PositiveInt = 6
    heads: PositiveInt = 4
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    attention: Literal["full", "factorised"] = "full"
    modulation: Literal["per_block", "shared"] = "per_block"
    qk_norm: bool = True
    # share of what the branches of the blocks add, and of the hidden values of their MLPs, left out in training
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    # cross-attention to text tokens and the pooled text in the modulation
    text_conditioning: bool = True
    # class labels, as in the DiT paper; excludes text_conditioning
    num_classes: PositiveInt | None = None
    # longest rotary wavelength over 2 pi, in tokens
    rope_theta: Annotated[float, Field(gt=1)] = 100.0
    # twice the output channels, as in the DiT paper; used for FLOP tables only
    learn_sigma: bool = False
    # recompute activations in the backward pass; selective: keep matrix products, repeat the cheap rest
    checkpointing: bool | Literal["selective"] = False


class TextConfig(Section):
    """Text encoder: trained from scratch with the DiT, or a frozen T5/CLIP encoder in a local folder."""

    kind: Literal["scratch", "pretrained"] = "scratch"
    # pretrained: a transformers folder (config.json, safetensors, tokenizer)
    path: Path | None = None
    width: PositiveInt = 128
    depth: PositiveInt = 2
    heads: PositiveInt = 4
    # null: the fewest of 24, 32, ... 256 that all captions fit into
    max_tokens: PositiveInt | None = None
    max_vocabulary: PositiveInt = 8192
    # how a caption is split into words; 1: as models before version 2 did
    tokenizer_version: Literal[1, 2] = 2

    @property
    def tokens(self) -> int:
        """`max_tokens`, or the fewest that a run chooses, where there are no captions to look at."""
        return self.max_tokens or MIN_TOKENS


class FlowConfig(Section):
    """Rectified flow: which noise levels are trained on (sigma = 1 is noise)."""

    # mean of logit(sigma), Esser et al. 2024 (arXiv 2403.03206), eq. 19
    sigma_mean: float = 0.0
    sigma_std: Annotated[float, Field(gt=0)] = 1.0
    # > 1 moves the density towards noise, for long clips
    shift: Annotated[float, Field(gt=0)] = 1.0
    # share of captions replaced by "" so that guidance has a null
    caption_dropout: Fraction = 0.1
    # share of clips with known frames, for image-to-video, extension, loops
    known_share: Fraction = 0.0
    # half of the known frames are clean, the others at up to this noise level
    known_sigma: Fraction = 0.1
    # share of steps on images: first frames of clips
    image_share: Fraction = 0.0


class WorldConfig(Section):
    """A world that is played (`minisora world train`): the codes found for what is done in it, and its frames."""

    # how codes are found: the best of as many predictions, or a quantised encoder (FSQ)
    discovery: Literal["winner", "fsq"] = "winner"
    # a power of two
    codes: Annotated[int, Field(ge=2, le=256)] = 8
    # pixels of the shorter side of what codes are found in, at most: frames are averaged down to it
    action_side: Side = 32
    # channels and 3x3 convolutions of the model that finds them
    action_width: PositiveInt = 64
    action_depth: PositiveInt = 3
    # of errors on pixels that change, where the others have 1: what is done changes few
    changing_weight: Annotated[float, Field(ge=1, le=1000)] = 20.0
    # share of examples that do not show the frame before, so that no code means "as before"
    history_dropout: Fraction = 0.5
    # frames that a frame follows from, itself included, and of a training window
    window: Annotated[int, Field(gt=0, le=MAX_FRAMES)] = 8
    frames: Annotated[int, Field(gt=0, le=MAX_FRAMES)] = 16
    # noise level of the frames before, at play, and at most in training, where the model is told it
    context_sigma: Fraction = 0.1
    most_context_sigma: Fraction = 0.5
    # of errors on latent cells that change between two frames
    moving_weight: Annotated[float, Field(ge=1, le=1000)] = 10.0
    # share of the codes that are hidden in training
    code_dropout: Fraction = 0.1
    # share of the rests, runs of steps in which nothing is done, that are learned under another code, half of them the
    # one before: what is pressed at a wall does nothing, and its code, found by what is seen, is that of doing nothing
    idle_share: Fraction = 0.3
    # share of the frames to be made whose noise level is one of those that play makes a frame at, not one of `flow`
    played_share: Fraction = 0.5
    # share of the windows whose past is what the model makes of it, with its errors; none at first, this at the end
    own_share: Fraction = 0.0
    # of errors at low noise levels, where they count 1 / sigma^2 up to this; play makes frames at high ones
    most_weight: Annotated[float, Field(ge=1, le=1e6)] = 1.0
    # what the model says of a noisy frame: the clean one, and how much of each cell stays as in the frame before; the
    # clean one alone; or the velocity
    objective: Literal["composite", "clean", "velocity"] = "composite"
    # 1: each frame of a window stands for the past of others or is made; 2: it stands there twice, as both
    streams: Literal[1, 2] = 1
    # sampling steps of a frame
    steps: Annotated[int, Field(gt=0, le=MAX_STEPS)] = 2

    @model_validator(mode="after")
    def _consistent(self) -> "WorldConfig":
        if self.codes & (self.codes - 1):
            raise ValueError(f"world.codes={self.codes} must be a power of two, such as 8")
        if self.context_sigma > self.most_context_sigma:
            raise ValueError(
                f"world.context_sigma={self.context_sigma:g} is more than training shows: set it to "
                f"{self.most_context_sigma:g} or less, or world.most_context_sigma higher"
            )
        return self


class TrainConfig(Section):
    """One stage of training. `batch_size` is what the optimizer sees, over all processes and micro-batches."""

    steps: PositiveInt = 1000
    batch_size: PositiveInt = 16
    # the batch is split into this many micro-batches per process
    accumulation: PositiveInt = 1
    # muon: for the matrices of the blocks, adamw for the rest
    optimizer: Literal["adamw", "muon"] = "adamw"
    # learning rate of adamw
    lr: Annotated[float, Field(gt=0)] = 1e-3
    muon_lr: Annotated[float, Field(gt=0)] = 0.02
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_steps: Natural = 50
    # the last share of the steps in which lr falls linearly to `final_lr_share`
    decay_share: Fraction = 0.3
    final_lr_share: Fraction = 0.05
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Decay = 0.999
    # auto: bf16 where this device is fast in it
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # compile the repeated block, once for each size of clip
    compile: bool = False
    workers: Natural = 0
    log_every: PositiveInt = 10
    validate_every: PositiveInt = 250
    # 0: no sample videos during training
    sample_every: Natural = 0
    save_every: PositiveInt = 250
    keep_checkpoints: PositiveInt = 2
    trackers: tuple[Literal["tensorboard", "wandb", "comet_ml", "mlflow"], ...] = ()


class VAETrainConfig(TrainConfig):
    """Stage one: the VAE, trained on random spacetime crops (many times more steps a minute)."""

    # (frames, height, width)
    crop: tuple[PositiveInt, PositiveInt, PositiveInt] | None = (9, 32, 32)
    kl_weight: Annotated[float, Field(ge=0)] = 1e-4
    # standard deviation of noise on the latents beside the posterior's: samples of a DiT err by as much
    latent_noise: Annotated[float, Field(ge=0, le=10)] = 0.0
    # weight of a second error: latents of half the size should decode to the clip of half the size, which makes them
    # easier to denoise
    scale_equivariance: Annotated[float, Field(ge=0, le=100)] = 0.0
    # train on the first so many clips: a VAE needs variety less than steps
    max_clips: PositiveInt = 2000
    # reconstruction = (1 - share) * L1 + share * L2
    l2_share: Fraction = 0.5
    # of errors on pixels that move, where those that stand still have 1: in footage few move, and they are the point
    moving_weight: Annotated[float, Field(ge=1, le=1000)] = 1.0
    # share of crops that lie around a pixel that moves
    moving_crops: Fraction = 0.0
    # begin with the VAE of a model folder, or of a shipped model (toy): those of its weights that have the same shape
    init: str | None = None


class DiTTrainConfig(TrainConfig):
    """Stage two: the DiT and, unless it is pretrained, the text encoder."""

    # encode every clip once; False encodes inside the step
    cache_latents: bool = True
    # which averaged weights become the model: those after the last step, or those of the best validation
    keep: Literal["last", "best"] = "last"
    # with keep=best: stop after so many validations in a row without a better one; 0: never
    patience: Natural = 0


class CaptionTrainConfig(TrainConfig):
    """The captioner that fills in missing captions (`minisora.training.captioning`)."""

    steps: PositiveInt = 2500
    batch_size: PositiveInt = 32
    optimizer: Literal["adamw", "muon"] = "muon"
    lr: Annotated[float, Field(gt=0)] = 2e-3
    muon_lr: Annotated[float, Field(gt=0)] = 8e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    decay_share: Fraction = 0.6
    # labelled clips are shifted and encoded again until there are so many
    views_in_all: PositiveInt = 16000


class ActionTrainConfig(TrainConfig):
    """Stage two of a world: what finds codes in its frames (`minisora.worlds.actions`)."""

    steps: PositiveInt = 600
    batch_size: PositiveInt = 32
    lr: Annotated[float, Field(gt=0)] = 2e-3
    ema_decay: Decay = 0.99


class DynamicsTrainConfig(TrainConfig):
    """Stage three of a world: a causal DiT, for the next frame (`minisora.worlds.dynamics`)."""

    optimizer: Literal["adamw", "muon"] = "muon"
    lr: Annotated[float, Field(gt=0)] = 4e-3
    decay_share: Fraction = 0.4


class SampleConfig(Section):
    """Defaults of sampling, saved with the model."""

    steps: Annotated[int, Field(gt=0, le=MAX_STEPS)] = 32
    guidance: Annotated[float, Field(ge=0, le=MAX_GUIDANCE)] = 3.0
    scheduler: Literal["euler", "heun"] = "euler"

    @property
    def evaluations(self) -> int:
        """Of the model, in one sample: one a step, and under Heun two a step but the last."""
        return 2 * self.steps - 1 if self.scheduler == "heun" else self.steps


class Config(Section):
    """A whole run."""

    seed: Seed = 0
    clip: ClipConfig = ClipConfig()
    data: DataConfig = DataConfig()
    vae: VAEConfig = VAEConfig()
    dit: DiTConfig = DiTConfig()
    text: TextConfig = TextConfig()
    flow: FlowConfig = FlowConfig()
    train_vae: VAETrainConfig = VAETrainConfig()
    train_dit: DiTTrainConfig = DiTTrainConfig()
    train_caption: CaptionTrainConfig = CaptionTrainConfig()
    world: WorldConfig = WorldConfig()
    train_actions: ActionTrainConfig = ActionTrainConfig()
    train_dynamics: DynamicsTrainConfig = DynamicsTrainConfig()
    sample: SampleConfig = SampleConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if self.dit.num_classes is not None and self.dit.text_conditioning:
            raise ValueError(
                "dit.num_classes and dit.text_conditioning exclude each other: set one of them off"
            )
        if self.text.kind == "pretrained" and self.text.path is None:
            raise ValueError("text.kind=pretrained needs text.path, the folder of a T5 or CLIP text encoder")
        if self.data.source != "shapes" and self.data.path is None:
            raise ValueError(f"data.source={self.data.source} needs data.path (or --data DIR)")
        if self.train_dit.patience and self.train_dit.keep != "best":
            raise ValueError(
                f"train_dit.patience={self.train_dit.patience} waits for a better validation: set train_dit.keep=best, "
                "or train_dit.patience=0"
            )
        self._check_augment()
        return self

    def _check_augment(self) -> None:
        """Raise ValueError where `data.augment` would do nothing, or leave too little of a clip."""
        augment = self.data.augment
        alters = augment != AugmentConfig(views=augment.views)
        if alters and augment.views == 1:
            raise ValueError(
                "data.augment alters the second view of a clip and those after it, and data.augment.views is 1: set it "
                "to 2 or more, or data.augment={}"
            )
        if augment.views > 1 and not alters:
            raise ValueError(
                f"data.augment.views={augment.views} are all alike: set data.augment.shift, color, mirror or speed, or "
                "data.augment.views=1"
            )
        sizes: list[ClipConfig | BucketConfig] = [self.clip, *self.data.buckets]
        least = min(min(size.height, size.width) for size in sizes)
        if augment.shift > least // 4:
            raise ValueError(
                f"data.augment.shift={augment.shift} is more than a quarter of the {least} pixels of a clip's shortest "
                f"side: set it to {least // 4} or less"
            )

    def to_yaml(self) -> str:
        """The resolved config as YAML that `load` reads back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> Config:
    """Read a config file and apply `section.key=value` overrides (values are YAML).

    Args:
        path: of a config file, or a shipped one's name; None: the defaults.
        overrides: what a user set.
        changes: values by key ("data.num_clips") that stand over the file and under the overrides.

    Raises:
        UserError: the file is missing or not YAML, or a key or a value is wrong; the message names it.
    """
    tree = {} if path is None else read_yaml(find(path))
    for key, value in changes.items():
        put(tree, key, value)
    return override(tree, overrides)


def override(tree: dict[str, Any] | Config, overrides: Sequence[str]) -> Config:
    """Apply `section.key=value` overrides, as a user writes them, and validate the result.

    Code changes a config by `Config.replace`, whose values are typed.

    Args:
        tree: a config, or what a YAML file holds.
        overrides: values are YAML.

    Raises:
        UserError: a key or a value is wrong; the message names it.
    """
    if isinstance(tree, Config):
        tree = tree.model_dump(mode="json")
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise UserError(f"--set '{item}' is not key=value, such as --set dit.width=256")
        try:
            value = yaml.safe_load(text)
        except NOT_YAML as error:
            raise UserError(
                f"--set {item}: the value is not YAML ({' '.join(str(error).split())})"
            ) from error
        put(tree, key, value)
    return validate(Config, tree)


def save(config: Config, path: Path) -> None:
    """Write the resolved config, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, config.to_yaml())
