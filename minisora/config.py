"""Every setting of a run, typed and strict: an unknown key is an error that names the nearest right one.

A run is one YAML file plus `--set section.key=value` overrides; the resolved result is written into the
run folder, so a run says what it was. This module imports neither torch nor the rest of minisora, which
keeps `minisora --help` fast.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from minisora.errors import UserError, nearest
from minisora.files import write_whole
from minisora.limits import LAST_SEED, MAX_COUNT, MAX_FRAMES, MAX_GUIDANCE, MAX_SIDE, MAX_STEPS

PositiveInt = Annotated[int, Field(gt=0, le=MAX_COUNT)]
Natural = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Frames = Annotated[int, Field(gt=0, le=MAX_FRAMES)]
Side = Annotated[int, Field(gt=0, le=MAX_SIDE)]  # pixels
Rate = Annotated[float, Field(ge=0.01, le=1000.0)]  # frames per second
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]  # of an average; at 1 it never moves
Seed = Annotated[int, Field(ge=0, le=LAST_SEED)]

MIN_TOKENS, MAX_TOKENS = 24, 256  # of a caption, where a run chooses text.max_tokens from its captions

# What PyYAML raises: also whatever its constructors meet in a value such as 2001-99-99, 0x_ or !!int "".
_NOT_YAML = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError)


class Section(BaseModel):
    """Base of every section: no unknown keys, no infinite numbers, no change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


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
    share: Annotated[float, Field(gt=0)] = 1.0  # of steps and clips, where those of `clip` count 1


class DataConfig(Section):
    """Where clips come from."""

    source: Literal["shapes", "folder", "torchvision"] = "shapes"
    path: Path | None = None  # folder: the folder; torchvision: the root it was downloaded to
    dataset: str = "MovingMNIST"  # torchvision: the class name
    num_clips: PositiveInt = 10_000  # shapes: how many clips the training set has
    wall_share: Fraction = 0.2  # shapes: how many of those moving left or right pass behind a wall
    buckets: tuple[BucketConfig, ...] = ()  # further sizes for the DiT, beside `clip`; one size a step
    packing: PositiveInt | None = None  # or clips of all sizes in each step, in common rows of so many tokens
    num_validation_clips: PositiveInt = 64  # of those held out: a tenth of a folder's files
    validation_seed: Seed | None = None  # of the DiT's validation noise; by default the run's seed + 1
    short_clips: Literal["pad", "skip", "error"] = (
        "pad"  # a clip with too few frames: repeat its last one, or
    )
    require_captions: bool = True  # folder: skip a file without a caption (False: train it on "")


class VAEConfig(Section):
    """Shape of `VideoVAE`: factors of compression and widths."""

    temporal_factor: Literal[1, 2, 4, 8] = 4
    spatial_factor: Literal[4, 8, 16, 32] = 8
    latent_channels: PositiveInt = 8
    pixel_patch: Literal[1, 2, 4] = 4  # pixels folded into channels before the first convolution
    widths: tuple[PositiveInt, ...] = (64, 128)  # one per spatial level, finest first
    blocks_per_level: PositiveInt = 2
    encoder_blocks: PositiveInt | None = (
        None  # per level, where the encoder is to be lighter than the decoder
    )


class DiTConfig(Section):
    """Shape of `VideoDiT`."""

    patch: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 2, 2)  # (time, height, width) in latent cells
    width: PositiveInt = 128
    depth: PositiveInt = 6
    heads: PositiveInt = 4
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    attention: Literal["full", "factorised"] = "full"
    modulation: Literal["per_block", "shared"] = "per_block"
    qk_norm: bool = True
    text_conditioning: bool = True  # cross-attention to text tokens and the pooled text in the modulation
    num_classes: PositiveInt | None = None  # of a DiT as in the paper; excludes text_conditioning
    rope_theta: Annotated[float, Field(gt=1)] = 100.0  # longest rotary wavelength over 2 pi, in tokens
    learn_sigma: bool = False  # twice the output channels, as the DiT paper; used for FLOP tables only
    checkpointing: bool | Literal["selective"] = False  # selective: keep products, repeat the cheap rest


class TextConfig(Section):
    """Text encoder: trained from scratch with the DiT, or a frozen T5/CLIP encoder in a local folder."""

    kind: Literal["scratch", "pretrained"] = "scratch"
    path: Path | None = None  # pretrained: a transformers folder (config.json, safetensors, tokenizer)
    width: PositiveInt = 128
    depth: PositiveInt = 2
    heads: PositiveInt = 4
    max_tokens: PositiveInt | None = None  # null: what all captions fit into, of 24, 32, ... 256
    max_vocabulary: PositiveInt = 8192
    tokenizer_version: Literal[1, 2] = (
        2  # how a caption is split into words; 1: as models before version 2 do
    )

    @property
    def tokens(self) -> int:
        """`max_tokens`, or the fewest that a run chooses, where there are no captions to look at."""
        return self.max_tokens or MIN_TOKENS


class FlowConfig(Section):
    """Rectified flow: which noise levels are trained on (sigma = 1 is noise)."""

    sigma_mean: float = 0.0  # of logit(sigma), Esser et al. 2024 (arXiv 2403.03206), eq. 19
    sigma_std: Annotated[float, Field(gt=0)] = 1.0
    shift: Annotated[float, Field(gt=0)] = 1.0  # > 1 moves the density towards noise, for long clips
    caption_dropout: Fraction = 0.1  # share of captions replaced by "" so that guidance has a null
    known_share: Fraction = 0.0  # share of clips with frames given, for image-to-video, extension, loops
    known_sigma: Fraction = 0.1  # half of these frames are given clean, the others at up to this noise level
    image_share: Fraction = 0.0  # share of steps on images: first frames of clips


class TrainConfig(Section):
    """One stage of training. `batch_size` is what the optimizer sees, over all processes and micro-batches."""

    steps: PositiveInt = 1000
    batch_size: PositiveInt = 16
    accumulation: PositiveInt = 1  # the batch is split into this many micro-batches per process
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices of the blocks, adamw for the rest
    lr: Annotated[float, Field(gt=0)] = 1e-3  # of adamw
    muon_lr: Annotated[float, Field(gt=0)] = 0.02
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_steps: Natural = 50
    decay_share: Fraction = 0.3  # the last share of the steps in which lr falls linearly to `final_lr_share`
    final_lr_share: Fraction = 0.05
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Decay = 0.999
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: what this device does well
    compile: bool = False  # the repeated block, once for each size of clip
    workers: Natural = 0
    log_every: PositiveInt = 10
    validate_every: PositiveInt = 250
    sample_every: Natural = 0  # 0: no sample videos during training
    save_every: PositiveInt = 250
    keep_checkpoints: PositiveInt = 2
    trackers: tuple[Literal["tensorboard", "wandb", "comet_ml", "mlflow"], ...] = ()


class VAETrainConfig(TrainConfig):
    """Stage one: the VAE, trained on random spacetime crops (many times more steps a minute)."""

    crop: tuple[PositiveInt, PositiveInt, PositiveInt] | None = (9, 32, 32)  # (frames, height, width)
    kl_weight: Annotated[float, Field(ge=0)] = 1e-4
    max_clips: PositiveInt = 2000  # train on the first so many clips: a VAE needs variety less than steps
    l2_share: Fraction = 0.5  # reconstruction = (1 - share) * L1 + share * L2


class DiTTrainConfig(TrainConfig):
    """Stage two: the DiT and, unless it is pretrained, the text encoder."""

    cache_latents: bool = True  # encode every clip once; False encodes inside the step


class CaptionTrainConfig(TrainConfig):
    """The captioner that fills in missing captions (`minisora.training.captioning`)."""

    steps: PositiveInt = 2500
    batch_size: PositiveInt = 32
    optimizer: Literal["adamw", "muon"] = "muon"
    lr: Annotated[float, Field(gt=0)] = 2e-3
    muon_lr: Annotated[float, Field(gt=0)] = 8e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    decay_share: Fraction = 0.6
    views_in_all: PositiveInt = 16000  # labelled clips are moved and coded again until there are so many


class SampleConfig(Section):
    """Defaults of sampling, saved with the model."""

    steps: Annotated[int, Field(gt=0, le=MAX_STEPS)] = 32
    guidance: Annotated[float, Field(ge=0, le=MAX_GUIDANCE)] = 3.0
    scheduler: Literal["euler", "heun"] = "euler"


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
        return self

    def to_yaml(self) -> str:
        """The resolved config as YAML that `load` reads back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def config_folder() -> Path:
    """Where the shipped configs lie: inside the package in a wheel, beside it in a checkout.

    Beside an installed package lies whatever other wheels put there, so that place is not looked at then.
    """
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find(path: str | Path) -> Path:
    """A config file by path, or by its name among the shipped ones (`toy`, `toy.yaml`, `dit/xl2`).

    Raises:
        UserError: neither exists; the message lists the shipped names.
    """
    given = Path(path)
    if given.is_file():
        return given
    shipped = config_folder()
    relative = given.relative_to("configs") if given.parts[:1] == ("configs",) else given
    for candidate in (shipped / relative, shipped / f"{relative}.yaml"):
        if candidate.is_file():
            return candidate
    names = sorted(
        str(p.relative_to(shipped)) for p in shipped.rglob("*.yaml") if p.parent.name in (shipped.name, "dit")
    )
    raise UserError(f"config '{path}' not found; shipped configs: {', '.join(names)}")


def load(path: str | Path | None = None, overrides: list[str] | None = None) -> Config:
    """Read a config file and apply `section.key=value` overrides (values are YAML).

    Raises:
        UserError: the file is missing or not YAML, or a key or a value is wrong; the message names it.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        file = find(path)
        tree = read_yaml(file)
    return override(tree, overrides or [])


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file of named values.

    Raises:
        UserError: it is not there, not YAML, or not a mapping.
    """
    try:
        loaded = yaml.safe_load(file.read_text())
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    except _NOT_YAML as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if loaded is not None and not isinstance(loaded, dict):
        raise UserError(f"{file} must hold sections such as 'dit:', not a {type(loaded).__name__}")
    return loaded or {}


def override(tree: dict[str, Any] | Config, overrides: list[str]) -> Config:
    """Apply `section.key=value` overrides to a config or a raw tree and validate the result."""
    if isinstance(tree, Config):
        tree = tree.model_dump(mode="json")
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise UserError(f"--set '{item}' is not key=value, such as --set dit.width=256")
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise UserError(f"--set {key}: '{section}' is a value, not a section")
        try:
            node[last] = yaml.safe_load(text)
        except _NOT_YAML as error:
            raise UserError(
                f"--set {item}: the value is not YAML ({' '.join(str(error).split())})"
            ) from error
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(error)) from error


def save(config: Config, path: Path) -> None:
    """Write the resolved config, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, config.to_yaml())


def _explain(error: ValidationError) -> str:
    """The first fault of a config in one line, with the nearest right key where a key is unknown."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if fault["type"] == "extra_forbidden":
        known = _keys(fault["loc"][:-1])
        hint = nearest(str(fault["loc"][-1]), known)
        said = f"; known here: {', '.join(known)}" if known else ""
        return f"unknown config key '{key}'{hint}{said}{more}"
    message = fault["msg"].removeprefix("Value error, ")
    where = f"config key '{key}' = {fault['input']!r}: " if key else ""
    return f"{where}{message}{more}"


def _keys(place: tuple[int | str, ...]) -> list[str]:
    """The keys of a section; a number in its place is an item of a tuple of sections."""
    here: Any = Config
    for part in place:
        if isinstance(part, int):
            here = next(iter(get_args(here)), None)
        elif isinstance(here, type) and issubclass(here, Section) and part in here.model_fields:
            here = here.model_fields[part].annotation
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, Section) else []
