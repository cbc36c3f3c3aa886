"""The audit: every published number, recomputed from what the report itself states, corrected and measured.

*Recomputed* takes the values that the report prints one step earlier, not better ones: whether a number
follows is asked of its own inputs (of its cited source for three that it takes from there), and answered at the
digits it is printed with. One exception: what rests on the wrong sum of minutes a day is recomputed from the right
one, so that 89k and 720k are flagged although 10.7M / 120 is 89k. *Corrected* and *measured* are the results of
those presets.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from minisora.config import config_folder
from minisora.estimate.assumptions import Assumptions, load_preset
from minisora.estimate.model import estimate, round_to_digits
from minisora.estimate.uncertainty import Interval, MonteCarlo, monte_carlo

PEAK = 989.4e12  # FLOP/s of an H100 SXM, dense bfloat16: the only peak that gives 4,211 and 10,528
MONTH = 30 * 86400.0  # seconds of the month that goes with it
HOURS_TO_YOUTUBE = 500  # of video uploaded a minute, YouTube's own figure since 2019

Printed = Mapping[str, float]


@dataclass(frozen=True)
class Claim:
    """A published number.

    Args:
        name: its id.
        published: its value; None where it stands only in a figure.
        digits: significant digits that are printed.
        unit: as the report has it.
        result: name of the model's result for it, or
        input: name of the assumption that holds it.
    """

    name: str
    published: float | None
    digits: int
    unit: str
    result: str | None
    input: str | None


@dataclass(frozen=True)
class Finding:
    """What the audit says of a claim. `interval` is (5, 50, 95 %) of the measured preset."""

    published: float | None
    recomputed: float
    follows: bool
    corrected: float
    measured: float | None
    interval: Interval | None
    note: str
    unit: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def load_claims(path: Path | None = None) -> dict[str, Claim]:
    """The shipped claims by id, in the report's order."""
    path = path or config_folder() / "estimate" / "claims.yaml"
    rows = yaml.safe_load(path.read_text())["claims"]
    return {
        name: Claim(
            name=name,
            published=None if row["published"] is None else float(row["published"]),
            digits=row["digits"],
            unit=row["unit"],
            result=row.get("result"),
            input=row.get("input"),
        )
        for name, row in rows.items()
    }


def dit_xl_params() -> float:
    """Parameters of DiT-XL/2 by arithmetic: blocks, noise-level MLP, classes, patches, head, with biases."""
    depth, d, classes, patch = 28, 1152, 1001, 2 * 2 * 4
    block = 18 * d * d + 15 * d
    sigma, head = 256 * d + d + d * d + d, 2 * d * d + 2 * d + 2 * patch * d + 2 * patch
    return float(depth * block + sigma + classes * d + patch * d + d + head)


# How the report gets from its printed inputs (p) to each number that it derives.
DERIVATIONS: dict[str, Callable[[Printed], float]] = {
    "dit_params": lambda p: dit_xl_params(),
    "dit_training_compute": lambda p: 3 * p["dit_training_images"] * p["dit_compute_per_step"],
    "dit_training_h100_months": lambda p: p["dit_training_compute"] / (PEAK * MONTH),
    "dit_training_h100_days": lambda p: p["dit_training_compute"] / (PEAK * 86400),
    "dit_training_images": lambda p: 3e6 * 256,
    "latent_frames": lambda p: 60 * 24 / 8,
    "size_multiplier": lambda p: 20e9 / p["dit_params"],
    "sora_training_compute_low": lambda p: _sora_training(p, "low"),
    "sora_training_compute_high": lambda p: _sora_training(p, "high"),
    "sora_training_h100_months_low": lambda p: _sora_training(p, "low") / (PEAK * MONTH),
    "sora_training_h100_months_high": lambda p: _sora_training(p, "high") / (PEAK * MONTH),
    "dit_compute_per_step": lambda p: 524.6e9,  # printed in the paper that it cites
    "dit_compute_per_image": lambda p: p["dit_compute_per_step"] * p["diffusion_steps"],
    "dit_break_even_images": lambda p: p["dit_training_compute"] / p["dit_compute_per_image"],
    "sora_compute_per_step": lambda p: _sora_step(p),
    "sora_compute_per_video": lambda p: _sora_step(p) * p["diffusion_steps"],
    "sora_minutes_per_h100_hour": lambda p: 3600 * PEAK / p["sora_compute_per_video"],
    "sora_break_even_low": lambda p: _sora_training(p, "low") / p["sora_compute_per_video"],
    "sora_break_even_high": lambda p: _sora_training(p, "high") / p["sora_compute_per_video"],
    "llama2_70b_compute_per_output": lambda p: 2 * 70e9 * 1000,
    "gpt4_compute_per_output": lambda p: 2 * 2 * 220e9 * 1000,
    "tiktok_minutes_per_day": lambda p: 34e6 * 30 / 60,
    "youtube_minutes_per_day": lambda p: HOURS_TO_YOUTUBE * 60.0 * 60 * 24,
    "ai_minutes_per_day": lambda p: _ai_minutes(p),
    "minutes_per_h100_day": lambda p: p["sora_minutes_per_h100_hour"] * 24,
    "demand_h100": lambda p: _ai_minutes(p) / p["minutes_per_h100_day"],
    "peak_demand_h100": lambda p: (
        _ai_minutes(p)
        / p["minutes_per_h100_day"]
        * p["utilisation_factor"]
        * p["peak_factor"]
        * p["candidates_factor"]
    ),
}

NOTES = {
    "dit_params": "arithmetic of DiT-XL/2 gives 674.8M",
    "dit_training_compute": "1.207e21 rounded to one digit, 17 % down; and these are MACs, so FLOPs are twice that: "
    "low by 2.42x in all",
    "dit_training_h100_months": "follows from the rounded 1e21 at 989.4 TFLOP/s and 30 days",
    "dit_training_h100_days": "11.70 days, from the rounded 1e21",
    "dit_training_images": "3e6 steps x 256; ImageNet's 1,281,167 images 599 times, not the 14M it names",
    "latent_frames": "60 s x 24 fps / 8",
    "size_multiplier": "20 / 0.675 = 29.63",
    "sora_training_compute_low": "1.08e25 before rounding; drops the image half (-0.6 %) and counts MACs",
    "sora_training_compute_high": "2.70e25; drops the image half (-0.6 %) and counts MACs",
    "sora_training_h100_months_low": "needs 989.4 TFLOP/s, a 30-day month, 100 % utilisation and the unrounded 1.08e25",
    "sora_training_h100_months_high": "needs 989.4 TFLOP/s, a 30-day month and 100 % utilisation",
    "dit_compute_per_step": "the paper prints 524.60 (and means GMACs); cut to 524, not rounded to 525",
    "diffusion_steps": "an input: DDPM sampling in DiT; later models take 50, distilled ones 4 to 16",
    "dit_compute_per_image": "524e9 x 250 MACs; two FLOPs each",
    "dit_break_even_images": "from the rounded 1e21; unrounded it is 3 x 768e6 / 250 = 9.216M, whatever a pass costs",
    "sora_compute_per_step": "524e9 x 30 x 180 MACs, which holds only if attention stays inside a frame",
    "sora_compute_per_video": "the stated 524e9 gives 707.4e15; 708 needs at least 524.08e9 a pass, and the paper's "
    "524.60e9 gives 708.2e15",
    "sora_minutes_per_h100_hour": "5.03 with MACs read as FLOPs; half of that with FLOPs",
    "sora_break_even_low": "only by way of the rounded 708e15; the chain from 524e9 gives 15.27M, exact inputs 18.43M",
    "sora_break_even_high": "only by way of the rounded 708e15; the chain from 524e9 gives 38.17M, exact inputs 46.08M",
    "llama2_70b_compute_per_output": "a bar in a figure, no number printed; in FLOPs, beside DiT's MACs",
    "gpt4_compute_per_output": "a bar in a figure, no number printed; in FLOPs, beside Sora's MACs: 1,609x, not 804x",
    "tiktok_minutes_per_day": "34M videos x 30 s",
    "youtube_minutes_per_day": "500 hours uploaded a minute give 43.2M",
    "ai_minutes_per_day": "17M x 50 % + 43M x 15 % = 14.95M; 10.70M is what 25 % for TikTok would give",
    "minutes_per_h100_day": "5 x 24",
    "demand_h100": "10.7M / 120 = 89.2k inherits the wrong sum; 14.95M / 120 = 124.6k",
    "peak_demand_h100": "89.2k x 8 = 713k, and 720k needs 90k; the right sum gives 997k",
}
GUESS = "an input, guessed by the report: nothing to recompute"


def _sora_training(p: Printed, end: str) -> float:
    """1e21 x 30 x (180 / 2) x data, not rounded on the way."""
    frames = p["latent_frames"] / 2  # half of the data are images, whose cost is dropped
    return p["dit_training_compute"] * p["size_multiplier"] * frames * p[f"data_multiplier_{end}"]


def _sora_step(p: Printed) -> float:
    return p["dit_compute_per_step"] * p["size_multiplier"] * p["latent_frames"]


def _ai_minutes(p: Printed) -> float:
    tiktok = p["tiktok_minutes_per_day"] * p["tiktok_ai_share"]
    return tiktok + p["youtube_minutes_per_day"] * p["youtube_ai_share"]


def agrees(published: float, recomputed: float, digits: int) -> bool:
    """Whether a number, rounded to the printed digits, is the printed one."""
    return abs(float(round_to_digits(recomputed, digits)) / published - 1) < 1e-9


def audit(
    measured: Assumptions | None = None, *, with_interval: bool = False, run: MonteCarlo | None = None
) -> dict[str, Finding]:
    """Every claim by id.

    Args:
        measured: the measured preset with a calibration applied; None: nothing was measured here.
        with_interval: give the intervals of the measured preset even so.
        run: its Monte Carlo run, if one was made already.
    """
    claims = load_claims()
    printed = {name: claim.published for name, claim in claims.items() if claim.published is not None}
    corrected = load_preset("corrected")
    corrected_results = estimate(corrected.inputs())
    intervals: Mapping[str, Interval | None] = {}
    if measured is not None or with_interval:
        intervals = (run or monte_carlo(measured or load_preset("measured"))).intervals
    measured_results = estimate(measured.inputs()) if measured is not None else None

    findings = {}
    for name, claim in claims.items():
        corrected_value: Any
        derive = DERIVATIONS.get(name)
        recomputed = derive(printed) if derive else printed[name]
        if claim.input:
            corrected_value = corrected.entries[claim.input].value
            measured_value = None  # an input of the report, not something that a measurement gives
            interval = None
        else:
            assert claim.result
            corrected_value = corrected_results[claim.result].value
            measured_value = None if measured_results is None else float(measured_results[claim.result].value)
            interval = intervals.get(claim.result)
        findings[name] = Finding(
            published=claim.published,
            recomputed=recomputed,
            follows=claim.published is None or agrees(claim.published, recomputed, claim.digits),
            corrected=float(corrected_value),
            measured=measured_value,
            interval=interval,
            note=NOTES.get(name, GUESS),
            unit=claim.unit,
        )
    return findings
