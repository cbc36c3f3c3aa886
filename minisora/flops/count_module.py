"""Any model, not only ours: an `nn.Module` with its arguments, or a diffusers transformer by name, on meta.

Three ways where `count_closed_form` has a form, two ways (fvcore and torch) where it has not; they agree
within half a per cent or no number is given.

Units: MACs and FLOPs of one call (1 MAC = 2 FLOPs).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from minisora.errors import UserError, nearest
from minisora.flops.as_written import meta_allowances
from minisora.flops.count_closed_form import CLOSED_FORMS, Size, Term
from minisora.flops.count_torch import Formulas
from minisora.flops.ledger import PassCount, count_pass, scale_of
from minisora.flops.passes import Pass
from minisora.screen import Table


@dataclass(frozen=True)
class ForeignLedger:
    """The counts of one model's forward pass."""

    name: str
    count: PassCount
    latent_size: Size | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON, in the shape of `Ledger.to_dict`'s "forward"."""
        return {
            "name": self.name,
            "latent_size": self.latent_size,
            "params": self.count.params,
            "forward": self.count.to_dict(by_group=False),
        }

    def table(self) -> Table:
        """MACs and FLOPs by operator, and how far the ways of counting differ."""
        size = "" if self.latent_size is None else f", latents {' x '.join(map(str, self.latent_size))}"
        title = f"{self.name}{size}: {self.count.params / 1e9:.3f} B parameters"
        total = self.count.macs
        scale = scale_of(total, decimals=1)
        heads = ("", f"{scale.prefix}MACs", f"{scale.prefix}FLOPs", "share")
        table = Table(*heads, title=title, title_justify="left")
        for operator, macs in sorted(self.count.fvcore.by_operator().items(), key=lambda kv: -kv[1]):
            table.add_row(f"  {operator}", scale.words(macs), scale.words(2 * macs), f"{macs / total:.1%}")
        table.add_row("one forward pass", scale.words(total), scale.words(2 * total), "", style="bold")
        agreement = self.count.agreement
        ways = "fvcore and torch (no closed form)" if not self.count.groups else "fvcore, torch, closed form"
        table.caption = f"{ways} differ by {agreement.max_disagreement:.4%}. 1 MAC = 2 FLOPs"
        return table


def count_module(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    terms: list[Term] | None = None,
    name: str | None = None,
    formulas: Formulas | None = None,
) -> ForeignLedger:
    """Count a forward pass of any module on the tensors given, without gradients.

    A compiled module is counted as it was before, `torch.cond` and `while_loop` as they run on these values.

    Args:
        model: on any device; on meta nothing is computed.
        args, kwargs: of the call.
        terms: a closed form, if there is one.
        name: for messages; the class's name by default.
        formulas: operator ("library::name") -> a function of its arguments in order, shapes in place of
            tensors, that returns MACs; for operators that have no formula here.

    Raises:
        UserError: an operator is unknown to a counter, torch's tracer cannot follow the model, or the counts
            disagree.
    """
    model = getattr(model, "_orig_mod", model)
    name = name or type(model).__name__
    part = Pass(f"one pass of {name}", model, tuple(args), dict(kwargs or {}), terms, by_module=False)
    with meta_allowances():
        return ForeignLedger(name, count_pass(part, formulas))


def count_diffusers(name: str, settings: Mapping[str, Any] | None = None) -> ForeignLedger:
    """Count one denoising pass of a diffusers transformer, built on meta tensors.

    Args:
        name: class, such as "CogVideoXTransformer3DModel".
        settings: as read from the YAML of `--args`; all optional:
            config: constructor arguments (default: the class's own, or `CONFIGS`, of a released model).
            latent_size: [frames, height, width] of the latents (default: the model's native clip).
            text_tokens: tokens of the prompt.
            inputs: arguments of the call by name, added to or replacing the built ones; a list is the shape
                of a float tensor, {shape: [...], dtype: int64} of another, anything else is passed as it is.

    Raises:
        UserError: diffusers has no such class, a key is unknown, or the pass does not run.
    """
    import diffusers

    settings = dict(settings or {})
    unknown = set(settings) - {"config", "latent_size", "text_tokens", "inputs"}
    if unknown:
        raise UserError(f"unknown key '{min(unknown)}'; known: config, latent_size, text_tokens, inputs")
    known = [each for each in dir(diffusers) if each.endswith(("Model", "Transformer2D", "Transformer3D"))]
    _check_settings(settings)
    if name not in known:
        raise UserError(f"diffusers {diffusers.__version__} has no model '{name}'{nearest(name, known)}")
    config = settings.get("config") or CONFIGS.get(name, {})
    model = build_on_meta(getattr(diffusers, name), dict(config))
    native, text_tokens, build = INPUTS.get(name, ((1, 32, 32), 128, lambda *_: {}))
    size: Size = tuple(settings.get("latent_size") or native)
    text_tokens = settings.get("text_tokens") or text_tokens
    kwargs = build(model.config, size, text_tokens)
    kwargs |= {key: _as_input(value) for key, value in (settings.get("inputs") or {}).items()}
    form = CLOSED_FORMS.get(name)
    terms = None if form is None or settings.get("inputs") else form(model.config, size, text_tokens)
    try:
        ledger = count_module(model, kwargs=kwargs, terms=terms, name=name)
    except (TypeError, RuntimeError, ValueError, AttributeError, KeyError, IndexError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        taken = ", ".join(inspect.signature(model.forward).parameters)
        raise UserError(
            f"{name} does not run on {', '.join(kwargs) or 'no inputs'}: {first}; it takes {taken}"
        ) from error
    return replace(ledger, latent_size=size)


def _check_settings(settings: dict[str, Any]) -> None:
    """Raise UserError unless sizes are whole numbers above 0, and config and inputs hold named values."""
    for key in ("config", "inputs"):
        if settings.get(key) is not None and not isinstance(settings[key], dict):
            raise UserError(f"{key} = {settings[key]!r} must hold named values")
    size, tokens = settings.get("latent_size"), settings.get("text_tokens")
    numbers = [] if size is None else list(size) if isinstance(size, list | tuple) else [size]
    if size is not None and len(numbers) != 3:
        raise UserError(f"latent_size = {size!r} must be [frames, height, width]")
    for number in numbers + ([] if tokens is None else [tokens]):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise UserError(f"latent_size and text_tokens must be whole numbers above 0, not {number!r}")


def build_on_meta(kind: Any, config: dict[str, Any]) -> nn.Module:
    """A model of a class of diffusers, without memory.

    Raises:
        UserError: it has no such setting, or cannot be built so.
    """
    accepted = inspect.signature(kind.__init__).parameters
    for key in config:
        if key not in accepted:
            raise UserError(f"{kind.__name__} has no setting '{key}'{nearest(key, accepted)}")
    try:
        with torch.device("meta"):
            return kind(**config).eval()
    except (TypeError, RuntimeError, ValueError) as error:
        raise UserError(f"{kind.__name__} cannot be built: {str(error).strip().splitlines()[0]}") from error


def _as_input(value: Any) -> Any:
    if isinstance(value, list):
        return _floats(*value)
    if isinstance(value, dict):
        dtype = getattr(torch, str(value.get("dtype", "float32")), None)
        if not isinstance(dtype, torch.dtype) or "shape" not in value:
            raise UserError(f"input {value} must be {{shape: [...], dtype: float32}} with a torch dtype")
        return torch.zeros(value["shape"], dtype=dtype, device="meta")
    return value


def _floats(*shape: int) -> Tensor:
    return torch.zeros(shape, device="meta")


def _inputs(latents: tuple[int, ...], tokens: int, text_width: int, **more: Any) -> dict[str, Any]:
    """Arguments of the call that all of them share, batch 1; `more` are a model's own."""
    return {
        "hidden_states": _floats(1, *latents),
        "encoder_hidden_states": _floats(1, tokens, text_width),
        "timestep": torch.ones(1, dtype=torch.long, device="meta"),
        **more,
    }


def _mask(tokens: int) -> Tensor:
    return torch.ones(1, tokens, dtype=torch.bool, device="meta")


def _cogvideox(config: Any, size: Size, tokens: int) -> dict[str, Any]:
    return _inputs((size[0], config.in_channels, *size[1:]), tokens, config.text_embed_dim)


def _latte(config: Any, size: Size, tokens: int) -> dict[str, Any]:
    return _inputs((config.in_channels, *size), tokens, config.caption_channels)


def _wan(config: Any, size: Size, tokens: int) -> dict[str, Any]:
    return _inputs((config.in_channels, *size), tokens, config.text_dim)


def _mochi(config: Any, size: Size, tokens: int) -> dict[str, Any]:
    latents = (config.in_channels, *size)
    return _inputs(latents, tokens, config.text_embed_dim, encoder_attention_mask=_mask(tokens))


def _hunyuan(config: Any, size: Size, tokens: int) -> dict[str, Any]:
    pooled = {"pooled_projections": _floats(1, config.pooled_projection_dim)}
    guidance = {"guidance": _floats(1)} if config.guidance_embeds else {}
    return _mochi(config, size, tokens) | pooled | guidance


def _cosmos(config: Any, size: Size, tokens: int) -> dict[str, Any]:
    padding = {"padding_mask": _floats(1, 1, *size[1:])} if config.concat_padding_mask else {}
    return _inputs((config.in_channels, *size), tokens, config.text_embed_dim, fps=16, **padding)


def _ltx(config: Any, size: Size, tokens: int) -> dict[str, Any]:
    sizes = dict(zip(("num_frames", "height", "width"), size, strict=True))
    more = {"encoder_attention_mask": _mask(tokens), **sizes}
    return _inputs((prod(size), config.in_channels), tokens, config.caption_channels, **more)


CONFIGS: dict[str, dict[str, Any]] = {
    # Latte-XL/2.
    "LatteTransformer3DModel": {
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "num_layers": 28,
        "sample_size": 32,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 8,
        "norm_type": "ada_norm_single",
        "caption_channels": 4096,
        "cross_attention_dim": 1152,
        "video_length": 16,
        "attention_bias": True,
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "activation_fn": "gelu-approximate",
    },
}
"""Constructor arguments where a class's defaults are no released model."""

Builder = Callable[[Any, Size, int], dict[str, Any]]
INPUTS: dict[str, tuple[Size, int, Builder]] = {
    "CogVideoXTransformer3DModel": ((13, 60, 90), 226, _cogvideox),
    "LatteTransformer3DModel": ((16, 32, 32), 120, _latte),
    "AllegroTransformer3DModel": ((22, 90, 160), 512, _latte),
    "CosmosTransformer3DModel": ((16, 88, 160), 512, _cosmos),
    "LTXVideoTransformer3DModel": ((16, 16, 24), 128, _ltx),
    "SkyReelsV2Transformer3DModel": ((25, 68, 120), 512, _wan),
    "WanTransformer3DModel": ((21, 60, 104), 512, _wan),
    "HunyuanVideoTransformer3DModel": ((33, 90, 160), 256, _hunyuan),
    "MochiTransformer3DModel": ((28, 60, 106), 256, _mochi),
}
"""Class: native latent size (frames, height, width), prompt tokens, and what it is called with."""
