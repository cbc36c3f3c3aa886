"""The ledger: what a config costs, counted three ways, as numbers, JSON and a table.

Three models make a video, and each is one or two parts. `count_config` counts them all, and no number leaves it that
the three ways do not agree on.

Units: MACs and FLOPs (1 MAC = 2 FLOPs), per sample or per video unless a name says otherwise.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Group
from torch import nn

from minisora.config import Config, SampleConfig
from minisora.flops.agree import Agreement, Count, agree
from minisora.flops.count_closed_form import count_closed_form, optimizer_flops, train_macs
from minisora.flops.count_fvcore import count_fvcore
from minisora.flops.count_torch import Formulas, StepCount, count_torch, count_training
from minisora.flops.device import built_on, describe_device
from minisora.flops.passes import Pass, decode_pass, dit_pass, encode_pass, text_pass
from minisora.models.build import build_dit, build_text_encoder, build_vae
from minisora.models.clip_grid import token_grid
from minisora.models.dit import VideoDiT
from minisora.models.vae import VideoVAE
from minisora.screen import Table

TRAIN_CASES = ("plain", "checkpointed", "frozen_input", "input_gradient")
"""As the config trains without and with checkpointing; with a frozen text encoder; with every input needing a
gradient."""


@dataclass(frozen=True)
class PassCount:
    """One forward pass: the counts of the whole call, and what they come to for one sample."""

    agreement: Agreement
    params: int
    batch: int = 1

    @property
    def macs(self) -> int:
        """MACs of one sample."""
        return self.agreement.macs // self.batch

    @property
    def fvcore(self) -> Count:
        """The count with the most to tell: operators as they are written, and elementwise work."""
        return self.agreement.counts[0]

    @property
    def groups(self) -> dict[str, int]:
        """MACs of one sample by row of the closed form; none where there is no closed form."""
        closed = [count for count in self.agreement.counts if count.way == "closed form"]
        return {group: macs // self.batch for count in closed for group, macs in count.by_operator().items()}

    def to_dict(self, *, by_group: bool = True) -> dict[str, Any]:
        """For JSON, all of one sample."""
        return {
            "macs": self.macs,
            "flops": 2 * self.macs,
            "by_module": {k or "all": v // self.batch for k, v in self.fvcore.by_module().items()},
            "by_operator": {k: v // self.batch for k, v in self.fvcore.by_operator().items()},
            **({"by_group": self.groups} if by_group else {}),
            "elementwise_operations": self.fvcore.total_elementwise // self.batch,
            "counts": self.agreement.to_dict(self.batch),
            "max_disagreement": self.agreement.max_disagreement,
        }


def count_pass(part: Pass, formulas: Formulas | None = None) -> PassCount:
    """Count a forward pass three ways, or two where there is no closed form; they agree, or there is no number.

    Args:
        part: the pass.
        formulas: MACs of operators that have no formula here, as in `StrictFlopCounter`.

    Raises:
        UserError: an operator is unknown, or the counts disagree; the message names where.
    """
    # First of the three, so that an error of the model's own is seen as the model raises it.
    by_torch = count_torch(part, formulas)
    by_fvcore = count_fvcore(part, formulas)
    by_arithmetic = count_closed_form(part.terms, part.batch)
    agreement = agree(part.name, by_fvcore, by_torch, by_arithmetic, by_module=part.by_module)
    return PassCount(agreement, sum(p.numel() for p in part.module.parameters()), part.batch)


@dataclass(frozen=True)
class VideoCost:
    """FLOPs of one video.

    `passes_per_step` is 2 under guidance (with and without the prompt); `passes` is that times the model
    evaluations of the scheduler: one a step for Euler, two a step but the last for Heun.
    """

    steps: int
    guidance: float
    passes_per_step: int
    passes: int
    step_flops: int
    text_flops: int
    decode_flops: int

    @property
    def denoise_flops(self) -> int:
        """All denoising passes."""
        return self.passes * self.step_flops // self.passes_per_step

    @property
    def flops(self) -> int:
        """The whole video."""
        return self.denoise_flops + self.text_flops + self.decode_flops

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the sums."""
        return {**vars(self), "denoise_flops": self.denoise_flops, "flops": self.flops}


def video_cost(sample: SampleConfig, macs: Mapping[str, int]) -> VideoCost:
    """Cost of one video under the config's sampling defaults.

    Args:
        sample: steps, guidance and scheduler. Guidance of 1 is none, and a model without text has nothing to
            guide by (`MiniSoraPipeline` does the same).
        macs: MACs per sample of "dit", "vae_decode" and, if there is text, "text_encoder".
    """
    guided = sample.guidance != 1 and "text_encoder" in macs
    per_step = 2 if guided else 1
    return VideoCost(
        steps=sample.steps,
        guidance=sample.guidance if guided else 1.0,
        passes_per_step=per_step,
        passes=sample.evaluations * per_step,
        step_flops=2 * macs["dit"] * per_step,
        text_flops=2 * macs.get("text_encoder", 0) * per_step,
        decode_flops=2 * macs["vae_decode"],
    )


@dataclass(frozen=True)
class Ledger:
    """What a config costs. `components` holds "dit", "vae_encode", "vae_decode" and maybe "text_encoder"."""

    config: Config
    tokens: int
    components: dict[str, PassCount]
    cases: dict[str, StepCount]
    video: VideoCost
    device: dict[str, Any] = field(default_factory=dict)

    @property
    def dit(self) -> PassCount:
        """The row that `forward` in the JSON is."""
        return self.components["dit"]

    @property
    def train_case(self) -> StepCount:
        """Forward and backward of one sample as the config trains."""
        return self.cases[_own_case(self.config)]

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `minisora flops --json`; `forward` is the DiT alone, one sample, one pass."""
        forward, case = self.dit.to_dict(), self.train_case
        return {
            "forward": forward,
            "train_step": {
                "flops": case.train_flops,
                "ratio_to_forward": case.ratio,
                "backward_flops": case.backward_flops,
                "recompute_flops": case.recompute_flops,
                "model_flops": case.model_flops,
                "cases": {
                    name: {
                        "flops": each.train_flops,
                        "recompute_flops": each.recompute_flops,
                        "ratio_to_forward": each.ratio,
                    }
                    for name, each in self.cases.items()
                },
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
    models = _build(config, device, dtype)
    components: dict[str, PassCount] = {}
    for name, part in parts(config, models, device=device, batch=batch, dtype=dtype):
        components[name] = count_pass(part)
    own = _own_case(config)
    frames, height, width = token_grid(models.latent_size, config.dit.patch)
    return Ledger(
        config=config,
        tokens=frames * height * width,
        components=components,
        cases={
            name: _train_case(name, config, models, device, dtype, own=name == own)
            for name in TRAIN_CASES
            if name in cases or name == own
        },
        video=video_cost(config.sample, {name: count.macs for name, count in components.items()}),
        device=describe_device(device, dtype),
    )


@dataclass(frozen=True)
class _Models:
    """The networks of a config, built, and the latent grid (T', H', W') of its clip."""

    dit: VideoDiT
    vae: VideoVAE
    text_encoder: nn.Module | None
    text_width: int | None
    latent_size: tuple[int, int, int]


def _build(config: Config, device: str, dtype: torch.dtype) -> _Models:
    with built_on(device, dtype):
        vae = build_vae(config).eval()
        latent_size = vae.latent_size(config.clip.frames, config.clip.height, config.clip.width)
        token_grid(latent_size, config.dit.patch)
        text_encoder = build_text_encoder(config, [""]) if config.dit.text_conditioning else None
        text_width = text_encoder.width if text_encoder is not None else None
        return _Models(build_dit(config, text_width), vae, text_encoder, text_width, latent_size)


def parts(
    config: Config, models: _Models, *, device: str, batch: int, dtype: torch.dtype
) -> Iterator[tuple[str, Pass]]:
    """The passes that a config's video is made of, by the name of their row."""
    clip = (config.clip.frames, config.clip.height, config.clip.width)
    size = models.latent_size
    inputs: dict[str, Any] = {"batch": batch, "device": device, "dtype": dtype}
    yield "dit", dit_pass(config, models.dit, size, text_width=models.text_width, **inputs)
    yield "vae_encode", encode_pass(config, models.vae, clip, **inputs)
    yield "vae_decode", decode_pass(config, models.vae, size, **inputs)
    if models.text_encoder is not None:
        # A pretrained encoder has real weights, wherever the rest is counted.
        where = device if config.text.kind == "scratch" else str(models.text_encoder.device)
        yield "text_encoder", text_pass(config, models.text_encoder, batch=batch, device=where)


def _own_case(config: Config) -> str:
    """The training case of a config; selective checkpointing costs the products of a plain step."""
    return "checkpointed" if config.dit.checkpointing is True else "plain"


def _train_case(
    name: str, config: Config, models: _Models, device: str, dtype: torch.dtype, *, own: bool
) -> StepCount:
    """Backward counted, not assumed: on the device if it is the config's own case, else on meta."""
    checkpointing = name == "checkpointed"
    latent_grad = name == "input_gradient"
    text_grad = name == "input_gradient" or (name != "frozen_input" and config.text.kind == "scratch")
    dit = models.dit
    if not own:
        device, dtype = "meta", torch.float32
        with torch.device(device):
            dit = build_dit(config, models.text_width)
    if checkpointing:
        dit.enable_gradient_checkpointing()
    # The selective kind is built in, and repeats no product.
    elif config.dit.checkpointing != "selective":
        dit.disable_gradient_checkpointing()
    part = dit_pass(
        config,
        dit,
        models.latent_size,
        text_width=models.text_width,
        device=device,
        dtype=dtype,
        latent_grad=latent_grad,
        text_grad=text_grad,
    )
    step = count_training(part)
    derived = train_macs(part.terms or [], checkpointing=checkpointing).train
    agree(
        f"a training step ({name})",
        Count("torch", {("", "forward and backward"): step.train_flops // 2}),
        Count("closed form", {("", "forward and backward"): derived}),
    )
    return step


@dataclass(frozen=True)
class Scale:
    """The unit of a table's MACs and FLOPs.

    Args:
        prefix: of the unit, G or M.
        size: what it stands for.
        decimals: of numbers in it.
    """

    prefix: str
    size: float
    decimals: int

    def words(self, value: float) -> str:
        """A number in the unit: no decimals of what is large, two digits of what the decimals would hide."""
        scaled = value / self.size
        if scaled >= 1e5:
            return f"{scaled:,.0f}"
        hidden = 0 < scaled < 10 ** (2 - self.decimals)
        return f"{scaled:.2g}" if hidden else f"{scaled:,.{self.decimals}f}"


def scale_of(macs: float, decimals: int = 3) -> Scale:
    """The scale of a table about a pass of so many MACs: giga, or mega where it has less than one of them."""
    return Scale("G", 1e9, decimals) if macs >= 1e9 else Scale("M", 1e6, 2)


def _forward_table(ledger: Ledger) -> Table:
    clip = ledger.config.clip
    title = (
        f"forward pass of one sample: {clip.frames} x {clip.height} x {clip.width}, {ledger.tokens:,} tokens"
    )
    scale = scale_of(ledger.dit.macs)
    table = Table(title=title, title_justify="left")
    for column in ("", f"{scale.prefix}MACs", f"{scale.prefix}FLOPs", "share", "params M"):
        table.add_column(column, justify="left" if not column else "right")
    for group, macs in ledger.dit.groups.items():
        name = f"  {group.replace('_', ' ')}"
        table.add_row(name, scale.words(macs), scale.words(2 * macs), f"{macs / ledger.dit.macs:.1%}", "")
    for key, component in ledger.components.items():
        name = {"dit": "DiT, one denoising pass"}.get(key, key.replace("_", " ").replace("vae", "VAE"))
        row = (
            name,
            scale.words(component.macs),
            scale.words(2 * component.macs),
            "",
            f"{component.params / 1e6:,.2f}",
        )
        table.add_row(*row, style="bold" if key == "dit" else "", end_section=key == "dit")
    table.caption = (
        f"counted three ways (fvcore, torch, closed form) on {ledger.device['type']}; they differ by "
        f"{ledger.dit.agreement.max_disagreement:.4%}. 1 MAC = 2 FLOPs"
    )
    text = ledger.config.text
    if "text_encoder" in ledger.components and text.max_tokens is None:
        table.caption += (
            f". A text counts {text.tokens} tokens; training sets text.max_tokens by the captions"
        )
    return table


def _totals_table(ledger: Ledger) -> Table:
    scale = scale_of(ledger.dit.macs)
    table = Table(title="what it adds up to", title_justify="left")
    for column in ("", f"{scale.prefix}FLOPs", "over forward"):
        table.add_column(column, justify="left" if not column else "right")
    for name, case in ledger.cases.items():
        label = f"train step of one sample, {name.replace('_', ' ')}"
        used = case is ledger.train_case
        row = (
            f"{label}{' (this config)' if used else ''}",
            scale.words(case.train_flops),
            f"{case.ratio:.3f}x",
        )
        table.add_row(*row, style="bold" if used else "")
    optimizer = optimizer_flops(ledger.dit.params)
    table.add_row(
        "optimizer step (AdamW, clip, EMA; elementwise)", scale.words(optimizer), "", end_section=True
    )
    video, forward = ledger.video, 2 * ledger.dit.macs
    for label, flops in (
        (f"sampling step, {video.passes_per_step} passes (guidance {video.guidance:g})", video.step_flops),
        (f"whole video: {video.passes} passes, text, decode", video.flops),
    ):
        table.add_row(label, scale.words(flops), f"{flops / forward:,.1f}x")
    return table
