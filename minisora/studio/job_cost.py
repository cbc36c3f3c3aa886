"""What a video of a model costs, by the ledger, before it is made: for every size and length that the page offers."""

from typing import Any

from minisora.config import Config, DiTConfig, SampleConfig, TextConfig, VAEConfig
from minisora.errors import UserError
from minisora.flops.count_closed_form import decode_terms, dit_terms, text_terms, total
from minisora.flops.count_torch import count_torch
from minisora.flops.ledger import video_cost
from minisora.flops.passes import text_pass
from minisora.models.text import PretrainedTextEncoder
from minisora.pipelines.pipeline import MiniSoraPipeline

# Latent frames of the lengths on offer, and (height, width) of the sizes, over those of training.
_LENGTHS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
_SIZES = ((1.0, 1.0), (0.75, 1.25), (1.25, 0.75), (1.5, 1.5))


def lengths_and_sizes(pipeline: MiniSoraPipeline) -> tuple[list[int], list[tuple[int, int]]]:
    """Lengths in frames and sizes (height, width) that fit a model, those of its training among them."""
    frames, height, width = pipeline.config.default_size
    time = int(pipeline.vae.config.temporal_factor) * pipeline.dit.patch[0]
    unit_y, unit_x = (int(pipeline.vae.config.spatial_factor) * patch for patch in pipeline.dit.patch[1:])
    lengths = {1 + time * round((frames - 1) / time * share) for share in _LENGTHS} | {frames}
    sizes = [(height, width)]
    for tall, wide in _SIZES:
        size = (unit_y * max(1, round(height * tall / unit_y)), unit_x * max(1, round(width * wide / unit_x)))
        if size not in sizes:
            sizes.append(size)
    fitting = [size for size in sizes if _fits(pipeline, frames, *size)]
    return sorted(length for length in lengths if _fits(pipeline, length, height, width)), fitting


def _fits(pipeline: MiniSoraPipeline, frames: int, height: int, width: int) -> bool:
    try:
        pipeline.latent_shape(frames, height, width)
    except UserError:
        return False
    return True


def costs(pipeline: MiniSoraPipeline, frames: int, height: int, width: int) -> dict[str, list[int]]:
    """FLOPs of one video as [at no step, for each step], "guided" and "plain" (guidance of 1).

    A prompt counts with all the tokens that the model reads. Both numbers follow from the ledger's own sum at one and
    at two steps of Euler's, which is linear in them.
    """
    config = _config_of(pipeline)
    _, *grid = pipeline.latent_shape(frames, height, width)
    latent_size = (grid[0], grid[1], grid[2])
    encoder, tokens = pipeline.text_encoder, config.text.tokens
    text_width = encoder.width if encoder is not None else None
    macs = {
        "dit": total(dit_terms(config, latent_size, text_width=text_width, text_tokens=tokens)),
        "vae_decode": total(decode_terms(config.vae, latent_size)),
    }
    if isinstance(encoder, PretrainedTextEncoder):
        macs["text_encoder"] = count_torch(text_pass(config, encoder, device=encoder.device)).total_macs
    elif encoder is not None:
        macs["text_encoder"] = total(text_terms(config.text, tokens))
    found = {}
    for name, guidance in (("guided", 2.0), ("plain", 1.0)):
        one, two = (
            video_cost(SampleConfig(steps=steps, guidance=guidance, scheduler="euler"), macs).flops
            for steps in (1, 2)
        )
        found[name] = [2 * one - two, two - one]
    return found


def _config_of(pipeline: MiniSoraPipeline) -> Config:
    """What the ledger has to know of a model, from the configs of its parts."""

    def known(section: type[VAEConfig] | type[DiTConfig], config: Any) -> dict[str, Any]:
        return {name: config[name] for name in section.model_fields if name in config}

    encoder = pipeline.text_encoder
    text: dict[str, Any] = {}
    if isinstance(encoder, PretrainedTextEncoder):
        text = {"kind": "pretrained", "path": ".", "max_tokens": encoder.config.max_tokens}
    elif encoder is not None:
        text = {name: encoder.config[name] for name in ("width", "depth", "heads", "max_tokens")}
    dit = {**known(DiTConfig, pipeline.dit.config), "text_conditioning": encoder is not None}
    return Config(
        vae=VAEConfig(**known(VAEConfig, pipeline.vae.config)), dit=DiTConfig(**dit), text=TextConfig(**text)
    )
