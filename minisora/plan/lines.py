"""The numbers of an answer in words: what each is called, how sure it is, and where it comes from."""

from dataclasses import dataclass
from typing import Literal

# What an interval rests on: counts that must agree, bytes against what torch keeps, disclosed memory and time, prices;
# what is made in a time or bought for money is the less the more that takes.
Error = Literal["exact", "counts", "bytes", "memory", "time", "rate", "money", "bought"]
WORK, MEMORY, MONEY = "What it is", "Memory of a card", "Time and money"


@dataclass(frozen=True)
class Line:
    """One number.

    Args:
        name: of the result of `spend` or `vae_spend`.
        label: for people.
        unit: FLOP, bytes, s, share, times, and so on.
        error: what its interval rests on.
        kind: derived, sourced, back-tested, assumed or measured; "use" is what the share of peak and memory is.
        source: where it comes from, with what `answer.Plan` fills in.
        group: heading.
        of: questions that it answers, of "clip", "train" and "vae" (training of the VAE), with blanks between them.
        needs: it is told where the question has this; "": always.
        headline: whether it stands out.
    """

    name: str
    label: str
    unit: str
    error: Error
    kind: str
    source: str
    group: str
    of: str
    needs: str = ""
    headline: bool = False


LINES: tuple[Line, ...] = (
    Line("tokens", "tokens of a clip", "", "exact", "derived", "clip through VAE and patch", WORK, "clip train"),
    Line("pass_flops", "one pass of the denoiser", "FLOP", "counts", "derived", "{shape}", WORK, "clip train"),
    Line("denoise_flops", "denoising a clip", "FLOP", "counts", "derived", "{passes}", WORK, "clip"),
    Line(
        "eight_bit_flops", "of it in 8 bits", "FLOP", "counts", "derived", "products with weights, no attention",
        WORK, "clip", "eight_bits",
    ),
    Line("text_flops", "text encoder", "FLOP", "counts", "derived", "2 FLOPs a weight and token", WORK, "clip", "text"),
    Line("encode_flops", "VAE encode", "FLOP", "exact", "derived", "{decoder}", WORK, "vae"),
    Line("decode_flops", "VAE decode", "FLOP", "exact", "derived", "{decoder}", WORK, "clip vae"),
    Line("discriminator_flops", "discriminator", "FLOP", "exact", "derived", "of patches, PatchGAN", WORK, "vae"),
    Line("clip_flops", "a whole clip", "FLOP", "counts", "derived", "their sum", WORK, "clip", "", True),
    Line("train_flops", "training, one clip", "FLOP", "counts", "derived", "{trained}", WORK, "train vae", "", True),
    Line("recomputed_flops", "computed again", "FLOP", "counts", "derived", "1 pass", WORK, "train", "full"),
    Line("serve_weights", "weights", "bytes", "exact", "derived", "denoiser, text, VAE in {precision}", MEMORY, "clip"),
    Line("serve_activations", "activations of a pass", "bytes", "bytes", "derived", "{code}", MEMORY, "clip"),
    Line("serve_cache", "caches", "bytes", "exact", "derived", "of passes before", MEMORY, "clip", "cache"),
    Line("serve_decode", "VAE decode", "bytes", "bytes", "derived", "{decoder}{tiles}", MEMORY, "clip"),
    Line("serve_memory", "at the peak", "bytes", "memory", "back-tested", "weights {place}", MEMORY, "clip", "", True),
    Line("train_weights", "weights", "bytes", "exact", "derived", "{weights}, {shards}", MEMORY, "train vae"),
    Line("train_gradients", "gradients", "bytes", "exact", "derived", "float32, {shards}", MEMORY, "train vae"),
    Line("train_moments", "AdamW's moments", "bytes", "exact", "derived", "float32, {shards}", MEMORY, "train vae"),
    Line("train_average", "average of weights", "bytes", "exact", "derived", "float32, {shards}", MEMORY, "train vae"),
    Line("train_activations", "activations", "bytes", "bytes", "derived", "{code}, {again}", MEMORY, "train vae"),
    Line("train_memory", "at the peak", "bytes", "bytes", "derived", "their sum", MEMORY, "train vae", "", True),
    Line(
        "stretch", "slowed by memory", "times", "exact", "derived",
        "a pass takes that much longer than its products at the peak, as what they make goes through the card's "
        "memory{kernel}", MONEY, "clip train vae", "memory",
    ),
    Line("step_seconds", "one step", "s", "time", "use", "{use}", MONEY, "clip"),
    Line("clip_seconds", "one clip", "s", "time", "use", "{use}", MONEY, "clip", "", True),
    Line(
        "clip_talk_share", "communication over compute", "share", "exact", "derived", "{layout}", MONEY, "clip",
        "many",
    ),
    Line("clips_per_hour", "clips an hour, all cards", "", "rate", "use", "{use}", MONEY, "clip"),
    Line("clip_cost", "a clip", "$", "money", "sourced", "listed rent", MONEY, "clip", "", True),
    Line("clip_energy", "a clip", "kWh", "time", "sourced", "boards and hosts", MONEY, "clip"),
    Line("train_step_seconds", "one step", "s", "time", "use", "{use}", MONEY, "train vae", "", True),
    Line(
        "train_talk_share", "communication over compute", "share", "exact", "derived", "{layout}", MONEY, "train",
        "many",
    ),
    Line("train_samples_per_second", "clips a second", "", "rate", "use", "{use}", MONEY, "train vae"),
    Line("train_total_flops", "all of it", "FLOP", "counts", "derived", "{samples}", MONEY, "train vae", "samples"),
    Line("train_card_hours", "all of it", "card-hours", "time", "use", "{samples}", MONEY, "train vae", "samples"),
    Line("train_days", "all of it", "days", "time", "use", "{samples}", MONEY, "train vae", "samples", True),
    Line("train_cost", "all of it", "$", "money", "sourced", "listed rent", MONEY, "train vae", "samples", True),
    Line("train_energy", "all of it", "kWh", "time", "sourced", "boards and hosts", MONEY, "train vae", "samples"),
    Line("break_even_clips", "clips for as much", "", "time", "derived", "over one clip", MONEY, "train", "samples"),
    Line(
        "budget_samples", "clips seen for {budget}", "", "bought", "sourced", "listed rent", MONEY, "train vae",
        "budget",
    ),
)  # fmt: skip
