"""The estimate: from assumptions to what it costs to train and to serve a Sora. Pure functions.

    F        MACs of one denoising pass: of DiT (524.6e9) or of Sora (from its clip, size and attention)
    train    passes a sample (3: forward and backward) x samples x F
    serve    F x diffusion steps x guidance passes + VAE decode + text encoder, per video
    even     train / serve: outputs after which serving has cost as much as training
    demand   minutes a day / minutes of video that a GPU makes in a day

An input is a `Quantity`, or a word for a choice (kind of attention); values may be arrays of draws. There are no
branches: a choice is `np.where` or `np.select`, so that `page` can write the same model down for the page. Symbols
of units: a *sample* is one image or one clip, a *pass* one forward evaluation of the denoiser for it.

Method and structure follow the report by Factorial Funds ("Under The Hood: How OpenAI's Sora Model Works",
2024), with every simplification it makes as a switch: MACs read as FLOPs (`count.flops_per_mac` = 1),
attention inside frames only (`sora.attention` = per_frame), images free (`sora.count_images` = 0), rounding,
100 % utilisation, one pass a step, no decoder.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from minisora.report.cost import ATTENTIONS, Attention, PassMacs, TransformerShape, forward_macs
from minisora.report.units import (
    DAYS_PER_MONTH,
    HOURS_PER_DAY,
    SECONDS_PER_HOUR,
    SECONDS_PER_MINUTE,
    Flops,
    GpuHours,
    GpuMonths,
    Macs,
    Number,
    Quantity,
)

Inputs = Mapping[str, Quantity[Any] | str]
Results = dict[str, Quantity[Any]]

# Of d^2 in an adaLN-Zero block: 4 projections, 8 MLP, 6 modulation (Peebles & Xie 2022).
BLOCK_WEIGHTS = 18
MLP_RATIO = 4
# Tokens of a 512x512 image in DiT-XL/2: (512 / 8 / 2)^2.
DIT_PLACES = 1024


def get(inputs: Inputs, name: str) -> Quantity[Any]:
    """A numeric input."""
    return cast(Quantity[Any], inputs[name])


def number(inputs: Inputs, name: str) -> Number:
    """A numeric input without its unit, for shapes and counts."""
    return get(inputs, name).value


# The denoiser.


def sora_shape(inputs: Inputs) -> TransformerShape:
    """A DiT of that many parameters and that width per layer (real numbers), its text in the sequence."""
    params, aspect = number(inputs, "sora.params"), number(inputs, "sora.width_per_layer")
    width = np.cbrt(params * aspect / BLOCK_WEIGHTS)
    return TransformerShape(
        layers=width / aspect,
        width=width,
        hidden=MLP_RATIO * width,
        text_tokens=number(inputs, "sora.text_tokens"),
        text="joint",
    )


def token_grid(inputs: Inputs) -> tuple[Number, Number]:
    """Latent frames of a clip, and tokens in each."""
    frames = number(inputs, "sora.seconds") * number(inputs, "sora.fps") / number(inputs, "sora.vae_frames")
    cell = number(inputs, "sora.vae_pixels") * number(inputs, "sora.patch")
    return frames, number(inputs, "sora.height") * number(inputs, "sora.width") / cell**2


def sora_pass(inputs: Inputs, frames: Number, kind: Attention) -> PassMacs:
    """MACs of one pass over a clip of that many latent frames, by the (calibrated) law of cost."""
    exact = forward_macs(sora_shape(inputs), frames, token_grid(inputs)[1], kind)
    return PassMacs(
        linear=exact.linear * number(inputs, "cost.linear"),
        attention=exact.attention * number(inputs, "cost.attention"),
        per_sample=exact.per_sample * number(inputs, "cost.per_sample"),
    )


def scaled_dit_macs(inputs: Inputs, frames: Number) -> Number:
    """The report's rule: DiT's pass x size ratio x latent frames (and x places, for another frame size)."""
    exact = number(inputs, "sora.params") / number(inputs, "dit.params")
    ratio = np.where(number(inputs, "sora.round_size_ratio"), np.maximum(1.0, np.rint(exact)), exact)
    return number(inputs, "dit.macs_per_step") * ratio * frames * token_grid(inputs)[1] / DIT_PLACES


def sora_macs(inputs: Inputs, frames: Number) -> Number:
    """MACs of one pass over a clip of that many latent frames, by the chosen kind of attention."""
    chosen = cast(Any, inputs["sora.attention"])
    macs = {"per_frame": scaled_dit_macs(inputs, frames)}
    macs |= {kind: sora_pass(inputs, frames, kind).total for kind in ATTENTIONS}
    return np.select([chosen == kind for kind in macs], list(macs.values()), np.nan)


def per_pass(macs: Number) -> Quantity[Macs]:
    """MACs as a cost of one pass."""
    return Quantity(macs, "MAC/pass")


# Compute, hardware, energy, money.


def flops(inputs: Inputs, macs: Quantity[Macs]) -> Quantity[Flops]:
    """MACs in the unit that the estimate calls FLOPs: two each, or one as the report reads them."""
    return macs * get(inputs, "count.flops_per_mac")


def gpu_hours(inputs: Inputs, compute: Quantity[Flops], utilisation: str) -> Quantity[GpuHours]:
    """Hours of one GPU at a share of its datasheet peak."""
    speed = get(inputs, "hardware.peak") * get(inputs, utilisation)
    return compute / speed / SECONDS_PER_HOUR


def gpu_months(hours: Quantity[GpuHours]) -> Quantity[GpuMonths]:
    """Months of 30 days."""
    return hours / HOURS_PER_DAY / DAYS_PER_MONTH


def energy(inputs: Inputs, hours: Quantity[Any]) -> Quantity[Any]:
    """Of the GPUs and what they need around them."""
    return hours * get(inputs, "hardware.power") * get(inputs, "hardware.power_overhead")


def cost(inputs: Inputs, hours: Quantity[Any]) -> Quantity[Any]:
    """Rent of the GPUs."""
    return hours * get(inputs, "hardware.price")


# The four parts of the report.


def dit_training(inputs: Inputs) -> Quantity[Any]:
    """Compute that trained DiT-XL/2 at 512x512: passes x steps x batch x F."""
    samples = get(inputs, "dit.training_steps") * get(inputs, "dit.batch")
    macs = get(inputs, "train.passes") * samples * get(inputs, "dit.macs_per_step")
    compute = flops(inputs, macs)
    rounded = round_to_digits(compute.value, 1)
    return Quantity(
        np.where(number(inputs, "dit.round_training_compute"), rounded, compute.value), compute.powers
    )


def training(inputs: Inputs, data_multiplier: Number) -> Quantity[Any]:
    """Compute that trains Sora: DiT's, x data, x the ratio of an average Sora pass to DiT's pass."""
    share = number(inputs, "sora.video_share")
    videos = share * sora_macs(inputs, token_grid(inputs)[0])
    images = (1 - share) * sora_macs(inputs, 1.0)
    mix = np.where(number(inputs, "sora.count_images"), videos + images, videos)
    ratio = per_pass(data_multiplier * mix) / get(inputs, "dit.macs_per_step")
    return dit_training(inputs) * ratio


def video_compute(inputs: Inputs) -> Results:
    """Compute of one generated clip, by part, per sample."""
    passes = get(inputs, "serve.steps") * get(inputs, "serve.guidance_passes")
    denoise = per_pass(sora_macs(inputs, token_grid(inputs)[0])) * passes
    pixels = number(inputs, "sora.seconds") * number(inputs, "sora.fps")
    pixels = pixels * number(inputs, "sora.height") * number(inputs, "sora.width")
    decode = get(inputs, "serve.decode_macs_per_pixel") * Quantity(pixels, "pixel/sample")
    encoder = get(inputs, "serve.text_encoder_params") * Quantity(1.0, "MAC/parameter/token")
    tokens: Quantity[Any] = Quantity(number(inputs, "sora.text_tokens"), "token/sample")
    # The empty prompt is encoded too.
    guided = number(inputs, "serve.guidance_passes")
    parts = {"denoise": denoise, "decode": decode, "text": encoder * tokens * guided}
    return {name: flops(inputs, macs) for name, macs in parts.items()}


def data_multiplier(inputs: Inputs) -> Number:
    """Sora's training samples over DiT's: between the low and the high guess, on a log scale."""
    low, high = number(inputs, "sora.data_multiplier_low"), number(inputs, "sora.data_multiplier_high")
    return low * (high / low) ** number(inputs, "sora.data_position")


def estimate(inputs: Inputs) -> Results:
    """Every result by name.

    Args:
        inputs: every assumption, as `assumptions.Assumptions.inputs` gives them.

    Raises:
        UnitError: an input has another unit than its formula needs.
    """
    results: Results = {}

    # DiT: one step, one image, the whole training.
    dit_step = flops(inputs, get(inputs, "dit.macs_per_step"))
    dit_image = dit_step * get(inputs, "dit.sampling_steps") * get(inputs, "dit.guidance_passes")
    dit_train = dit_training(inputs).named("FLOP")
    dit_hours = gpu_hours(inputs, dit_train, "train.utilisation")
    results["dit_compute_per_step"] = dit_step.named("FLOP/pass")
    results["dit_compute_per_image"] = dit_image.named("FLOP/sample")
    results["dit_training_images"] = (get(inputs, "dit.training_steps") * get(inputs, "dit.batch")).named(
        "sample"
    )
    results["dit_training_compute"] = dit_train
    results["dit_training_gpu_days"] = (dit_hours / HOURS_PER_DAY).named("GPU*day")
    results["dit_training_gpu_months"] = gpu_months(dit_hours).named("GPU*month")
    results["dit_break_even_images"] = (dit_train / dit_image).named("sample")

    # Sora: one pass, by every kind of attention.
    frames, places = token_grid(inputs)
    results["latent_frames"] = Quantity(frames)
    results["tokens_per_clip"] = Quantity(frames * places, "token")
    results["size_multiplier"] = (get(inputs, "sora.params") / get(inputs, "dit.params")).named("")
    step = per_pass(sora_macs(inputs, frames))
    results["sora_macs_per_step"] = step
    results["sora_compute_per_step"] = flops(inputs, step).named("FLOP/pass")
    reported = scaled_dit_macs(inputs, frames)
    results["sora_macs_per_step_per_frame"] = per_pass(reported)
    for kind in ATTENTIONS:
        one = sora_pass(inputs, frames, kind)
        results[f"sora_macs_per_step_{kind}"] = per_pass(one.total)
        results[f"sora_step_over_per_frame_{kind}"] = Quantity(one.total / reported)
        results[f"attention_share_{kind}"] = Quantity(one.attention_share)

    # Sora: one clip.
    parts = video_compute(inputs)
    video = (parts["denoise"] + parts["decode"] + parts["text"]).named("FLOP/sample")
    minutes = get(inputs, "sora.seconds") / SECONDS_PER_MINUTE
    video_hours = gpu_hours(inputs, video, "serve.utilisation")
    speed = (minutes / video_hours).named("min/GPU/h")
    results["sora_compute_per_video"] = video
    results["sora_decode_compute_per_video"] = parts["decode"]
    results["sora_text_compute_per_video"] = parts["text"]
    results["sora_compute_per_minute"] = (video / minutes).named("FLOP/min")
    results["sora_minutes_per_gpu_hour"] = speed
    results["sora_minutes_per_gpu_day"] = (speed * HOURS_PER_DAY).named("min/GPU/day")
    results["sora_cost_per_minute"] = (cost(inputs, video_hours) / minutes).named("$/min")
    results["sora_energy_per_minute"] = (energy(inputs, video_hours) / minutes).named("kW*h/min")

    # Sora: training, and where serving overtakes it.
    for end, data in (
        ("", data_multiplier(inputs)),
        ("_low", number(inputs, "sora.data_multiplier_low")),
        ("_high", number(inputs, "sora.data_multiplier_high")),
    ):
        compute = training(inputs, data).named("FLOP")
        hours = gpu_hours(inputs, compute, "train.utilisation")
        results[f"sora_training_compute{end}"] = compute
        results[f"sora_training_gpu_months{end}"] = gpu_months(hours).named("GPU*month")
        results[f"sora_training_cost{end}"] = cost(inputs, hours).named("$")
        results[f"sora_training_energy{end}"] = energy(inputs, hours).named("kW*h")
        results[f"sora_break_even{end}"] = (compute / (video / minutes)).named("min")
    seen = get(inputs, "dit.training_steps") * get(inputs, "dit.batch") * data_multiplier(inputs)
    videos = (seen * number(inputs, "sora.video_share")).named("sample")
    results["sora_training_videos"] = Quantity(videos.value)
    results["sora_training_hours_of_video"] = (videos * get(inputs, "sora.seconds") / SECONDS_PER_HOUR).named(
        "h"
    )
    over = results["sora_training_compute"] / get(inputs, "compare.movie_gen_flops")
    results["sora_training_over_movie_gen"] = over.named("")

    # Other models, per output, in the unit that the preset calls FLOPs.
    token = get(inputs, "llm.flops_per_parameter") * get(inputs, "llm.tokens")
    results["llama2_70b_compute_per_output"] = (get(inputs, "llm.llama2_params") * token).named("FLOP")
    results["gpt4_compute_per_output"] = (get(inputs, "llm.gpt4_active_params") * token).named("FLOP")
    results["sora_over_gpt4"] = Quantity(video.value / results["gpt4_compute_per_output"].value)
    results["dit_over_llama2_70b"] = Quantity(
        dit_image.value / results["llama2_70b_compute_per_output"].value
    )

    # Demand.
    tiktok = get(inputs, "demand.tiktok_videos") * get(inputs, "demand.tiktok_seconds") / SECONDS_PER_MINUTE
    youtube = get(inputs, "demand.youtube_minutes")
    ai_minutes = tiktok * get(inputs, "demand.tiktok_share") + youtube * get(inputs, "demand.youtube_share")
    gpus = (ai_minutes / results["sora_minutes_per_gpu_day"]).named("GPU")
    peak = gpus * get(inputs, "demand.utilisation_factor")
    peak = peak * get(inputs, "demand.peak_factor") * get(inputs, "demand.candidates_factor")
    results["tiktok_minutes_per_day"] = tiktok.named("min/day")
    results["ai_minutes_per_day"] = ai_minutes.named("min/day")
    results["demand_gpus"] = gpus
    results["peak_demand_gpus"] = peak.named("GPU")
    results["peak_demand_power"] = (peak * get(inputs, "hardware.power")).named("kW")
    return results


def round_to_digits(value: Number, digits: int) -> Number:
    """To that many significant decimal digits, as printed figures are."""
    if isinstance(value, int):
        # numpy takes no whole number beyond 64 bits.
        value = float(value)
    scale = 10.0 ** (np.floor(np.log10(np.abs(value))) - digits + 1)
    return np.rint(value / scale) * scale
