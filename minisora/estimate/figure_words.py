"""Numbers, results and presets as figures write them: short, for there is little room."""

import math

from minisora.estimate.assumptions import Assumptions


def preset_title(assumptions: Assumptions) -> str:
    """A preset's name, or what stands for one too long to draw."""
    name = assumptions.preset.replace("_", " ")
    return name if len(name) <= 18 else "of this report"


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(value: float) -> str:
    """A tick of a logarithmic axis: 10²⁵, 2×10²⁵."""
    exponent = math.floor(math.log10(value) + 1e-9)
    lead = value / 10.0**exponent
    tail = f"10{str(exponent).translate(_SUPERSCRIPTS)}"
    return tail if abs(lead - 1) < 1e-9 else f"{lead:.3g}×{tail}"


def big(value: float, digits: int = 2) -> str:
    """A compute: 1.1×10²⁵."""
    exponent = math.floor(math.log10(abs(value)))
    if round(value / 10.0**exponent, digits - 1) >= 10:
        exponent += 1
    return f"{float(f'{value / 10.0**exponent:.{digits - 1}f}'):g}×10{str(exponent).translate(_SUPERSCRIPTS)}"


def short(value: float, digits: int = 3) -> str:
    """A count as prose has it: 0.0746, 5.03, 89k, 15.3M, 1.2B; a power of ten beyond that."""
    for size, suffix in ((1e15, ""), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"), (0, "")):
        # 999.6k is 1M at three digits.
        if abs(float(f"{value:.{digits}g}")) >= size:
            if size == 1e15:
                return big(value, digits)
            scaled = float(f"{value / (size or 1):.{digits}g}")
            return f"{scaled:,.0f}{suffix}" if scaled >= 100 else f"{scaled:.{digits}g}{suffix}"
    raise AssertionError(value)


def factor(value: float) -> str:
    """A ratio: ×2.00, ×6.06, ×804, ×0.163; a fourth digit next to one."""
    if value >= 99.5:
        return f"×{value:.0f}"
    return f"×{value:#.4g}" if 0.98 < value < 1.02 and value != 1 else f"×{value:#.3g}"


def percent(share: float, places: int = 0) -> str:
    """A share: 86 %."""
    return f"{100 * share:.{places}f} %"


RESULT_WORDS: dict[str, str] = {
    "sora_training_compute": "training compute, FLOP",
    "sora_training_compute_low": "training compute with least data, FLOP",
    "sora_training_compute_high": "training compute with most data, FLOP",
    "sora_minutes_per_gpu_hour": "minutes of video per GPU-hour",
    "sora_break_even": "minutes of video until serving cost as much as training",
    "peak_demand_gpus": "GPUs for peak demand",
}
"""What an axis says of a result; its name where there is nothing here."""


def tick_words(value: float) -> str:
    """A tick of an axis of a result."""
    return power(value) if value >= 1e9 else short(value)


def number_words(value: float, digits: int = 3) -> str:
    """A result in a figure: 0.51, 15.3M, 2.7×10²⁵."""
    return big(value, digits) if value >= 1e15 else short(value, digits)
