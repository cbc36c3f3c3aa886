"""Results, units, choices and numbers as a reader writes them: in full on the page, short in figures."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from minisora.config_files import config_folder, read_yaml
from minisora.report.units import parse_unit


@dataclass(frozen=True)
class ResultWords:
    """A result in words.

    Args:
        group: heading of the page's tables that it stands under.
        label: in a table, beside its unit.
        axis: on the axis of a figure, its unit included.
        headline: whether the page opens with it.
    """

    group: str
    label: str
    axis: str
    headline: bool


@cache
def result_words() -> dict[str, ResultWords]:
    """Every result by name, in the order of the page."""
    groups = read_yaml(config_folder() / "report" / "results.yaml")
    return {
        name: ResultWords(group, row["label"], row.get("short", row["label"]), row.get("headline", False))
        for group, rows in groups.items()
        for name, row in rows.items()
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

# The back-test's columns: first those that say how well the method does.
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
BACKTEST_REST: dict[str, str] = {
    "tokens": "tokens of a clip",
    "tokens_disclosed": "tokens of a clip, disclosed",
    "tokens_factor": "tokens: predicted over disclosed",
    "params": "parameters",
    "params_disclosed": "parameters, disclosed",
    "params_factor": "parameters: predicted over disclosed",
    "flops_per_clip": "FLOPs of a clip",
    "flops_per_clip_disclosed": "FLOPs of a clip, disclosed",
    "flops_factor": "FLOPs of a clip: predicted over disclosed",
    "attention_share": "share of attention in them",
    "naive_flops_per_clip": "FLOPs of a clip, published rule",
    "naive_over_our_flops": "FLOPs of a clip: published rule over predicted",
    "gpu": "GPU",
    "gpus": "GPUs",
    "mfu_of_others": "utilisation of the other models",
    "naive_seconds": "seconds, published rule",
    "seconds_in_sample": "seconds, the model itself not left out",
    "seconds_in_sample_factor": "the same over disclosed",
    "training_gpu_hours_disclosed": "training: GPU-hours, disclosed",
    "training_mfu": "training: utilisation",
    "training_mfu_is_assumed": "training: utilisation is assumed",
    "training_mfu_implied": "training: utilisation implied",
    "training_flops": "training: FLOPs, predicted",
    "training_flops_disclosed": "training: GPU-hours × peak × utilisation, FLOPs",
    "naive_training_flops": "training: FLOPs, published rule",
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
_SETTINGS = {"per_frame": "inside frames"}
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

    `human` of numbers.js writes the same.

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
    return f"{sign}{_plain(float(mantissa))} × {_ten_to(int(exponent))}"


def numbers_script() -> str:
    """`human` as JavaScript, and numbers out of boxes, for the pages that are made in Python."""
    return (Path(__file__).parent / "numbers.js").read_text()


def _ten_to(exponent: int) -> str:
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


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
        # 14.5 to 116 million.
        low = number
    # A line breaks at "to" only.
    return " to ".join(end.replace(" ", "\u00a0") for end in (low, high))


def decades_words(decades: float | None) -> str:
    """How far a number lies beyond what was measured; nothing where it rests on no measured pass."""
    if decades is None:
        return ""
    return f"{decades:.1f} decades out" if decades > 0 else "within what was measured"


# Of what rests on passes beyond those that were measured, by how far; a reader is told what each means.
_MARKS = "*†‡§¶"


def distance_marks(distances: Iterable[float | None]) -> dict[str, str]:
    """A mark for each distance of `decades_words`, the most frequent first; numbers where there are many."""
    counted = Counter(text for text in map(decades_words, distances) if text).most_common()
    marks = _MARKS if len(counted) <= len(_MARKS) else [f"[{n}]" for n in range(1, len(counted) + 1)]
    return {text: mark for (text, _), mark in zip(counted, marks, strict=False)}


def error_words(share: float) -> str:
    """A relative error: "exact" where only the rounding of numbers is left."""
    if abs(share) < 1e-8:
        return "exact"
    return percent(share, 4) if abs(share) >= 1e-6 else "below 0.0001 %"


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


def unbroken(text: str) -> str:
    """A text whose "4 x 128" no line breaks."""
    return text.replace(" x ", "\u00a0x\u00a0")


def claim_words(name: str) -> str:
    """A claim's id as readable text."""
    text = name.replace("_", " ")
    for word, better in _CLAIM_WORDS:
        text = re.sub(rf"\b{word}\b", better, text)
    return text[0].upper() + text[1:]


# Short forms for figures, where there is little room.


def short(value: float, digits: int = 3) -> str:
    """A number with a suffix: 0.0746, 5.03, 89.2k, 15.3M, 1.2B; a power of ten from 1e15 on."""
    for size, suffix in ((1e15, ""), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"), (0, "")):
        # 999.6k is 1M at three digits.
        if abs(float(f"{value:.{digits}g}")) >= size:
            return big(value, digits) if size == 1e15 else f"{value / (size or 1):.{digits}g}{suffix}"
    raise AssertionError(value)


def big(value: float, digits: int = 2) -> str:
    """A compute: 1.1×10²⁵."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{float(mantissa):g}×{_ten_to(int(exponent))}"


def tick(value: float) -> str:
    """A tick of a logarithmic axis: 10²⁵, 2×10²⁵; as `short` below 1e9."""
    return short(value) if value < 1e9 else power(value)


def power(value: float) -> str:
    """A power of ten: 10²⁵, 2×10²⁵, 10⁻¹."""
    return big(value).removeprefix("1×")


def factor(value: float) -> str:
    """A ratio: ×2.00, ×6.06, ×804, ×0.163; a fourth digit next to one."""
    if value >= 99.5:
        return f"×{value:.0f}"
    return f"×{value:#.4g}" if 0.98 < value < 1.02 and value != 1 else f"×{value:#.3g}"


def percent(share: float, places: int = 0) -> str:
    """A share: 86 %."""
    return f"{100 * share:.{places}f} %"


def setting(value: float | str | None) -> str:
    """The value of an assumption: 20B, 524.6B, 0.36, full."""
    return short(value, 4) if isinstance(value, float) else _SETTINGS.get(str(value), str(value))
