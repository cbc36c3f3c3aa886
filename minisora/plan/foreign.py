"""Any video transformer and VAE of diffusers, by class name: what they cost, read off passes on tensors without memory.

Nothing is taken from a config but the patch. Two small passes are counted by torch, and every call of attention in them
is seen: its queries and keys tell the heads, the depth, and what sees what. A pass over F latent frames of P places is

    MACs = a + b F P + attention(F, P)

and the two give a and b, from which the MLP's width follows. A third pass, over the whole clip and counted in all ways
that there are, must come out as these three numbers say, or there is no plan. A decoder is seen on fake tensors: the
video's size tells its strides, two lengths tell how its memory grows.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from minisora.errors import UserError, nearest
from minisora.flops.as_written import meta_allowances
from minisora.flops.attention_formulas import arguments
from minisora.flops.count_module import CONFIGS, INPUTS, Builder, build_on_meta, count_diffusers
from minisora.flops.count_torch import count_forward
from minisora.flops.device import built_on
from minisora.flops.live_memory import LiveMemory
from minisora.plan.blocks import COGVIDEOX, DECODERS, HUNYUAN, LTX, TYPICAL, WAN, BlockCode, Decoder
from minisora.plan.subject import FPS, GUIDANCE_PASSES, STEPS, T5_XXL, Subject, Triple
from minisora.report.cost import Attention, TransformerShape, forward_macs

# Of a class, the decoder that its makers have beside it, and the code of its blocks where that was read.
BESIDE = {
    "Allegro": "AutoencoderKLAllegro",
    "CogVideoX": "AutoencoderKLCogVideoX",
    "ConsisID": "AutoencoderKLCogVideoX",
    "Cosmos": "AutoencoderKLCosmos",
    "HunyuanVideo": "AutoencoderKLHunyuanVideo",
    "LTXVideo": "AutoencoderKLLTXVideo",
    "Mochi": "AutoencoderKLMochi",
    "SkyReelsV2": "AutoencoderKLWan",
    "Wan": "AutoencoderKLWan",
}
# Of others.
ANY_DECODER = "AutoencoderKLWan"
CODES: dict[str, BlockCode] = {
    "CogVideoX": COGVIDEOX,
    "HunyuanVideoT": HUNYUAN,
    "LTXVideo": LTX,
    "SkyReelsV2": WAN,
    "Wan": WAN,
}
# Tokens of a side, of the two small passes: as many places as no model here has latent frames or tokens of a prompt.
SIDES = (5, 7)
# Share by which the whole clip may differ from what the small passes say.
AGREE = 0.005
# Latents that a decoder is seen on: side, and two lengths beyond which caches of the first frames are full.
SIDE, LENGTHS = 8, (5, 9)
# What a model raises that was made as no model is, and fake tensors that meet what they cannot.
FAULTS = (TypeError, RuntimeError, ValueError, AttributeError, KeyError, IndexError, AssertionError)


@dataclass(frozen=True)
class Call:
    """One call of attention: its batch, tokens of queries and of keys, heads of both, channels of a head."""

    batch: int
    queries: int
    keys: int
    heads: int
    kv_heads: int
    channels: int


class _Attentions(TorchFunctionMode):
    """Sees every call of `scaled_dot_product_attention`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            named = arguments("aten::scaled_dot_product_attention", args, kwargs)
            query, key = named["query"], named["key"]
            *batch, heads, queries, channels = query.shape
            self.calls.append(Call(math.prod(batch), queries, key.shape[-2], heads, key.shape[-3], channels))
        return function(*args, **kwargs)


@dataclass(frozen=True)
class _Probe:
    """A small pass: latent frames and places of tokens, its MACs, and its calls of attention."""

    frames: int
    places: int
    macs: int
    calls: list[Call]

    @property
    def tokens(self) -> int:
        return self.frames * self.places


def diffusers_subject(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    vae: str | None = None,
    vae_settings: Mapping[str, Any] | None = None,
) -> Subject:
    """A model of diffusers as the planner sees it.

    Args:
        name: class of a transformer, such as "WanTransformer3DModel".
        settings: constructor arguments that are not the class's own defaults.
        vae: class of a VAE; None: that of its makers.
        vae_settings: of the VAE.

    Raises:
        UserError: there is no such class, it cannot be built or called, or its passes do not follow from its tokens.
    """
    import diffusers

    known = sorted(each for each in INPUTS if hasattr(diffusers, each))
    if name not in known:
        raise UserError(
            f"no video transformer '{name}' that can be called{nearest(name, known)}: {', '.join(known)}"
        )
    read = read_transformer(name, {**CONFIGS.get(name, {}), **(settings or {})})
    native = INPUTS[name][0]
    decoder, strides, causal, vae_params = read_decoder(vae or _beside(name), vae_settings or {})
    frames = int(causal) + strides[0] * (native[0] - causal)
    code = next((code for prefix, code in CODES.items() if name.startswith(prefix)), TYPICAL)
    assumed = ["a T5-XXL for the prompt", f"{STEPS} steps", f"{GUIDANCE_PASSES} passes a step"]
    assumed += ["activations of a typical block"] if code is TYPICAL else []
    if vae is None and not name.startswith(tuple(BESIDE)):
        assumed.append(ANY_DECODER)
    return Subject(
        name=name,
        source=f"diffusers {diffusers.__version__}: counted passes, {read.error:.2%} apart",
        shape=read.shape,
        heads=read.heads,
        params=read.params,
        attention=read.attention,
        vae=strides,
        causal=causal,
        chunk=0,
        patch=read.patch,
        text_params=T5_XXL,
        vae_params=vae_params,
        code=code,
        decoder=decoder,
        clip=(frames, strides[1] * native[1], strides[2] * native[2]),
        fps=FPS,
        steps=STEPS,
        guidance_passes=GUIDANCE_PASSES,
        assumed=tuple(assumed),
    )


@dataclass(frozen=True)
class Transformer:
    """What two small passes say of a transformer.

    Args:
        shape, heads, attention, patch, params: as of `Subject`.
        error: share by which a counted pass over the whole clip differs.
    """

    shape: TransformerShape
    heads: int
    attention: Attention
    patch: Triple
    params: float
    error: float = 0.0


def read_transformer(name: str, config: Mapping[str, Any]) -> Transformer:
    """A transformer of diffusers with all of its arguments; errors as of `diffusers_subject`."""
    import diffusers

    model = build_on_meta(getattr(diffusers, name), dict(config))
    native, text_tokens, build = INPUTS[name]
    patch = _patch(model.config)
    shape, heads, attention = _read_shape(
        name, model, [_probe(model, build, patch, text_tokens, native[0], side) for side in SIDES]
    )
    params = float(sum(p.numel() for p in model.parameters()))
    read = Transformer(shape, heads, attention, patch, params)
    return replace(read, error=_hold(name, config, read))


def _beside(name: str) -> str:
    return next((vae for prefix, vae in BESIDE.items() if name.startswith(prefix)), ANY_DECODER)


def _patch(config: Any) -> Triple:
    """(time, height, width) of a token in latent cells, as diffusers' configs write it."""
    size = getattr(config, "patch_size", 1)
    if isinstance(size, list | tuple):
        return (
            (int(size[0]), int(size[1]), int(size[2])) if len(size) == 3 else (1, int(size[0]), int(size[1]))
        )
    return int(getattr(config, "patch_size_t", None) or 1), int(size), int(size)


def _probe(
    model: nn.Module, build: Builder, patch: Triple, text_tokens: int, frames: int, side: int
) -> _Probe:
    """A pass over so many latent frames of side x side tokens."""
    latents = (frames, side * patch[1], side * patch[2])
    inputs = build(model.config, latents, text_tokens)
    seen = _Attentions()
    try:
        with meta_allowances(), torch.no_grad():
            # Twice, as the counter takes attention apart before it can be seen.
            with seen:
                model(**inputs)
            macs = count_forward(lambda: model(**inputs)) // 2
    except FAULTS as error:
        raise UserError(
            f"{type(model).__name__} does not run on latents {latents}: {_first_line(error)}"
        ) from error
    return _Probe(frames // patch[0], side * side, macs, seen.calls)


def _read_shape(name: str, model: nn.Module, probes: list[_Probe]) -> tuple[TransformerShape, int, Attention]:
    """Shape, heads and kind of attention of two small passes.

    Raises:
        UserError: no call of attention is over the tokens.
    """
    first = probes[0]
    whole = [call for call in first.calls if call.queries == call.keys >= first.tokens]
    space = [call for call in first.calls if call.queries == call.keys == first.places]
    time = [call for call in first.calls if call.queries == call.keys == first.frames]
    own = whole or space + time
    if not own or (not whole and len(space) != len(time)):
        raise UserError(f"{name}: no attention over all tokens, or by turns over space and time, was seen")
    call = own[0]
    joint = call.keys - first.tokens if whole else 0
    cross = [each for each in first.calls if each not in own and each.queries in (first.tokens, first.places)]
    width = float(call.heads * call.channels)
    shape = TransformerShape(
        layers=float(len(own)),
        width=width,
        hidden=0.0,
        kv_share=call.kv_heads / call.heads,
        text_tokens=float(joint or (cross[0].keys if cross else 0)),
        text="joint" if joint else "cross" if cross else "none",
        modulation=False,
    )
    attention: Attention = "full" if whole else "factorised"
    left = [probe.macs - float(_macs(shape, probe, attention)) for probe in probes]
    per_token = (left[1] - left[0]) / (probes[1].tokens - probes[0].tokens)
    matrices = _matrices(model, int(width))
    shape = replace(shape, hidden=per_token / (shape.layers * matrices * width), gated_mlp=matrices == 3)
    return replace(shape, once=first.macs - float(_macs(shape, first, attention))), call.heads, attention


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _macs(shape: TransformerShape, probe: _Probe, attention: Attention) -> Any:
    return forward_macs(shape, float(probe.frames), float(probe.places), attention).total


def _matrices(model: nn.Module, width: int) -> int:
    """Matrices of an MLP: 3 where its way up has twice the channels of its way down, for a gate."""
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    down = Counter(
        each.in_features for each in linears if each.out_features == width and each.in_features > width
    )
    hidden, blocks = down.most_common(1)[0] if down else (0, 1)
    doubled = sum((each.in_features, each.out_features) == (width, 2 * hidden) for each in linears)
    return 3 if doubled >= blocks else 2


def _hold(name: str, config: Mapping[str, Any], read: Transformer) -> float:
    """Share by which a counted pass over the whole clip differs; raises UserError where it is too much."""
    latents, text_tokens, _ = INPUTS[name]
    settings = {"config": dict(config), "latent_size": list(latents), "text_tokens": text_tokens}
    counted, patch = count_diffusers(name, settings).count.macs, read.patch
    frames, places = latents[0] // patch[0], (latents[1] // patch[1]) * (latents[2] // patch[2])
    told = float(forward_macs(read.shape, float(frames), float(places), read.attention).total)
    error = abs(told / counted - 1)
    if error > AGREE:
        raise UserError(
            f"{name}: a pass over its clip has {counted:.4g} MACs, and its tokens say {told:.4g}: it cannot be planned"
        )
    return error


def read_decoder(name: str, settings: Mapping[str, Any]) -> tuple[Decoder, Triple, bool, float]:
    """A VAE's decoder, its strides, whether the first frame stands alone, and its weights."""
    import diffusers

    known = [each for each in dir(diffusers) if each.startswith("AutoencoderKL")]
    if name not in known:
        raise UserError(f"diffusers {diffusers.__version__} has no VAE '{name}'{nearest(name, known)}")
    model: Any = build_on_meta(getattr(diffusers, name), dict(settings))
    channels = next(
        (
            int(getattr(model.config, each))
            for each in ("z_dim", "latent_channels")
            if hasattr(model.config, each)
        ),
        16,
    )
    try:
        seen = [
            (*decode_on_fakes(name, settings, latents), _decode_macs(model, latents))
            for latents in ((channels, length, SIDE, SIDE) for length in LENGTHS)
        ]
    except FAULTS as error:
        raise UserError(
            f"{name} does not decode {channels} channels of latents: {_first_line(error)}"
        ) from error
    (video, peak, macs), (longer, higher, more) = seen
    frames, rest = divmod(longer[0] - video[0], LENGTHS[1] - LENGTHS[0])
    stride = frames if not rest else 0
    causal = video[0] == 1 + stride * (LENGTHS[0] - 1)
    if not stride or not (causal or video[0] == stride * LENGTHS[0]):
        raise UserError(
            f"{name} decodes {LENGTHS} latent frames to {video[0]} and {longer[0]}: no stride does that"
        )
    pixels = video[1] * video[2]
    listed = next((each for each in DECODERS.values() if each.source.startswith(f"{name},")), None)
    values = (higher - peak) / (longer[0] - video[0])
    found = Decoder(
        f"{name}, diffusers {diffusers.__version__}, run on tensors without memory",
        macs_per_pixel=(more - macs) / pixels / (longer[0] - video[0]),
        values=max(0.0, values),
        picture_values=higher - max(0.0, values) * longer[0],
    )
    # How many frames it takes at once, and in which tiles, is not seen.
    decoder = listed if listed is not None and not settings else found
    strides = (stride, video[1] // SIDE, video[2] // SIDE)
    return decoder, strides, causal, float(sum(p.numel() for p in model.parameters()))


def decode_on_fakes(
    name: str,
    settings: Mapping[str, Any],
    latents: tuple[int, int, int, int],
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[Triple, float]:
    """What decoding one clip holds at its peak, on tensors without memory.

    Args:
        name, settings: of a VAE of diffusers.
        latents: channels, frames, height, width.
        dtype: that serves; what is computed in float32 beside bfloat16 takes two numbers for one.

    Returns:
        Frames, height and width of the video, and numbers alive for each pixel of the picture, but for the video's own.
    """
    import diffusers

    # Some classes have constants in their modules.
    with FakeTensorMode(allow_non_fake_inputs=True):
        # Made in that format: fake tensors cannot be cast.
        with built_on("cpu", dtype):
            vae = getattr(diffusers, name)(**settings).eval()
        memory = LiveMemory(vae)
        code = torch.zeros(1, *latents, dtype=dtype)
        memory.hold([code])
        before = memory.now
        with memory, torch.no_grad():
            video: Tensor = vae.decode(code, return_dict=False)[0]
        frames, height, width = video.shape[2:]
        values = (memory.peak - before) / video.element_size() / (height * width) - 3 * frames
    return (frames, height, width), values


def _decode_macs(model: Any, latents: tuple[int, int, int, int]) -> int:
    """MACs of decoding one clip; the VAE is on meta."""
    with torch.no_grad():
        return count_forward(lambda: model.decode(torch.zeros(1, *latents, device="meta"))) // 2
