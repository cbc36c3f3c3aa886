"""The ledger: what a config costs, counted three ways, as numbers, JSON and a table.

Units: MACs and FLOPs (1 MAC = 2 FLOPs), per sample unless a name says otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Group

from minisora.config import Config
from minisora.flops import count_closed_form, count_closed_form_vae
from minisora.flops.count_closed_form import Term, dit_terms, optimizer_flops, train_macs
from minisora.flops.device import built_on, describe_device
from minisora.flops.passes import (
    Pass,
    PassCount,
    count_pass,
    count_training,
    decode_pass,
    dit_pass,
    encode_pass,
    text_pass,
)
from minisora.flops.whole_video import VideoCost, video_cost
from minisora.models.build import build_dit, build_text_encoder, build_vae
from minisora.models.dit import VideoDiT
from minisora.models.patchify import token_grid
from minisora.screen import Table

TRAIN_CASES = ("plain", "checkpointed", "frozen_input", "input_gradient")
"""As the config trains without and with checkpointing; with a frozen text encoder; with every input needing a
gradient."""


@dataclass(frozen=True)
class TrainCase:
    """FLOPs of forward and backward of one sample under one setting."""

    flops: int
    recompute_flops: int
    ratio_to_forward: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return vars(self)


@dataclass(frozen=True)
class Component:
    """One row: a forward pass of one sample."""

    count: PassCount
    params: int
    groups: dict[str, int]
    batch: int = 1

    @property
    def macs(self) -> int:
        """MACs of one sample."""
        return self.count.macs // self.batch

    def to_dict(self) -> dict[str, Any]:
        """As JSON; `counts` are divided by the batch like everything else."""
        counts = self.count.counts
        per_sample = {k: v if v is None else v // self.batch for k, v in counts.to_dict().items()}
        return {
            "macs": self.macs,
            "flops": 2 * self.macs,
            "by_module": {k or "all": v // self.batch for k, v in self.count.fvcore.by_module().items()},
            "by_operator": {k: v // self.batch for k, v in self.count.fvcore.by_operator().items()},
            "by_group": self.groups,
            "elementwise_operations": self.count.fvcore.total_elementwise // self.batch,
            "counts": per_sample,
            "max_disagreement": counts.max_disagreement,
        }


@dataclass(frozen=True)
class Ledger:
    """What a config costs. `components` holds "dit", "vae_encode", "vae_decode" and maybe "text_encoder"."""

    config: Config
    tokens: int
    components: dict[str, Component]
    cases: dict[str, TrainCase]
    video: VideoCost
    device: dict[str, Any] = field(default_factory=dict)

    @property
    def dit(self) -> Component:
        """The row that `forward` in the JSON is."""
        return self.components["dit"]

    @property
    def train_case(self) -> TrainCase:
        """The case that the config trains in."""
        return self.cases[_own_case(self.config)]

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `minisora flops --json`; `forward` is the DiT alone, one sample, one pass."""
        forward, case = self.dit.to_dict(), self.train_case
        return {
            "forward": forward,
            "train_step": {
                "flops": case.flops,
                "ratio_to_forward": case.ratio_to_forward,
                "backward_flops": case.flops - forward["flops"],
                "recompute_flops": case.recompute_flops,
                "model_flops": case.flops - case.recompute_flops,
                "cases": {name: each.to_dict() for name, each in self.cases.items()},
                "optimizer_flops_per_step": optimizer_flops(self.dit.params),
            },
            "params": self.dit.params,
            "tokens": self.tokens,
            "components": {name: {**c.to_dict(), "params": c.params} for name, c in self.components.items()},
            "video": self.video.to_dict(),
            "device": self.device,
        }

    def table(self) -> Group:
        """Two rich tables: the rows of a forward pass, and what a step and a video come to."""
        return Group(_forward_table(self), _totals_table(self))


def count_config(
    config: Config,
    *,
    device: str = "meta",
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    cases: Sequence[str] = TRAIN_CASES,
) -> Ledger:
    """Count a config's DiT, VAE and text encoder by real passes, three ways each.

    Args:
        config: of the run.
        device: "meta" counts by shapes alone, in seconds and without memory, whatever the size; "cpu" and
            "cuda" run the passes for real. The counts are the same.
        batch: samples in the pass; figures stay per sample.
        dtype: of weights and inputs.
        cases: which training settings to count besides the config's own (each is a backward pass to run).

    Raises:
        UserError: the clip fits neither VAE nor patch, an operator is unknown, or the counts disagree.
    """
    clip = (config.clip.frames, config.clip.height, config.clip.width)
    with built_on(device, dtype):
        vae = build_vae(config).eval()
        latent_size = vae.latent_size(*clip)
        token_grid(latent_size, config.dit.patch)
        scratch = config.text.kind == "scratch"
        text_encoder = build_text_encoder(config, [""]) if config.dit.text_conditioning else None
        text_width = text_encoder.width if text_encoder is not None else None
        dit = build_dit(config, text_width)
    text_tokens = config.text.tokens
    terms = dit_terms(config, latent_size, text_width=text_width, text_tokens=text_tokens, text_grad=scratch)
    inputs: dict[str, Any] = {"batch": batch, "device": device, "dtype": dtype}
    components = {
        "dit": _component(dit_pass(config, dit, latent_size, text_width=text_width, **inputs), terms, batch),
        "vae_encode": _component(
            encode_pass(vae, clip, **inputs), count_closed_form_vae.encode_terms(config.vae, *clip), batch
        ),
        "vae_decode": _component(
            decode_pass(vae, latent_size, **inputs),
            count_closed_form_vae.decode_terms(config.vae, latent_size),
            batch,
        ),
    }
    if text_encoder is not None:
        # A pretrained encoder is of another project: real weights, no closed form here.
        text_terms = count_closed_form_vae.text_terms(config.text, text_tokens) if scratch else None
        where = device if scratch else text_encoder.device
        components["text_encoder"] = _component(
            text_pass(text_encoder, text_tokens, batch=batch, device=where), text_terms, batch, strict=scratch
        )
    own = _own_case(config)
    counted = {
        name: _train_case(name, config, dit if name == own else None, latent_size, text_width, device, dtype)
        for name in TRAIN_CASES
        if name in cases or name == own
    }
    macs = {name: component.macs for name, component in components.items()}
    tokens = token_grid(latent_size, config.dit.patch)
    return Ledger(
        config=config,
        tokens=tokens[0] * tokens[1] * tokens[2],
        components=components,
        cases=counted,
        video=video_cost(config.sample, macs),
        device=describe_device(device, dtype),
    )


def _own_case(config: Config) -> str:
    """The training case of a config; selective checkpointing costs the products of a plain step."""
    return "checkpointed" if config.dit.checkpointing is True else "plain"


def _component(what: Pass, terms: list[Term] | None, batch: int, *, strict: bool = True) -> Component:
    params = sum(p.numel() for p in what.module.parameters())
    groups = count_closed_form.by_group(terms) if terms is not None else {}
    return Component(count_pass(what, terms, batch, strict=strict), params, groups, batch)


def _train_case(
    name: str,
    config: Config,
    dit: VideoDiT | None,
    latent_size: tuple[int, int, int],
    text_width: int | None,
    device: str,
    dtype: torch.dtype,
) -> TrainCase:
    """Backward counted, not assumed: on the device if `dit` is given (as the config trains), else on meta."""
    checkpointing = name == "checkpointed"
    latent_grad = name == "input_gradient"
    text_grad = name == "input_gradient" or (name != "frozen_input" and config.text.kind == "scratch")
    if dit is None:
        device, dtype = "meta", torch.float32
        with torch.device(device):
            dit = build_dit(config, text_width)
    if checkpointing:
        dit.enable_gradient_checkpointing()
    elif config.dit.checkpointing != "selective":  # which is built in, and repeats no product
        dit.disable_gradient_checkpointing()
    flags: dict[str, Any] = {"text_width": text_width, "latent_grad": latent_grad, "text_grad": text_grad}
    count = count_training(dit_pass(config, dit, latent_size, device=device, dtype=dtype, **flags))
    terms = dit_terms(config, latent_size, text_tokens=config.text.tokens, **flags)
    closed = train_macs(terms, checkpointing=checkpointing)
    count_closed_form.refuse_disagreement(f"a training step ({name})", count.train_flops, 2 * closed.train)
    return TrainCase(count.train_flops, count.recompute_flops, count.ratio)


def _giga(value: float) -> str:
    return f"{value / 1e9:,.3f}" if value < 1e14 else f"{value / 1e9:,.0f}"


def _forward_table(ledger: Ledger) -> Table:
    clip = ledger.config.clip
    title = (
        f"forward pass of one sample: {clip.frames} x {clip.height} x {clip.width}, {ledger.tokens:,} tokens"
    )
    table = Table(title=title, title_justify="left")
    for column in ("", "GMACs", "GFLOPs", "share", "params M"):
        table.add_column(column, justify="left" if not column else "right")
    for group, macs in ledger.dit.groups.items():
        name = f"  {group.replace('_', ' ')}"
        table.add_row(name, _giga(macs), _giga(2 * macs), f"{macs / ledger.dit.macs:.1%}", "")
    for key, component in ledger.components.items():
        name = {"dit": "DiT, one denoising pass"}.get(key, key.replace("_", " ").replace("vae", "VAE"))
        row = (name, _giga(component.macs), _giga(2 * component.macs), "", f"{component.params / 1e6:,.2f}")
        table.add_row(*row, style="bold" if key == "dit" else "", end_section=key == "dit")
    counts = ledger.dit.count.counts
    table.caption = (
        f"counted three ways (fvcore, torch, closed form) on {ledger.device['type']}; they differ by "
        f"{counts.max_disagreement:.4%}. 1 MAC = 2 FLOPs"
    )
    text = ledger.config.text
    if "text_encoder" in ledger.components and text.max_tokens is None:
        table.caption += (
            f". A text counts {text.tokens} tokens; training sets text.max_tokens by the captions"
        )
    return table


def _totals_table(ledger: Ledger) -> Table:
    table = Table(title="what it adds up to", title_justify="left")
    for column in ("", "GFLOPs", "over forward"):
        table.add_column(column, justify="left" if not column else "right")
    for name, case in ledger.cases.items():
        label = f"train step of one sample, {name.replace('_', ' ')}"
        used = case is ledger.train_case
        row = (
            f"{label}{' (this config)' if used else ''}",
            _giga(case.flops),
            f"{case.ratio_to_forward:.3f}x",
        )
        table.add_row(*row, style="bold" if used else "")
    optimizer = optimizer_flops(ledger.dit.params)
    table.add_row("optimizer step (AdamW, clip, EMA; elementwise)", _giga(optimizer), "", end_section=True)
    video, forward = ledger.video, 2 * ledger.dit.macs
    for label, flops in (
        (f"sampling step, {video.passes_per_step} passes (guidance {video.guidance:g})", video.step_flops),
        (f"whole video: {video.passes} passes, text, decode", video.flops),
    ):
        table.add_row(label, _giga(flops), f"{flops / forward:,.1f}x")
    return table
