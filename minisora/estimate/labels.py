"""Words for the page: results, units and choices as a reader would say them."""

import math
import re
from typing import Any

from minisora.estimate.units import parse_unit

RESULT_GROUPS: dict[str, dict[str, str]] = {
    "Sora: training": {
        "sora_training_compute": "training compute",
        "sora_training_compute_low": "training compute, least data",
        "sora_training_compute_high": "training compute, most data",
        "sora_training_gpu_months": "GPU-months of training",
        "sora_training_gpu_months_low": "GPU-months of training, least data",
        "sora_training_gpu_months_high": "GPU-months of training, most data",
        "sora_training_cost": "rent of the training",
        "sora_training_cost_low": "rent of the training, least data",
        "sora_training_cost_high": "rent of the training, most data",
        "sora_training_energy": "energy of the training",
        "sora_training_energy_low": "energy of the training, least data",
        "sora_training_energy_high": "energy of the training, most data",
        "sora_training_videos": "videos seen in training",
        "sora_training_hours_of_video": "hours of video seen in training",
        "sora_training_over_movie_gen": "training compute over Movie Gen's, the largest disclosed",
    },
    "Sora: one clip": {
        "sora_minutes_per_gpu_hour": "minutes of video per GPU-hour",
        "sora_minutes_per_gpu_day": "minutes of video per GPU-day",
        "sora_cost_per_minute": "rent per minute of video",
        "sora_energy_per_minute": "energy per minute of video",
        "sora_compute_per_video": "compute per clip",
        "sora_compute_per_minute": "compute per minute of video",
        "sora_decode_compute_per_video": "of a clip: decoding latents to pixels",
        "sora_text_compute_per_video": "of a clip: encoding the prompt",
    },
    "Sora: where serving overtakes training": {
        "sora_break_even": "minutes made until serving overtakes training",
        "sora_break_even_low": "minutes until then, least data",
        "sora_break_even_high": "minutes until then, most data",
    },
    "Demand": {
        "tiktok_minutes_per_day": "video uploaded to TikTok",
        "ai_minutes_per_day": "video made by AI",
        "demand_gpus": "GPUs for average demand",
        "peak_demand_gpus": "GPUs for peak demand",
        "peak_demand_power": "power of those GPUs",
    },
    "Sora: one pass of the denoiser": {
        "latent_frames": "latent frames of a clip",
        "tokens_per_clip": "tokens of a clip",
        "size_multiplier": "parameters of Sora over those of DiT",
        "sora_macs_per_step": "multiply-accumulates of a pass",
        "sora_compute_per_step": "compute of a pass",
        "sora_macs_per_step_per_frame": "a pass by the published rule (DiT × latent frames)",
        "sora_macs_per_step_full": "a pass with full attention",
        "sora_step_over_per_frame_full": "full attention over the published rule",
        "attention_share_full": "share of attention in it, full",
        "sora_macs_per_step_factorised": "a pass with factorised attention",
        "sora_step_over_per_frame_factorised": "factorised attention over the published rule",
        "attention_share_factorised": "share of attention in it, factorised",
        "sora_macs_per_step_divided": "a pass with divided attention",
        "sora_step_over_per_frame_divided": "divided attention over the published rule",
        "attention_share_divided": "share of attention in it, divided",
    },
    "DiT-XL/2, images of 512 × 512": {
        "dit_compute_per_step": "compute of a pass",
        "dit_compute_per_image": "compute per image",
        "dit_training_images": "images seen in training",
        "dit_training_compute": "training compute",
        "dit_training_gpu_days": "GPU-days of training",
        "dit_training_gpu_months": "GPU-months of training",
        "dit_break_even_images": "images made until serving overtakes training",
    },
    "Other models": {
        "llama2_70b_compute_per_output": "Llama 2 70B, compute of an answer",
        "gpt4_compute_per_output": "GPT-4, compute of an answer",
        "sora_over_gpt4": "a clip of Sora over an answer of GPT-4",
        "dit_over_llama2_70b": "an image of DiT over an answer of Llama 2 70B",
    },
}
RESULTS: dict[str, str] = {name: label for group in RESULT_GROUPS.values() for name, label in group.items()}

# What the page opens with, and keeps in sight while a reader moves assumptions: a result, its short name, and
# the claims that published it (two: from the first to the second).
HEADLINE: dict[str, tuple[str, tuple[str, ...]]] = {
    "sora_training_gpu_months": (
        "GPU-months to train",
        ("sora_training_h100_months_low", "sora_training_h100_months_high"),
    ),
    "sora_training_cost": ("rent of the training", ()),
    "sora_minutes_per_gpu_hour": ("minutes of video per GPU-hour", ("sora_minutes_per_h100_hour",)),
    "sora_cost_per_minute": ("rent per minute of video", ()),
    "sora_break_even": (
        "minutes of video until serving overtakes training",
        ("sora_break_even_low", "sora_break_even_high"),
    ),
    "peak_demand_gpus": ("GPUs for peak demand", ("peak_demand_h100",)),
}

UNITS: dict[str, str] = {
    "GPU": "GPUs",
    "GPU*day": "GPU-days",
    "GPU*month": "GPU-months",
    "kW*h": "kWh",
    "kW*h/min": "kWh per minute",
    "min": "minutes",
    "min/day": "minutes a day",
    "min/GPU/h": "minutes per GPU-hour",
    "min/GPU/day": "minutes per GPU-day",
    "$/min": "per minute",
    "$/GPU/h": "$ per GPU-hour",
    "kW/GPU": "kW per GPU",
    "FLOP/s/GPU": "FLOP/s per GPU",
    "FLOP/min": "FLOP per minute",
    "token": "tokens",
    "sample": "images",
    "s/sample": "s",
    "frame/s": "frames per s",
    "pass/sample": "passes per sample",
    "sample/step": "images per step",
    "step": "steps",
    "pixel": "pixels",
    "parameter": "parameters",
    "video/day": "videos a day",
    "s/video": "s",
    "FLOP/parameter/token": "FLOP per parameter and token",
    "$": "",
    "h": "",
}

# The back-test's columns that say how well the method does; the others are folded away.
BACKTEST: dict[str, str] = {
    "model": "model",
    "case": "case",
    "grade": "source",
    "seconds_disclosed": "seconds, disclosed",
    "seconds": "seconds, predicted",
    "seconds_factor": "predicted over disclosed",
    "naive_seconds_factor": "published rule over disclosed",
    "mfu": "utilisation implied",
    "training_factor": "training: predicted over GPU-hours × peak × utilisation",
    "naive_training_factor": "training: published rule over the same",
}
IMPLIED: dict[str, str] = {
    "median_mfu": "utilisation of the median model",
    "median_mfu_of_one_gpu": "the same, of clips on one GPU",
    "time_correction": "seconds: disclosed over predicted",
    "naive_time_correction": "seconds: disclosed over published rule",
    "training_correction": "training: disclosed over predicted",
    "naive_training_correction": "training: disclosed over published rule",
    "minutes_per_h100_hour_by_the_report": "Sora, minutes of video per H100-hour, published rule",
    "minutes_per_h100_hour": "Sora, minutes of video per H100-hour, back-tested",
}

CHOICES: dict[str, str] = {
    "per_frame": "inside each frame (published rule)",
    "full": "full: all of space and time",
    "factorised": "factorised: space and time in turn",
    "divided": "divided: space, then time, in every block",
}

ASSUMPTION_GROUPS: dict[str, str] = {
    "sora": "The clip and the model",
    "serve": "Serving",
    "train": "Training",
    "hardware": "Hardware",
    "demand": "Demand",
    "count": "Counting",
    "cost": "Cost law, measured over arithmetic",
    "dit": "DiT-XL/2",
    "llm": "Language models",
    "compare": "For comparison",
}

_CLAIM_WORDS = (
    ("dit", "DiT"), ("sora", "Sora"), ("h100", "H100"), ("llama2 70b", "Llama 2 70B"), ("gpt4", "GPT-4"),
    ("tiktok", "TikTok"), ("youtube", "YouTube"), ("ai", "AI"), ("low", "(low)"), ("high", "(high)"),
)  # fmt: skip

NOTHING = "–"
_UNITS = {parse_unit(unit): words for unit, words in UNITS.items()}
_WORDS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def is_compute(unit: str) -> bool:
    """Whether numbers of this unit are written with a power of ten rather than "million"."""
    return unit.startswith(("FLOP", "MAC"))


def unit_words(unit: str) -> str:
    """A unit as written behind a number; one without words of its own as it is, "/" read as "per"."""
    return _UNITS.get(parse_unit(unit), unit.replace("*", "-").replace("/", " per "))


def unit_beside(label: str, unit: str) -> str:
    """The words of a unit, or nothing where the label says them already."""
    words = unit_words(unit)
    return "" if all(word in label for word in words.split()) else words


def human(value: float | None, unit: str = "", digits: int = 4) -> str:
    """A number as a reader would write it: 4,211, 15.3 million, 2.42 × 10²⁵, $0.35.

    `human` of controls.js writes the same.

    Args:
        value: None and what is not finite become a dash.
        unit: only its kind is used: dollars stand in front, compute takes powers of ten.
        digits: significant; a number of five digits before the point keeps them if four are asked for.
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    size, sign = abs(value), ("-" if value < 0 else "") + ("$" if unit.startswith("$") else "")
    if 1e4 <= size < 1e5 and digits >= 4:
        digits = 5
    size = float(f"{size:.{digits}g}")
    if size == 0 or 1e-3 <= size < (1e5 if is_compute(unit) else 1e6):
        return sign + _plain(size)
    if 1e6 <= size < 1e15 and not is_compute(unit):
        scale, word = next(pair for pair in _WORDS if size >= pair[0])
        return f"{sign}{_plain(float(f'{size / scale:.{digits}g}'))} {word}"
    mantissa, exponent = f"{size:.{digits - 1}e}".split("e")
    return f"{sign}{_plain(float(mantissa))} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def _plain(value: float) -> str:
    text = f"{value:,.10f}"
    return text.rstrip("0").rstrip(".")


def interval_words(interval: Any, unit: str = "", digits: int = 3) -> str:
    """The ends of an interval, whether or not it carries its middle."""
    if not interval:
        return NOTHING
    low, high = human(interval[0], unit, digits), human(interval[-1], unit, digits)
    number, _, scale = low.partition(" ")
    if scale and high.endswith(scale):
        low = number  # 14.5 to 116 million
    return " to ".join(end.replace(" ", "\u00a0") for end in (low, high))  # a line breaks at "to" only


def column_unit(key: str) -> str:
    """The unit, as far as it changes how numbers are written, of a back-test column."""
    return "FLOP" if "flops" in key and "over" not in key and "factor" not in key else ""


def cell_words(value: Any, unit: str = "") -> str:
    """Any value of a back-test row as text."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        # A year is no quantity: 2,024 would be wrong.
        return str(value) if isinstance(value, int) and 1990 <= value < 2100 else human(float(value), unit)
    if isinstance(value, list | tuple):
        return (" to " if all(isinstance(v, float) for v in value) else ", ").join(map(cell_words, value))
    if isinstance(value, dict):
        return "; ".join(f"{key.replace('_', ' ')} {cell_words(v)}" for key, v in value.items())
    return str(value)


def claim_words(name: str) -> str:
    """A claim's id as readable text."""
    text = name.replace("_", " ")
    for word, better in _CLAIM_WORDS:
        text = re.sub(rf"\b{word}\b", better, text)
    return text[0].upper() + text[1:]
