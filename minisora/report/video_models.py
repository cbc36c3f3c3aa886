"""Video models that disclosed something of their cost, as `configs/report/video_models.yaml` states it.

Every fact carries the source it comes from, and a source has one of three grades: *primary* (the paper, repository or
released code of who made the model or measured it), *secondary* (quoted by others, or following from another disclosed
figure) and *unverified*. What is undisclosed is None, never a guess without a mark.
"""

from collections.abc import Iterator
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)  # fmt: skip

from minisora.config_files import config_folder, read_yaml
from minisora.errors import UserError, nearest
from minisora.report.cost import Attention, TransformerShape, latent_frames

Grade = Literal["primary", "secondary", "unverified"]
# From best to worst.
GRADES: tuple[Grade, ...] = ("primary", "secondary", "unverified")
T = TypeVar("T")
# Time or frames, height, width.
Triple = tuple[PositiveInt, PositiveInt, PositiveInt]
GPU = Literal[
    "H100 SXM", "H100 PCIe", "H100 NVL", "H800 SXM", "H200 SXM", "H20", "B200", "A100 80GB", "A800 80GB", "L20", "L40S",
    "RTX 4090",
]  # fmt: skip
# Where a part's weights are: on the card all the time; there only while the part works; there a layer or a few at a
# time; never there (on the CPU, on another card, or computed beforehand).
Placement = Literal["resident", "swapped", "streamed", "elsewhere"]
Format = Literal["float32", "bfloat16", "float16", "float8", "int8", "nf4"]
BYTES = {"GB": 10**9, "GiB": 2**30}


class Strict(BaseModel):
    """No unknown keys, no change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Strict):
    """Where facts come from: `what` a reader can look up, and how much it is worth."""

    what: str
    grade: Grade


class Fact(Strict, Generic[T]):
    """One value and the key of its source."""

    value: T
    source: str


class Encoder(Strict):
    """A text encoder of the pipeline: which, and how many weights of it run."""

    name: str
    params: Fact[PositiveFloat]


class DisclosedRun(Strict):
    """One row of somebody's table: a clip generated, or a step of training, and the seconds or memory that it took.

    A plain value has the row's `source`, {value, source} another. None: undisclosed, or as the model states it.

    Args:
        covers: the whole pipeline, the denoising alone, decoding alone, or one step of training.
        batch: samples in one pass; 2 where both passes of guidance run as one.
        precision, weights, text_weights: number format of the products, and those in which the weights of the denoiser
            and of the text encoders are kept; None: in that of the products, and as the denoiser's.
        weight_shards, token_shards: GPUs over which the denoiser's weights, and the tokens of a clip, are divided.
        text, dit, vae: where the weights of each part are.
        decode: of the whole clip at once, of tiles of the picture, or of a few frames at a time.
        peak_memory: of one GPU, in `unit` as printed; `counted_in` is what the measuring code divides by.
        reading: what `peak_memory` is: a peak; a bound that it stays under; the size of a card said to suffice.
        samples, trained, checkpointing: of a step of training: clips over all GPUs; which weights; recomputation.
    """

    source: str
    covers: Fact[Literal["pipeline", "denoising", "decoding", "training step"]] | None = None
    clip: Fact[Triple] | None = None
    steps: Fact[PositiveInt] | None = None
    guidance_passes: Fact[PositiveInt] | None = None
    batch: Fact[PositiveInt] | None = None
    gpu: Fact[GPU] | None = None
    gpus: Fact[PositiveInt] | None = None
    precision: Fact[Literal["bfloat16", "float16", "float32"]] | None = None
    weights: Fact[Format] | None = None
    text_weights: Fact[Format] | None = None
    weight_shards: Fact[PositiveInt] | None = None
    token_shards: Fact[PositiveInt] | None = None
    text: Fact[Placement] | None = None
    dit: Fact[Placement] | None = None
    vae: Fact[Placement] | None = None
    decode: Fact[Literal["whole", "tiles", "frames"]] | None = None
    seconds: Fact[PositiveFloat] | None = None
    peak_memory: Fact[PositiveFloat] | None = None
    unit: Literal["GB", "GiB"] | None = None
    counted_in: Literal["GB", "GiB"] | None = None
    reading: Literal["peak", "at most", "card"] = "peak"
    samples: Fact[PositiveInt] | None = None
    trained: Fact[Literal["all", "LoRA"]] | None = None
    checkpointing: Fact[bool] | None = None
    note: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_the_row(cls, fields: Any) -> Any:
        """Plain values become facts of the row's source."""
        if not isinstance(fields, dict) or "source" not in fields:
            return fields
        bare = {"source", "unit", "counted_in", "reading", "note"}
        return {
            key: value
            if key in bare or isinstance(value, dict)
            else {"value": value, "source": fields["source"]}
            for key, value in fields.items()
        }

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.seconds is None and self.peak_memory is None:
            raise ValueError("a run needs seconds or peak_memory")
        if self.seconds and not (self.gpu and self.gpus):
            raise ValueError("seconds need gpu and gpus")
        if (self.peak_memory is None) != (self.unit is None):
            raise ValueError("peak_memory and unit go together")
        if self.counted_in and not self.unit:
            raise ValueError("counted_in is of a peak_memory")
        if self.trains and self.seconds and not self.samples:
            raise ValueError("seconds of a training step need samples")
        if not self.trains and (self.samples or self.trained or self.checkpointing):
            raise ValueError("samples, trained and checkpointing are of a training step")
        return self

    @property
    def trains(self) -> bool:
        """Whether it is a step of training."""
        return self.covers is not None and self.covers.value == "training step"

    @property
    def peak_bytes(self) -> tuple[float, float] | None:
        """The peak in bytes, least and most: what is printed as GB is as often GiB, where nothing says which."""
        if self.peak_memory is None or self.unit is None:
            return None
        units = {self.counted_in} if self.counted_in else {self.unit, "GiB"}
        sizes = [self.peak_memory.value * BYTES[unit] for unit in units]
        return min(sizes), max(sizes)


class DisclosedStage(Strict):
    """One stage of training: samples seen of one size (frames, height, width)."""

    clip: Fact[Triple]
    samples: Fact[PositiveFloat]


class Training(Strict):
    """What was disclosed of training: GPU-hours, model FLOPs utilisation, samples seen."""

    gpu: Fact[GPU]
    gpu_hours: Fact[PositiveFloat]
    mfu: Fact[PositiveFloat] | None
    stages: list[DisclosedStage] | None


class VideoModel(Strict):
    """One model; the file's head explains fields and units. None: undisclosed."""

    name: str
    developer: str
    params: Fact[PositiveFloat]
    layers: Fact[PositiveInt] | None
    width: Fact[PositiveInt] | None
    heads: Fact[PositiveInt] | None
    hidden: Fact[PositiveInt] | None
    gated_mlp: Fact[bool] | None = None
    kv_share: Fact[PositiveFloat] | None = None
    modulation: Fact[float] | None = None
    text_own_layers: Fact[PositiveInt] | None = None
    text_width: Fact[PositiveInt] | None = None
    text_tokens: Fact[PositiveInt] | None = None
    text: Fact[Literal["joint", "cross", "none"]] | None = None
    vae: Fact[Triple] | None
    vae_chunk: Fact[PositiveInt] | None = None
    patch: Fact[Triple] | None = None
    latents: Fact[Literal["causal", "plain"]] | None = None
    attention: Fact[Attention] | None
    # Which the makers' code calls; None: not read, taken for that in common use.
    attention_kernel: Fact[Literal["flash", "memory-efficient"]] | None = None
    clip: Fact[Triple] | None
    fps: Fact[PositiveFloat] | None = None
    tokens: Fact[PositiveFloat] | None
    steps: Fact[PositiveInt] | None
    guidance_passes: Fact[PositiveInt] | None
    pass_macs: Fact[PositiveFloat] | None = None
    latent_channels: Fact[PositiveInt] | None = None
    encoders: list[Encoder] = Field(default_factory=list)
    vae_params: Fact[PositiveFloat] | None = None
    runs: list[DisclosedRun] = Field(default_factory=list)
    training: Training | None = None
    # Of every source; filled by the loader.
    grades: dict[str, Grade] = Field(default_factory=dict, exclude=True)

    @property
    def timings(self) -> list[DisclosedRun]:
        """Runs that say how long a clip takes."""
        return [run for run in self.runs if run.seconds and not run.trains]

    @property
    def timed_steps(self) -> list[DisclosedRun]:
        """Steps of training all weights that say how long they take."""
        whole = [run for run in self.runs if run.trains and run.trained and run.trained.value == "all"]
        return [run for run in whole if run.seconds]

    @property
    def memories(self) -> list[DisclosedRun]:
        """Runs that say how much memory they take."""
        return [run for run in self.runs if run.peak_memory]

    def shape(self) -> TransformerShape | None:
        """The denoiser, or None where its shape is undisclosed or it is no transformer.

        Modulation is left out: a few numbers a sample, it costs no token anything (see `closed_form_params`).
        An unknown prompt length counts as no text, less than 1 % of any clip here.
        """
        if self.layers is None or self.width is None or self.hidden is None:
            return None
        return TransformerShape(
            layers=self.layers.value,
            width=self.width.value,
            hidden=self.hidden.value,
            gated_mlp=self.gated_mlp is not None and self.gated_mlp.value,
            kv_share=self.kv_share.value if self.kv_share else 1.0,
            text_tokens=self.text_tokens.value if self.text_tokens else 0,
            text=self.text.value if self.text else "none",
            modulation=False,
        )

    def closed_form_params(self) -> float | None:
        """Weights of the blocks, from the shape: attention, MLP, modulation, and text's own stream."""
        shape = self.shape()
        if shape is None:
            return None
        d, mlp = float(shape.width), 3 if shape.gated_mlp else 2
        params = float(shape.params())
        # Time has projections of its own.
        if self.attention and self.attention.value == "divided":
            params += float(shape.layers) * 4 * d * d
        squares = self.modulation.value if self.modulation else 0.0
        params += float(shape.layers) * squares * d * d
        if self.text_own_layers and self.text_width:
            # Projections and modulation lead from one width to the other; the MLP keeps its ratio to the width.
            t = float(self.text_width.value)
            own = (4 + squares) * d * t + mlp * float(shape.hidden) / d * t * t
            params += self.text_own_layers.value * own
        return params

    def grid(self, clip: Triple | None = None) -> tuple[int, int] | None:
        """Latent frames and tokens in each, of a clip (by default the model's own)."""
        clip = clip or (self.clip.value if self.clip else None)
        if clip is None or self.vae is None or self.patch is None or self.latents is None:
            return None
        stride, patch = self.vae.value, self.patch.value
        latents = latent_frames(
            clip[0],
            stride[0],
            causal=self.latents.value == "causal",
            chunk=self.vae_chunk.value if self.vae_chunk else 0,
        )
        rows, columns = (ceil(clip[axis] / stride[axis] / patch[axis]) for axis in (1, 2))
        return ceil(float(latents) / patch[0]), rows * columns

    def grade(self, run: DisclosedRun | None = None) -> Grade:
        """The worst grade among the facts that its predictions read, those of a run's time or else of training too."""
        own = {name for name in READ_OF_A_RUN if run and getattr(run, name)}
        unread = UNREAD | own | (OF_SAMPLING if run and run.trains else set())
        names = (name for name in type(self).model_fields if name not in unread)
        read: list[Any] = [getattr(self, name) for name in names]
        read += [getattr(run, name) for name in own] if run else [self.training]
        return max((self.grades[source] for source in _sources(read)), key=GRADES.index)


# Of memory: no time or compute is predicted from it.
OF_MEMORY = {"latent_channels", "encoders", "vae_params"}
OF_SAMPLING = {"steps", "guidance_passes", "pass_macs"}
UNREAD = {"runs", "training", "heads", "fps"} | OF_MEMORY
READ_OF_A_RUN = ("seconds", "gpu", "gpus", "clip", "steps", "guidance_passes", "samples")


def load_models(path: Path | None = None) -> list[VideoModel]:
    """The models of a file, by default the shipped one.

    Raises:
        UserError: it cannot be read, or a field is missing, unknown or wrong; the message names it.
    """
    file = path or config_folder() / "report" / "video_models.yaml"
    tree = read_yaml(file, shipped=path is None)
    if not isinstance(tree.get("sources"), dict) or not isinstance(tree.get("models"), list):
        raise UserError(f"{file} needs 'sources', a table, and 'models', a list")
    sources = {key: _validate(Source, fields, f"sources.{key}") for key, fields in tree["sources"].items()}
    grades = {key: source.grade for key, source in sources.items()}
    models = []
    for position, fields in enumerate(tree["models"]):
        named = isinstance(fields, dict) and fields.get("name")
        model = _validate(VideoModel, fields, str(named or f"models[{position}]"))
        for key in _sources(model):
            if key not in grades:
                raise UserError(f"{model.name}: source '{key}' is not in the table{nearest(key, grades)}")
        models.append(model.model_copy(update={"grades": grades}))
    return models


@cache
def shipped_models() -> tuple[VideoModel, ...]:
    """The shipped ones, read once a process."""
    return tuple(load_models())


M = TypeVar("M", bound=BaseModel)


def _validate(kind: type[M], fields: Any, where: str) -> M:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"]) or "entry"
        hint = ""
        if fault["type"] == "extra_forbidden":
            hint = nearest(str(fault["loc"][-1]), kind.model_fields)
        raise UserError(f"{where}: {field}: {fault['msg']}{hint}") from error


def _sources(tree: Any) -> Iterator[str]:
    """Keys of the sources of all facts in a tree."""
    if isinstance(tree, Fact):
        yield tree.source
    elif isinstance(tree, BaseModel):
        if isinstance(tree, DisclosedRun):
            yield tree.source
        for name in type(tree).model_fields:
            yield from _sources(getattr(tree, name))
    elif isinstance(tree, list):
        for item in tree:
            yield from _sources(item)
