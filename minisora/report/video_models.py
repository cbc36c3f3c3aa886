"""Video models that disclosed something of their cost, as `configs/report/video_models.yaml` states it.

Every fact carries the source it comes from, and a source has one of three grades: *primary* (the makers' paper,
repository or released code), *secondary* (quoted by others, or following from another disclosed figure) and
*unverified*. What is undisclosed is None, never a guess without a mark.
"""

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from minisora.config import config_folder, read_yaml
from minisora.errors import UserError, nearest
from minisora.report.cost import Attention, TransformerShape

Grade = Literal["primary", "secondary", "unverified"]
# From best to worst.
GRADES: tuple[Grade, ...] = ("primary", "secondary", "unverified")
T = TypeVar("T")
# Time or frames, height, width.
Triple = tuple[PositiveInt, PositiveInt, PositiveInt]
GPU = Literal["H100 SXM", "H800 SXM", "H200 SXM", "A100 80GB"]


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


class DisclosedTiming(Strict):
    """One measured generation: seconds a clip, on so many GPUs; `clip` where it is not the model's own."""

    seconds: Fact[PositiveFloat]
    gpu: Fact[GPU]
    gpus: Fact[PositiveInt]
    clip: Fact[Triple] | None = None


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
    clip: Fact[Triple] | None
    fps: Fact[PositiveFloat] | None = None
    tokens: Fact[PositiveFloat] | None
    steps: Fact[PositiveInt] | None
    guidance_passes: Fact[PositiveInt] | None
    pass_macs: Fact[PositiveFloat] | None = None
    timings: list[DisclosedTiming] = Field(default_factory=list)
    training: Training | None = None
    # Of every source; filled by the loader.
    grades: dict[str, Grade] = Field(default_factory=dict, exclude=True)

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
        chunk = self.vae_chunk.value if self.vae_chunk else clip[0]
        whole, rest = divmod(clip[0], chunk)
        causal = self.latents.value == "causal"
        latents = sum(
            count * (1 + ceil((frames - 1) / stride[0]) if causal else ceil(frames / stride[0]))
            for count, frames in ((whole, chunk), (1, rest))
            if frames and count
        )
        rows, columns = (ceil(clip[axis] / stride[axis] / patch[axis]) for axis in (1, 2))
        return ceil(latents / patch[0]), rows * columns

    def grade(self, timing: DisclosedTiming | None = None) -> Grade:
        """The worst grade among the facts that its predictions read, those of a timing or else of training too."""
        read: list[Any] = [getattr(self, name) for name in type(self).model_fields if name not in UNREAD]
        read.append(timing or self.training)
        return max((self.grades[source] for source in _sources(read)), key=GRADES.index)


UNREAD = {"timings", "training", "heads", "fps"}


def load_models(path: Path | None = None) -> list[VideoModel]:
    """The models of a file, by default the shipped one.

    Raises:
        UserError: it cannot be read, or a field is missing, unknown or wrong; the message names it.
    """
    file = path or config_folder() / "report" / "video_models.yaml"
    tree = read_yaml(file)
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
        for name in type(tree).model_fields:
            yield from _sources(getattr(tree, name))
    elif isinstance(tree, list):
        for item in tree:
            yield from _sources(item)
