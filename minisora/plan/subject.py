"""A model as the planner sees it: by the name of one that disclosed its shape, by its size, or by a config of ours."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from minisora.errors import UserError, nearest
from minisora.limits import check_number
from minisora.plan.blocks import CODES, DECODERS, OWN, TYPICAL, TYPICAL_DECODER, BlockCode, Decoder
from minisora.report.cost import ATTENTIONS, Attention, Band, TransformerShape, fitting_frames
from minisora.report.model import BLOCK_WEIGHTS, MLP_RATIO
from minisora.report.units import Number
from minisora.report.video_models import VideoModel, shipped_models

if TYPE_CHECKING:
    from minisora.config import Config

Triple = tuple[int, int, int]

# Channels of a head, where nobody says: those of most video transformers.
HEAD_WIDTH = 128
# Width over depth of a model that is known by its size alone (`sora.width_per_layer` of the report).
WIDTH_PER_LAYER = 122
# What released models have, where nobody says.
STEPS, GUIDANCE_PASSES, FPS, TEXT_TOKENS = 50, 2, 24.0, 256
# A clip, where nobody says: so many latent frames after the first, and pixels of "480p" (height, width).
LATENTS, PICTURE = 30, (480, 832)
# Encoder half of T5-XXL, by arithmetic from its config: 24 blocks of 4 x 4096^2 + 3 x 4096 x 10240, 32,128 words.
T5_XXL = 4.762e9
# FlashAttention-2 is "around 2x faster" than the kernel of xformers, which torch calls memory-efficient (arXiv
# 2307.08691, section 4.1).
ATTENTION_TIMES = {"flash": 1.0, "memory-efficient": 2.0}
_SIZES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@dataclass(frozen=True)
class Subject:
    """What is planned.

    Args:
        name: for people.
        source: where its shape comes from.
        shape: of the denoiser, with the prompt's tokens.
        heads: of attention.
        params: weights of the denoiser.
        attention: which tokens see which.
        attention_times: time that it takes over that of the kernel in common use.
        vae: strides (time, height, width).
        causal: the VAE codes the first frame by itself.
        chunk: frames after which the VAE starts anew; 0: never.
        patch: (time, height, width), in latent cells.
        text_params, vae_params: weights of the text encoders and of the VAE.
        code, decoder: how its blocks are written, and what its VAE's decoder needs.
        clip: (frames, height, width) that it was made for.
        fps: frames a second of it.
        steps, guidance_passes: of sampling.
        assumed: what its makers did not disclose, in words.
    """

    name: str
    source: str
    shape: TransformerShape
    heads: int
    params: float
    attention: Attention | Band
    vae: Triple
    causal: bool
    chunk: int
    patch: Triple
    text_params: float
    vae_params: float
    code: BlockCode
    decoder: Decoder
    clip: Triple
    fps: float
    steps: int
    guidance_passes: int
    assumed: tuple[str, ...] = ()
    attention_times: float = 1.0

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels (height, width) of a token."""
        return self.vae[1] * self.patch[1], self.vae[2] * self.patch[2]

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self.shape.width)

    def fitting(self, frames: Number) -> Number:
        """The nearest number of frames that fills its latent frames, of a number above 0."""
        return fitting_frames(frames, float(self.vae[0]), causal=self.causal, chunk=float(self.chunk))

    def seeing(self, attention: Attention | Band) -> "Subject":
        """The same with another kind of attention."""
        return replace(self, attention=attention)


def has_shape(model: VideoModel) -> bool:
    """Whether its shape is known well enough to plan it."""
    return bool(model.shape() and model.grid() and model.attention)


@cache
def disclosed() -> dict[str, VideoModel]:
    """Models that can be planned, by name."""
    return {model.name: model for model in shipped_models() if has_shape(model)}


def named(name: str) -> Subject:
    """A model that disclosed its shape.

    Args:
        name: as in `configs/report/video_models.yaml`, or words of it that no other name so short has: "wan 14b".

    Raises:
        UserError: there is none, or there are several.
    """
    models = disclosed()
    words = name.lower().replace("-", " ").split()
    found = [each for each in models if each.lower() == name.lower()]
    found = found or [each for each in models if all(word in each.lower() for word in words)]
    # "wan 14b" is Wan 2.1 14B, not Wan 2.1 I2V 14B: the name with the fewest other words.
    found = [each for each in found if len(each.split()) == min(len(one.split()) for one in found)]
    if len(found) > 1:
        raise UserError(f"'{name}' is {' or '.join(found)}: give more of the name")
    if not found or not words:
        raise UserError(
            f"no model '{name}'{nearest(name, models)}; there are: {', '.join(models)}; or give --params"
        )
    return of_disclosed(models[found[0]])


def of_disclosed(model: VideoModel) -> Subject:
    """A subject of a disclosed model that has a shape."""
    shape, grid = model.shape(), model.grid()
    assert shape is not None
    assert grid is not None
    assert model.attention is not None
    assert model.vae is not None
    assert model.patch is not None
    assert model.latents is not None
    assert model.clip is not None
    assumed = []
    if model.heads is None:
        assumed.append(f"heads of {HEAD_WIDTH} channels")
    if model.steps is None:
        assumed.append(f"{STEPS} steps")
    if model.guidance_passes is None:
        assumed.append(f"{GUIDANCE_PASSES} passes a step")
    if model.fps is None:
        assumed.append(f"{FPS:g} frames a second")
    if model.name not in CODES:
        assumed.append("activations of a typical block")
    decoder = DECODERS.get(model.name, TYPICAL_DECODER)
    if decoder is TYPICAL_DECODER:
        assumed.append("a typical decoder")
    text = float(sum(encoder.params.value for encoder in model.encoders))
    if not text and shape.text != "none":
        text = T5_XXL
        assumed.append("a T5-XXL for the prompt")
    return Subject(
        name=model.name,
        source=", ".join(sorted({fact.source for fact in (model.params, model.layers, model.width) if fact})),
        shape=shape,
        heads=model.heads.value if model.heads else max(1, round(float(shape.width) / HEAD_WIDTH)),
        params=model.params.value,
        attention=model.attention.value,
        vae=model.vae.value,
        causal=model.latents.value == "causal",
        chunk=model.vae_chunk.value if model.vae_chunk else 0,
        patch=model.patch.value,
        text_params=text,
        vae_params=model.vae_params.value if model.vae_params else 0.0,
        code=CODES.get(model.name, TYPICAL),
        decoder=decoder,
        clip=model.clip.value,
        fps=model.fps.value if model.fps else FPS,
        steps=model.steps.value if model.steps else STEPS,
        guidance_passes=model.guidance_passes.value if model.guidance_passes else GUIDANCE_PASSES,
        assumed=tuple(assumed),
        attention_times=ATTENTION_TIMES[model.attention_kernel.value] if model.attention_kernel else 1.0,
    )


def of_size(
    params: float,
    *,
    attention: Attention | Band = "full",
    vae: Triple = (4, 8, 8),
    patch: Triple = (1, 2, 2),
    layers: int | None = None,
    width: int | None = None,
    hidden: int | None = None,
    text: str = "joint",
    text_tokens: int = TEXT_TOKENS,
    active: float | None = None,
) -> Subject:
    """A DiT of that many weights; what is not given follows from the others.

    Without a shape it is the report's: adaLN-Zero blocks, 122 times as wide as deep, heads of 128 channels, an MLP four
    times as wide, a prompt of so many tokens in the sequence ("joint") or seen by cross-attention ("cross").

    Args:
        params: all weights, which take memory and learn.
        active: those that a token meets, where the MLPs are mixtures of experts: the shape is that of a model of so
            many, which passes cost. What chooses the experts, one number a token and expert, is left out.

    Raises:
        UserError: no such model can be: its shape has another size, or its width is no whole number of heads.
    """
    total = params
    if active is not None:
        check_number("active", active, 1.0, params)
        params = active
    if width is None:
        squares = params / BLOCK_WEIGHTS
        exact = (squares * WIDTH_PER_LAYER) ** (1 / 3) if layers is None else (squares / layers) ** 0.5
        width = HEAD_WIDTH * max(1, round(exact / HEAD_WIDTH))
    if width % HEAD_WIDTH and width > HEAD_WIDTH:
        low = width - width % HEAD_WIDTH
        raise UserError(f"--width {width} is no multiple of {HEAD_WIDTH}: use {low} or {low + HEAD_WIDTH}")
    hidden = hidden or MLP_RATIO * width
    # Shared modulation where the prompt comes in by cross-attention, as in every such model that is disclosed.
    shape = TransformerShape(
        layers=1,
        width=width,
        hidden=hidden,
        text_tokens=text_tokens,
        text="cross" if text == "cross" else "joint",
        modulation=text != "cross",
    )
    layers = layers or max(1, round(params / float(shape.params())))
    weights = layers * float(shape.params())
    if not 0.5 <= weights / params <= 2:
        raise UserError(
            f"{layers} blocks of {width} channels have {count_words(weights)} weights, not {count_words(params)}: use "
            f"--params {count_words(weights)}, or another --layers and --width"
        )
    return Subject(
        name=f"{count_words(total)} DiT" + (f", {count_words(params)} active" if active else ""),
        source=f"{layers} blocks of {width} channels",
        shape=replace(shape, layers=layers),
        heads=max(1, width // HEAD_WIDTH),
        params=total,
        attention=attention,
        vae=vae,
        causal=True,
        chunk=0,
        patch=patch,
        text_params=T5_XXL,
        vae_params=0.0,
        code=TYPICAL,
        decoder=TYPICAL_DECODER,
        clip=(1 + LATENTS * vae[0], *PICTURE),
        fps=FPS,
        steps=STEPS,
        guidance_passes=GUIDANCE_PASSES,
        assumed=("a T5-XXL for the prompt", "activations of a typical block", "a typical decoder"),
    )


def of_config(config: "Config", name: str) -> Subject:
    """A model of ours, as its config says; its small VAE and text encoder are left out of memory."""
    # Here, as it is of use for our own models only.
    from minisora.flops.count_closed_form import decode_terms, total
    from minisora.models.clip_grid import check_clip

    dit, vae, clip = config.dit, config.vae, config.clip
    cells = dit.patch[0] * dit.patch[1] * dit.patch[2] * vae.latent_channels
    shape = TransformerShape(
        layers=dit.depth,
        width=dit.width,
        hidden=int(dit.width * dit.mlp_ratio),
        text_tokens=config.text.tokens if dit.text_conditioning else 0,
        text="cross" if dit.text_conditioning else "none",
        modulation=dit.modulation == "per_block",
        # The head is twice as wide where the variance is learned.
        patch_values=cells * (1.5 if dit.learn_sigma else 1),
    )
    r, s = vae.temporal_factor, vae.spatial_factor
    latents = check_clip(
        clip.frames, clip.height, clip.width, temporal_factor=r, spatial_factor=s, patch=dit.patch
    )
    pixels = clip.frames * clip.height * clip.width
    guided = config.sample.guidance != 1 and dit.text_conditioning
    return Subject(
        name=name,
        source="its config",
        shape=shape,
        heads=dit.heads,
        params=float(shape.params()),
        attention=dit.attention,
        vae=(r, s, s),
        causal=True,
        chunk=0,
        patch=dit.patch,
        text_params=0.0,
        vae_params=0.0,
        code=OWN,
        decoder=replace(TYPICAL_DECODER, macs_per_pixel=total(decode_terms(vae, latents)) / pixels),
        clip=(clip.frames, clip.height, clip.width),
        fps=clip.fps,
        steps=config.sample.evaluations,
        guidance_passes=2 if guided else 1,
        assumed=("a typical decoder's memory",),
    )


# What is typed.


def parse_count(text: str, option: str) -> float:
    """A large number: 5B, 1.3b, 675M, 30e9.

    Raises:
        UserError: it is none, or not above 0.
    """
    match = re.fullmatch(r"([\d.]+(?:e\+?\d+)?)\s*([KMBT]?)", text.strip(), re.IGNORECASE)
    try:
        count = float(match[1]) * _SIZES.get(match[2].upper(), 1.0) if match else 0.0
    except ValueError:
        count = 0.0
    if not 1e3 <= count <= 1e15:
        raise UserError(f"{option} {text} is no number from 1K to 1000T, such as 5B or 675M")
    return count


def count_words(count: float) -> str:
    """5B, 1.3B, 675M."""
    size, letter = next(((s, k) for k, s in reversed(_SIZES.items()) if count >= s), (1.0, ""))
    return f"{count / size:.3g}{letter}"


def parse_attention(text: str) -> Attention | Band:
    """A kind of attention: full, factorised, divided, causal, causal:CHUNK, window:FRAMES, tile:FRAMESxROWSxCOLUMNS.

    Raises:
        UserError: it is none of these.
    """
    kind, _, extent = text.partition(":")
    for each in ATTENTIONS:
        if text == each:
            return each
    if kind == "causal" and re.fullmatch(r"([1-9]\d{0,4})?", extent) and text[-1:] != ":":
        return Band("causal", int(extent or 1))
    if kind == "window" and re.fullmatch(r"[1-9]\d{0,4}", extent):
        if int(extent) % 2 == 0:
            raise UserError(
                f"--attention {text}: a frame stands in the middle of its window: use window:{int(extent) + 1}"
            )
        return Band("window", int(extent))
    if kind == "tile" and extent:
        return Band("tile", *parse_triple(extent, "--attention tile:"))
    if kind in ("causal", "window", "tile"):
        raise UserError(
            f"--attention {text} has no number of latent frames from 1 on: use {kind}:3{'x8x8' * (kind == 'tile')}"
        )
    hint = nearest(kind, [*ATTENTIONS, "causal", "window", "tile"])
    raise UserError(
        f"--attention {text} is none{hint}: full, factorised, divided, causal, causal:CHUNK, window:FRAMES, "
        "tile:FRAMESxROWSxCOLUMNS"
    )


def attention_words(attention: Attention | Band) -> str:
    """As it is typed."""
    if isinstance(attention, str):
        return attention
    extent = f"{attention.frames:g}"
    if attention.kind == "tile":
        extent += f"x{attention.rows:g}x{attention.columns:g}"
    return f"{attention.kind}:{extent}"


def parse_triple(text: str, option: str) -> Triple:
    """TxHxW, such as 4x8x8.

    Raises:
        UserError: it is not three whole numbers above 0.
    """
    numbers = parse_numbers(text, 3)
    if numbers is None:
        raise UserError(f"{option} {text} is not TIMExHEIGHTxWIDTH, such as 4x8x8")
    return numbers[0], numbers[1], numbers[2]


def parse_numbers(text: str, count: int) -> Sequence[int] | None:
    """So many whole numbers from 1 to 65536 with x between them; None: it is something else."""
    parts = re.split(r"[x×X]", text.strip())
    if len(parts) != count or not all(re.fullmatch(r"[1-9]\d{0,4}", part.strip()) for part in parts):
        return None
    return [int(part) for part in parts]
