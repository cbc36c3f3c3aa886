"""Passes to count: modules with the inputs of a real pass, on meta tensors, a CPU or a GPU, and what they must cost.

Letters: B batch, C channels, T' H' W' latent grid, M text tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from minisora.config import Config
from minisora.flops.count_closed_form import Term, decode_terms, dit_terms, encode_terms, text_terms
from minisora.models.dit import VideoDiT
from minisora.models.vae import VideoVAE


@dataclass
class Pass:
    """A module, the arguments of one call of it, and what arithmetic expects of that call.

    Args:
        name: for messages.
        module: what is called.
        args, kwargs: of the call; tensors may be nested in tuples, lists and dicts.
        terms: its products by arithmetic, for one sample; None where there is no closed form.
        batch: samples in the call.
        by_module: whether counts must agree in every module. Models of other projects may share a module, or call a
            child's parts, which each tool books in its own way: of them only the total must agree.
    """

    name: str
    module: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    terms: list[Term] | None = None
    batch: int = 1
    by_module: bool = True

    def __call__(self) -> Any:
        """Run it."""
        return self.module(*self.args, **self.kwargs)

    def loss(self) -> Tensor:
        """A scalar that depends on every output, so that a backward pass reaches every parameter used."""
        outputs = [t for t in tensors_in(self()) if t.is_floating_point()]
        return torch.stack([t.float().square().mean() for t in outputs]).sum()


def tensors_in(output: Any) -> list[Tensor]:
    """The tensors of any output: a tensor, tuples, dicts (diffusers outputs are dicts), dataclasses."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    elif hasattr(output, "__dataclass_fields__"):
        output = list(vars(output).values())
    return [t for part in output for t in tensors_in(part)] if isinstance(output, list | tuple) else []


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
    tokens = config.text.tokens
    if dit.embed_text is not None and text_width is not None:
        text = torch.randn(batch, tokens, text_width, device=device, dtype=dtype)
        kwargs |= {
            "text": text.requires_grad_(text_grad),
            "text_mask": torch.ones(batch, tokens, dtype=torch.bool, device=device),
            "pooled": torch.randn(batch, text_width, device=device, dtype=dtype).requires_grad_(text_grad),
        }
    if dit.embed_class is not None:
        kwargs["labels"] = torch.zeros(batch, dtype=torch.long, device=device)
    terms = dit_terms(
        config,
        latent_size,
        text_width=text_width,
        text_tokens=tokens,
        latent_grad=latent_grad,
        text_grad=text_grad,
    )
    return Pass("one denoising pass of the DiT", dit, kwargs=kwargs, terms=terms, batch=batch)


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
    config: Config,
    vae: VideoVAE,
    clip: tuple[int, int, int],
    *,
    batch: int = 1,
    device: torch.device | str = "meta",
    dtype: torch.dtype = torch.float32,
) -> Pass:
    """Encoding `batch` clips of (frames, height, width) pixels."""
    video = torch.randn(batch, 3, *clip, device=device, dtype=dtype)
    terms = encode_terms(config.vae, *clip)
    return Pass("the VAE's encoder", _Half(vae, "encoder"), (video,), terms=terms, batch=batch)


def decode_pass(
    config: Config,
    vae: VideoVAE,
    latent_size: tuple[int, int, int],
    *,
    batch: int = 1,
    device: torch.device | str = "meta",
    dtype: torch.dtype = torch.float32,
) -> Pass:
    """Decoding `batch` clips from latents of that grid."""
    latents = torch.randn(batch, config.vae.latent_channels, *latent_size, device=device, dtype=dtype)
    terms = decode_terms(config.vae, latent_size)
    return Pass("the VAE's decoder", _Half(vae, "decoder"), (latents,), terms=terms, batch=batch)


def text_pass(
    config: Config, encoder: nn.Module, *, batch: int = 1, device: torch.device | str = "meta"
) -> Pass:
    """Encoding `batch` prompts of full length; a pretrained encoder is of another project: no closed form here."""
    tokens, own = config.text.tokens, config.text.kind == "scratch"
    ids = torch.zeros(batch, tokens, dtype=torch.long, device=device)
    mask = torch.ones(batch, tokens, dtype=torch.bool, device=device)
    terms = text_terms(config.text, tokens) if own else None
    return Pass("the text encoder", encoder, (ids, mask), terms=terms, batch=batch, by_module=own)
