"""Passes to count: modules with the inputs of a real pass, on meta tensors, a CPU or a GPU.

Letters: B batch, C channels, T' H' W' latent grid, M text tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from minisora.config import Config
from minisora.errors import UserError
from minisora.flops.agree import Counts, agree
from minisora.flops.as_written import as_written, uncompiled
from minisora.flops.count_closed_form import Term, by_module
from minisora.flops.count_fvcore import FvcoreCount, count_macs, refuse_scripted, tensors_in
from minisora.flops.count_torch import StepCount, StrictFlopCounter, count_step
from minisora.flops.torch_formulas import Formulas
from minisora.models.dit import VideoDiT
from minisora.models.vae import VideoVAE


@dataclass
class Pass:
    """A module and the arguments of one call of it."""

    name: str
    module: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[], None] | None = None  # such as zeroing gradients before a timed step

    def __call__(self) -> Any:
        """Run it."""
        return self.module(*self.args, **self.kwargs)

    def loss(self) -> Tensor:
        """A scalar that depends on every output, so that a backward pass reaches every parameter used."""
        outputs = [t for t in tensors_in(self()) if t.is_floating_point()]
        return torch.stack([t.float().square().mean() for t in outputs]).sum()


@dataclass(frozen=True)
class PassCount:
    """One counted forward pass; MACs of the whole call."""

    name: str
    counts: Counts
    fvcore: FvcoreCount

    @property
    def macs(self) -> int:
        """MACs: the closed form's where there is one, else fvcore's (they agree)."""
        closed = self.counts.closed_form_macs
        return self.counts.fvcore_macs if closed is None else closed


def count_pass(
    what: Pass,
    terms: list[Term] | None,
    batch: int = 1,
    *,
    strict: bool = True,
    formulas: Formulas | None = None,
) -> PassCount:
    """Count a forward pass all the ways there are; `terms` are per sample, the call is of `batch` samples.

    `strict`: whether the counts must agree in every module, not only in total. `formulas`: MACs of operators
    that have no formula here, as in `StrictFlopCounter`.

    Raises:
        UserError: an operator is unknown, or the counts disagree; the message names where.
    """
    refuse_scripted(what.module)
    # Before the trace, so that an error of the model's own is seen as the model raises it.
    with uncompiled(what.module):
        counter = _count_by_torch(what, formulas)
    fvcore = count_macs(what.module, what.args, what.kwargs, formulas=formulas)
    closed = None if terms is None else {p: macs * batch for p, macs in by_module(terms).items()}
    counts = agree(
        what.name,
        fvcore,
        counter.by_module(),
        closed,
        by_module=strict,
        torch_operators=counter.by_operator(),
    )
    return PassCount(what.name, counts, fvcore)


def _count_by_torch(what: Pass, formulas: Formulas | None) -> StrictFlopCounter:
    """Raises: UserError as `StrictFlopCounter`, or if the module runs but not while it is counted."""
    try:
        with torch.no_grad(), StrictFlopCounter(formulas) as counter:
            what()
        return counter
    except UserError:
        raise
    except Exception as error:
        # The model's own errors come from its own run, as they are.
        with torch.no_grad(), as_written():
            what()
        first = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{what.name} runs, but not under torch's counter ({type(error).__name__}: {first}): count its "
            "parts one by one, on dense tensors"
        ) from error


def count_training(what: Pass) -> StepCount:
    """FLOPs of forward and backward of the pass, on the tensors it has; gradients are dropped afterwards."""
    count = count_step(what.loss)
    what.module.zero_grad()
    return count


def dit_pass(
    config: Config,
    dit: VideoDiT,
    latent_size: tuple[int, int, int],
    *,
    text_width: int | None,
    batch: int = 1,
    device: torch.device | str = "meta",
    dtype: torch.dtype = torch.float32,
    latent_grad: bool = False,
    text_grad: bool = False,
) -> Pass:
    """One denoising pass of `batch` clips: random latents, one noise level a clip, full-length prompts."""
    size = (batch, config.vae.latent_channels, *latent_size)
    latents = torch.randn(size, device=device, dtype=dtype).requires_grad_(latent_grad)
    kwargs: dict[str, Any] = {"latents": latents, "sigma": torch.rand(batch, device=device)}
    if dit.embed_text is not None and text_width is not None:
        tokens = config.text.tokens
        text = torch.randn(batch, tokens, text_width, device=device, dtype=dtype)
        kwargs |= {
            "text": text.requires_grad_(text_grad),
            "text_mask": torch.ones(batch, tokens, dtype=torch.bool, device=device),
            "pooled": torch.randn(batch, text_width, device=device, dtype=dtype).requires_grad_(text_grad),
        }
    if dit.embed_class is not None:
        kwargs["labels"] = torch.zeros(batch, dtype=torch.long, device=device)
    return Pass("one denoising pass of the DiT", dit, kwargs=kwargs)


class _Half(nn.Module):
    """One half of a VAE as a module of its own, its stack under the name it has in the VAE."""

    def __init__(self, vae: VideoVAE, half: str):
        super().__init__()
        self.add_module(half, getattr(vae, half))
        self._run = vae.decode if half == "decoder" else lambda video: vae.encode(video).mean

    def forward(self, x: Tensor) -> Tensor:
        """Latents of a video, or a video of latents."""
        return self._run(x)


def encode_pass(
    vae: VideoVAE,
    clip: tuple[int, int, int],
    *,
    batch: int = 1,
    device: torch.device | str = "meta",
    dtype: torch.dtype = torch.float32,
) -> Pass:
    """Encoding `batch` clips of (frames, height, width) pixels."""
    video = torch.randn(batch, 3, *clip, device=device, dtype=dtype)
    return Pass("the VAE's encoder", _Half(vae, "encoder"), (video,))


def decode_pass(
    vae: VideoVAE,
    latent_size: tuple[int, int, int],
    *,
    batch: int = 1,
    device: torch.device | str = "meta",
    dtype: torch.dtype = torch.float32,
) -> Pass:
    """Decoding `batch` clips from latents of that grid."""
    latents = torch.randn(batch, vae.config.latent_channels, *latent_size, device=device, dtype=dtype)
    return Pass("the VAE's decoder", _Half(vae, "decoder"), (latents,))


def text_pass(
    encoder: nn.Module, tokens: int, *, batch: int = 1, device: torch.device | str = "meta"
) -> Pass:
    """Encoding `batch` prompts of that many tokens."""
    ids = torch.zeros(batch, tokens, dtype=torch.long, device=device)
    mask = torch.ones(batch, tokens, dtype=torch.bool, device=device)
    return Pass("the text encoder", encoder, (ids, mask))
