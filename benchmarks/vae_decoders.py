"""MACs per pixel of video VAEs in diffusers, of decoder and encoder, counted on meta tensors: no weights, no memory.

    python benchmarks/vae_decoders.py --json benchmarks/results/vae-decoders_MACHINE_DATE.json

The estimate's `serve.decode_macs_per_pixel` rests on the first three decoders, the planner's VAEs on all.
"""

import argparse
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLAllegro,
    AutoencoderKLCogVideoX,
    AutoencoderKLCosmos,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
)
from interleave import write
from torch.utils.flop_counter import FlopCounterMode

# The published CogVideoX decoder; the others' defaults in diffusers are the published ones.
COGVIDEOX = {
    "block_out_channels": (128, 256, 256, 512),
    "layers_per_block": 3,
    "latent_channels": 16,
    "down_block_types": ("CogVideoXDownBlock3D",) * 4,
    "up_block_types": ("CogVideoXUpBlock3D",) * 4,
}
DECODERS = (
    (AutoencoderKLCogVideoX, COGVIDEOX, (13, 16, 16)),
    (AutoencoderKLHunyuanVideo, {}, (5, 16, 16)),
    (AutoencoderKLWan, {}, (5, 16, 16)),
    (AutoencoderKLMochi, {}, (5, 16, 16)),
    (AutoencoderKLLTXVideo, {}, (5, 8, 8)),
    (AutoencoderKLCosmos, {}, (5, 16, 16)),
    # One tile: it decodes in tiles only.
    (AutoencoderKLAllegro, {}, (6, 40, 40)),
)


def count(kind: type, config: dict, latent_size: tuple[int, int, int]) -> dict:
    with torch.device("meta"):
        # Cosmos has constants that were made before.
        vae = kind(**config).eval().to("meta")
        channels = vae.config.get("latent_channels") or vae.config["z_dim"]
        latents = torch.empty(1, channels, *latent_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        video = vae.decoder(latents) if kind is AutoencoderKLAllegro else vae.decode(latents).sample
    macs, pixels = counter.get_total_flops() / 2, video[0, 0].numel()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vae.encoder(video) if kind is AutoencoderKLAllegro else vae.encode(video)
    encode_macs = counter.get_total_flops() / 2
    return {
        "model": kind.__name__,
        "decoder_params": sum(p.numel() for p in vae.decoder.parameters()),
        "video": list(video.shape),
        "macs": macs,
        "macs_per_pixel": macs / pixels,
        "encode_macs_per_pixel": encode_macs / pixels,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the counts there")
    arguments = parser.parse_args()
    rows = [count(*decoder) for decoder in DECODERS]
    for row in rows:
        decode, encode = (row[key] / 1e6 for key in ("macs_per_pixel", "encode_macs_per_pixel"))
        print(
            f"{row['model']:28} {decode:6.3f}e6 MACs a pixel to decode, {encode:6.3f}e6 to encode", flush=True
        )
    if arguments.json:
        where = {
            "date": date.today().isoformat(),
            "torch": torch.__version__,
            "diffusers": version("diffusers"),
        }
        write(arguments.json, {**where, "decoders": rows})


if __name__ == "__main__":
    main()
