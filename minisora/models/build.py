"""Models from a config: the one place that maps settings to constructor arguments."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from minisora.config import BucketConfig, ClipConfig, Config, DiTConfig
from minisora.models.clip_grid import check_clip
from minisora.models.dit import VideoDiT
from minisora.models.text import PretrainedTextEncoder, TextEncoder
from minisora.models.tokenizer import build_vocabulary
from minisora.models.vae import VideoVAE

_aten = torch.ops.aten
_SAVED: list[Any] = [
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
]


def latent_grid(config: Config, size: ClipConfig | BucketConfig | None = None) -> tuple[int, int, int]:
    """T' H' W' of the config's clips, or of clips of another size, under its VAE and patch.

    Raises:
        UserError: the size does not fit their strides; the message names the nearest that do.
    """
    size, vae = size or config.clip, config.vae
    return check_clip(
        size.frames,
        size.height,
        size.width,
        temporal_factor=vae.temporal_factor,
        spatial_factor=vae.spatial_factor,
        patch=config.dit.patch,
    )


def build_vae(config: Config) -> VideoVAE:
    """A fresh VAE."""
    return VideoVAE(**config.vae.model_dump())


def build_text_encoder(config: Config, captions: Iterable[str]) -> TextEncoder | PretrainedTextEncoder:
    """A fresh text encoder whose vocabulary is the words of `captions`, or the pretrained one of the config."""
    text = config.text
    if text.kind == "pretrained":
        return PretrainedTextEncoder(str(text.path), max_tokens=text.tokens)
    version = text.tokenizer_version
    vocabulary = build_vocabulary(captions, text.max_vocabulary, version)
    return TextEncoder(vocabulary, text.width, text.depth, text.heads, text.tokens, version)


def build_dit(config: Config, text_width: int | None) -> VideoDiT:
    """A fresh DiT for the latents of the config's VAE; `text_width` is the text encoder's, None for no text."""
    dit, channels = config.dit, config.vae.latent_channels
    model = VideoDiT(
        in_channels=channels,
        attention=dit.attention,
        text_width=text_width if dit.text_conditioning else None,
        num_classes=dit.num_classes,
        out_channels=2 * channels if dit.learn_sigma else None,
        **shape_of(dit),
    )
    set_training(model, dit)
    return model


def shape_of(dit: DiTConfig) -> dict[str, Any]:
    """Arguments of a `VideoDiT` that stand in its section as they are, whatever goes into it and comes out of it."""
    return dit.model_dump(
        include={"patch", "width", "depth", "heads", "mlp_ratio", "modulation", "qk_norm", "rope_theta"}
    )


def set_training(model: VideoDiT, dit: DiTConfig) -> None:
    """Set how a model is trained as its section says: what is dropped, and what is computed again.

    Neither is saved with it, so a copy of a saved model needs both.
    """
    model.set_dropout(dit.dropout)
    if dit.checkpointing:
        model.enable_gradient_checkpointing(
            selective_checkpoint if dit.checkpointing == "selective" else None
        )


def selective_checkpoint(block: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """`block(*arguments)`, keeping only the results of its matrix products and attention for the backward pass.

    Half of what a transformer block keeps for it comes from cheap passes over memory: norms, modulations, rotations,
    GELU. Those are computed again (Korthikanti et al. 2022, arXiv 2205.05198, section 5), so no product runs twice
    and FLOPs stay the same.
    """
    contexts = partial(create_selective_checkpoint_contexts, _SAVED)
    result: Tensor = checkpoint(block, *arguments, use_reentrant=False, context_fn=contexts)
    return result
