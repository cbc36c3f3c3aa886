"""Bytes of activations: what a pass holds, what autograd keeps of a block, and what a VAE's decoder needs.

Counted in *units*: one number of the format of the activations for every token. Of a block of width d and hidden
width f with h heads, autograd keeps, a token,

    width x d + hidden x f units, and per_head x h numbers of float32

which follows from reading the block: what each operator's derivative needs. For our own block in float32: x, normed
and modulated (3); queries, keys, values as projected (3); queries and keys as rotated (2); what attention gives, and
what is projected of it (2); with text, x, normed, query, normed query, what attention gives (5); x, normed, modulated
(3); the MLP's end (1) and its inside before and after GELU (2 f). A log-sum-exp for every query and head, and two
numbers for every head that is normed. Blocks that norm in float32 keep copies of twice the size in bfloat16.

A pass without gradients holds the most in one of two places of a block: around attention (`pass_width` d) or in the MLP
(`pass_rest` d + `pass_hidden` f).

`benchmarks/plan_memory.py` holds these against what torch keeps. What the blocks keep in bfloat16 was read only: on a
CPU torch takes their norms apart, which keeps more than a card's kernels do.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class BlockCode:
    """How a block is written.

    Args:
        source: where it was read.
        width, hidden, per_head: what autograd keeps, see above, in float32.
        text_width: the part of `width` that is there for cross-attention only.
        half_width: `width` where weights and activations are bfloat16.
        text_rows: tokens of the prompt that each block keeps, in d: keys and values of cross-attention.
        pass_width, pass_rest, pass_hidden: what a pass holds, see above, in bfloat16.
        guidance_together: whether its pipeline runs the passes of guidance as one batch.
    """

    source: str
    width: float
    hidden: float
    per_head: float
    text_width: float
    half_width: float
    text_rows: float
    pass_width: float
    pass_rest: float
    pass_hidden: float
    guidance_together: bool


DIFFUSERS = "diffusers 0.42"
OWN = BlockCode("minisora.models.dit", 19, 2, 8, 5, 19, 3, 9, 4, 2, True)
WAN = BlockCode(f"WanTransformerBlock, {DIFFUSERS}", 19, 2, 2, 5, 25, 3, 12.5, 3, 2, False)
COGVIDEOX = BlockCode(f"CogVideoXBlock, {DIFFUSERS}", 14, 2, 5, 0, 14, 0, 13.3, 3, 2, True)
LTX = BlockCode(f"LTXVideoTransformerBlock, {DIFFUSERS}", 18, 2, 2, 4, 22, 3, 16, 3, 2, True)
# Of 60 blocks 40 have one stream, whose MLP is open while attention works.
HUNYUAN = BlockCode(f"HunyuanVideo blocks, {DIFFUSERS}", 15, 2, 3, 0, 19, 0, 18.3, 4, 2, False)
# For models whose code was not read: the middle of those above.
TYPICAL = BlockCode("the middle of four models whose code was read", 17, 2, 3, 5, 20, 3, 13.3, 3, 2, True)

CODES = {
    "CogVideoX-2B": COGVIDEOX,
    "CogVideoX-5B": COGVIDEOX,
    "CogVideoX1.5-5B": COGVIDEOX,
    "HunyuanVideo": HUNYUAN,
    "LTX-Video 2B": LTX,
    "LTXV 13B": LTX,
    "Open-Sora 2.0": HUNYUAN,
    # HunyuanVideo, but both passes of guidance as one batch.
    "SkyReels V1": replace(HUNYUAN, guidance_together=True),
    "SkyReels V2 1.3B": WAN,
    "SkyReels V2 14B": WAN,
    "Wan 2.1 1.3B": WAN,
    "Wan 2.1 14B": WAN,
    "Wan 2.1 I2V 14B": WAN,
}
"""By the name of the model; others are `TYPICAL`."""


@dataclass(frozen=True)
class Decoder:
    """A VAE's decoder.

    Args:
        source: where its numbers come from.
        macs_per_pixel: MACs of a pixel of a frame (`benchmarks/vae_decoders.py`).
        values: numbers that are alive at the peak, for each pixel of each frame that is decoded at once.
        picture_values: the same for each pixel of the picture, whatever the number of frames (caches).
        frames_at_once: 0: all of them.
        tile_frames: the same where it works in tiles, if that is another number.
        tile: (height, width) of a tile in pixels: that of most of diffusers' decoders.
        always: it works in tiles whether or not it is told to.
        bytes: of its numbers, where its makers run it in another format than the denoiser; 0: in the same.
        encode_macs_per_pixel: of the encoder beside it.
        kept: numbers that autograd keeps of both in training, for each pixel of each frame.
    """

    source: str
    macs_per_pixel: float
    values: float
    picture_values: float = 0.0
    frames_at_once: float = 0.0
    tile_frames: float = 0.0
    tile: tuple[float, float] = (256.0, 256.0)
    always: bool = False
    bytes: float = 0.0
    encode_macs_per_pixel: float = 0.0
    kept: float = 0.0


# Alive tensors of diffusers' decoders, and what autograd keeps of coding a clip and decoding it, seen on fake tensors
# by `benchmarks/plan_memory.py`.
_MEASURED = f"{DIFFUSERS}, run on tensors without memory"
WAN_DECODER = Decoder(
    f"AutoencoderKLWan, {_MEASURED}",
    4.29e6,
    0.0,
    4898.0,
    bytes=4.0,
    encode_macs_per_pixel=2.55e6,
    kept=10_222.0,
)
# Its tiles are half of the picture that it was made for.
COGVIDEOX_DECODER = Decoder(
    f"AutoencoderKLCogVideoX, {_MEASURED}",
    9.30e6,
    1906.0,
    7590.0,
    frames_at_once=8.0,
    tile=(240.0, 360.0),
    encode_macs_per_pixel=4.40e6,
    kept=14_039.0,
)
HUNYUAN_DECODER = Decoder(
    f"AutoencoderKLHunyuanVideo, {_MEASURED}",
    11.56e6,
    1133.0,
    640.0,
    tile_frames=16.0,
    encode_macs_per_pixel=6.06e6,
    kept=14_234.0,
)
# It norms in float32, which takes two numbers of bfloat16 for one.
LTX_DECODER = Decoder(
    f"AutoencoderKLLTXVideo, {_MEASURED}", 0.446e6, 47.0, 10.0, encode_macs_per_pixel=0.417e6, kept=924.0
)
# Its tiles of 24 x 320 x 320 lie 16, 200 and 240 apart: 3.2 times the 6.2e6 of each.
ALLEGRO_DECODER = Decoder(
    f"AutoencoderKLAllegro, {_MEASURED}", 19.8e6, 799.0, frames_at_once=24.0, tile=(320.0, 320.0), always=True
)
COSMOS_DECODER = Decoder(
    f"AutoencoderKLCosmos, {_MEASURED}", 0.277e6, 35.0, 115.0, encode_macs_per_pixel=0.150e6, kept=521.0
)
MOCHI_DECODER = Decoder(
    f"AutoencoderKLMochi, {_MEASURED}", 9.48e6, 645.0, 3514.0, encode_macs_per_pixel=2.14e6, kept=10_541.0
)
# Of a decoder that is not known: as wide as those of Hunyuan and Allegro, and a few frames at a time.
TYPICAL_DECODER = Decoder(
    "typical of others, as its own is not known", 9.3e6, 1133.0, 640.0, frames_at_once=8.0
)
DECODERS: dict[str, Decoder] = {
    "Allegro": ALLEGRO_DECODER,
    "CogVideoX-2B": COGVIDEOX_DECODER,
    "CogVideoX-5B": COGVIDEOX_DECODER,
    "CogVideoX1.5-5B": COGVIDEOX_DECODER,
    "HunyuanVideo": HUNYUAN_DECODER,
    "LTX-Video 2B": LTX_DECODER,
    "LTXV 13B": LTX_DECODER,
    "Mochi 1": MOCHI_DECODER,
    "Open-Sora 2.0": HUNYUAN_DECODER,
    "Cosmos-1.0-Diffusion-7B": COSMOS_DECODER,
    "Cosmos-1.0-Diffusion-14B": COSMOS_DECODER,
    "Cosmos-Predict2-2B": WAN_DECODER,
    "Cosmos-Predict2-14B": WAN_DECODER,
    "SkyReels V1": HUNYUAN_DECODER,
    "SkyReels V2 1.3B": WAN_DECODER,
    "SkyReels V2 14B": WAN_DECODER,
    "Wan 2.1 1.3B": WAN_DECODER,
    "Wan 2.1 14B": WAN_DECODER,
    "Wan 2.1 I2V 14B": WAN_DECODER,
}
"""By the name of the model; others are `TYPICAL_DECODER`."""
