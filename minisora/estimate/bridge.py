"""From one preset's result to another's in factors: assumptions change one after the other, in a fixed order.

Each factor is what the result does when that assumption takes its new value, those before it having changed
and those after it not. The product is the whole change, whatever the order; a single factor can depend on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from minisora.estimate.assumptions import Assumption, Assumptions
from minisora.estimate.model import estimate

NEGLIGIBLE = 0.005  # relative change; smaller steps are put together

# Names short enough for a row of a figure. Those with the same name change in one step.
SHORT_NAMES: dict[str, str] = {
    "count.flops_per_mac": "FLOPs a multiply-accumulate",
    "cost.linear": "measured cost of matrix products",
    "cost.attention": "measured cost of attention",
    "cost.per_sample": "measured cost of modulation",
    "dit.macs_per_step": "MACs of DiT's pass",
    "dit.round_training_compute": "rounding of DiT's training",
    "dit.guidance_passes": "DiT's passes a step",
    "train.passes": "passes a training sample",
    "train.utilisation": "utilisation in training",
    "sora.params": "Sora's parameters",
    "sora.round_size_ratio": "rounding of the size ratio",
    "sora.width_per_layer": "width over depth",
    "sora.seconds": "clip",
    "sora.height": "clip",
    "sora.width": "clip",
    "sora.vae_frames": "frames a latent frame",
    "sora.text_tokens": "tokens of the prompt",
    "sora.attention": "attention",
    "sora.video_share": "videos in training data",
    "sora.count_images": "images counted",
    "sora.data_position": "amount of training data",
    "serve.steps": "diffusion steps",
    "serve.guidance_passes": "passes a step, guidance",
    "serve.decode_macs_per_pixel": "decoder's MACs a pixel",
    "serve.text_encoder_params": "text encoder's parameters",
    "serve.utilisation": "utilisation in sampling",
    "hardware.price": "price of a GPU-hour",
    "hardware.power_overhead": "site power over GPU power",
    "demand.tiktok_share": "AI share of TikTok",
    "demand.youtube_share": "AI share of YouTube",
    "demand.utilisation_factor": "GPUs over full use",
    "demand.peak_factor": "peak over average",
    "demand.candidates_factor": "videos made for one kept",
}
_WORDS = {"per_frame": "inside frames"}
_SWITCHES = {"dit.round_training_compute", "sora.round_size_ratio", "sora.count_images"}


@dataclass(frozen=True)
class Step:
    """One step from a result to another.

    Args:
        label: what changes, from what to what.
        names: the assumptions.
        before, after: the result around it, in its unit.
    """

    label: str
    names: tuple[str, ...]
    before: float
    after: float

    @property
    def factor(self) -> float:
        """What it multiplies the result by."""
        return self.after / self.before


def short_name(name: str, entry: Assumption | None = None) -> str:
    """An assumption in few words."""
    return SHORT_NAMES.get(name) or (entry.about if entry else name)


def bridge(start: Assumptions, end: Assumptions, result: str) -> list[Step]:
    """Steps from the result of one preset to that of another; empty if it is the same.

    Steps that matter less than `NEGLIGIBLE` are one step, the last.

    Args:
        start, end: presets with the same names.
        result: name of a result.
    """
    groups: dict[str, list[str]] = {}
    for name, entry in end.entries.items():
        if entry.value != start.entries[name].value:
            groups.setdefault(short_name(name, entry), []).append(name)

    current, value = start, _result(start, result)
    steps, small = [], []
    for label, names in groups.items():
        entries = {**current.entries, **{name: end.entries[name] for name in names}}
        current = replace(current, entries=entries)
        before, value = value, _result(current, result)
        step = Step(_describe(label, names, start, end), tuple(names), before, value)
        if abs(step.factor - 1) >= NEGLIGIBLE:
            steps.append(step)
        elif step.factor != 1:
            small.append(step)
    if not small:
        return steps
    # Small steps are moved to the end, so the running value of those behind each has to be set anew.
    return _chain([*steps, _joined(small)], _result(start, result), value)


def _joined(small: Sequence[Step]) -> Step:
    product = 1.0
    for step in small:
        product *= step.factor
    label = small[0].label if len(small) == 1 else f"{len(small)} changes under {100 * NEGLIGIBLE:g} % each"
    return Step(label, tuple(name for step in small for name in step.names), 1.0, product)


def _chain(steps: Sequence[Step], start: float, end: float) -> list[Step]:
    chained, value = [], start
    for step in steps:
        following = value * step.factor
        chained.append(replace(step, before=value, after=following))
        value = following
    chained[-1] = replace(chained[-1], after=end)  # the product up to rounding
    return chained


def best_values(assumptions: Assumptions) -> dict[str, float]:
    """Every result of a preset at its best values, in the unit of the result."""
    return {name: float(quantity.value) for name, quantity in estimate(assumptions.inputs()).items()}


def _result(assumptions: Assumptions, result: str) -> float:
    return best_values(assumptions)[result]


def _describe(label: str, names: Sequence[str], start: Assumptions, end: Assumptions) -> str:
    if label == "clip":
        e = end.entries
        seconds, height, width = (e[f"sora.{key}"].value for key in ("seconds", "height", "width"))
        return f"clip: {seconds:g} s of {width:g}×{height:g}"
    (name,) = names
    old, new = start.entries[name].value, end.entries[name].value
    if name in _SWITCHES:
        return label if new else f"no {label}"
    return f"{label}: {value_words(old)} → {value_words(new)}"


def value_words(value: float | str | None) -> str:
    """A value of an assumption, in few characters: 20B, 0.36, full."""
    if not isinstance(value, float):
        return _WORDS.get(str(value), str(value))
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.4g}{suffix}"
    return f"{value:.4g}"
