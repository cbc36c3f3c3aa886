"""The audit: every published number, recomputed from what the report itself states, corrected and measured.

*Recomputed* takes the values that the report prints one step earlier, not better ones: whether a number
follows is asked of its own inputs (of its cited source for three that it takes from there), and answered at the
digits it is printed with. One exception: what rests on the wrong sum of minutes a day is recomputed from the right
one, so that 89k and 720k are flagged although 10.7M / 120 is 89k. *Corrected* and *measured* are the results of
those presets.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from minisora.report.assumptions import Assumptions, shipped
from minisora.report.model import round_to_digits
from minisora.report.sensitivity import Interval

# FLOP/s of an H100 SXM, dense bfloat16: the only peak that gives 4,211 and 10,528.
PEAK = 989.4e12
# Seconds of the month that goes with it.
MONTH = 30 * 86400.0
# Hours of video uploaded a minute, YouTube's own figure since 2019.
HOURS_TO_YOUTUBE = 500
GUESS = "an input, guessed by the report: nothing to recompute"
_COMPUTE = "MACs as published, FLOPs as corrected and measured"

Printed = Mapping[str, float]


@dataclass(frozen=True)
class Claim:
    """A published number.

    Args:
        name: its id.
        published: its value; None where it stands only in a figure.
        digits: significant digits that are printed.
        unit: as the report has it.
        of: the model's result for it, or the assumption that holds it (a dot in its name); the name by default.
        derive: how the report gets to it from its printed numbers; None for an input.
        note: what the audit says of it.
    """

    name: str
    published: float | None
    digits: int
    unit: str
    of: str = ""
    derive: Callable[[Printed], float] | None = None
    note: str = GUESS

    @property
    def is_input(self) -> bool:
        """Whether an assumption holds it."""
        return "." in self.of

    @property
    def result(self) -> str:
        """The model's result for it."""
        return self.of or self.name


@dataclass(frozen=True)
class ClaimFinding:
    """What the audit says of a claim.

    `interval` is (5, 50, 95 %) of the measured preset, `decades_beyond` how far its measured value lies beyond the
    largest pass that was measured; None: it rests on no such pass.
    """

    published: float | None
    recomputed: float
    follows: bool
    corrected: float
    measured: float | None
    interval: Interval | None
    note: str
    unit: str
    decades_beyond: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """An entry of `claims` in report.json."""
        return asdict(self)


def dit_xl_params() -> float:
    """Parameters of DiT-XL/2 by arithmetic: blocks, noise-level MLP, classes, patches, head, with biases."""
    depth, d, classes, patch = 28, 1152, 1001, 2 * 2 * 4
    block = 18 * d * d + 15 * d
    sigma, head = 256 * d + d + d * d + d, 2 * d * d + 2 * d + 2 * patch * d + 2 * patch
    return float(depth * block + sigma + classes * d + patch * d + d + head)


def _sora_training(p: Printed, end: str) -> float:
    """1e21 x 30 x (180 / 2) x data, not rounded on the way."""
    # Half of the data are images, whose cost is dropped.
    frames = p["latent_frames"] / 2
    return p["dit_training_compute"] * p["size_multiplier"] * frames * p[f"data_multiplier_{end}"]


def _sora_step(p: Printed) -> float:
    return p["dit_compute_per_step"] * p["size_multiplier"] * p["latent_frames"]


def _ai_minutes(p: Printed) -> float:
    tiktok = p["tiktok_minutes_per_day"] * p["tiktok_ai_share"]
    return tiktok + p["youtube_minutes_per_day"] * p["youtube_ai_share"]


# The numbers that the report prints, in its order: Factorial Funds, "Under The Hood: How OpenAI's Sora Model Works"
# (M. Plappert, 2024).
# fmt: off
_CLAIMS = (
    Claim("dit_params", 675e6, 3, "parameters", of="dit.params",
          derive=lambda p: dit_xl_params(),
          note="arithmetic of DiT-XL/2 gives 674.8M"),
    Claim("dit_training_compute", 1e21, 1, _COMPUTE,
          derive=lambda p: 3 * p["dit_training_images"] * p["dit_compute_per_step"],
          note="1.207e21 rounded to one digit, 17 % down; and these are MACs, so FLOPs are twice that: "
               "low by 2.42x in all"),
    Claim("dit_training_h100_months", 0.4, 1, "H100-month", of="dit_training_gpu_months",
          derive=lambda p: p["dit_training_compute"] / (PEAK * MONTH),
          note="follows from the rounded 1e21 at 989.4 TFLOP/s and 30 days"),
    Claim("dit_training_h100_days", 12.0, 2, "H100-day", of="dit_training_gpu_days",
          derive=lambda p: p["dit_training_compute"] / (PEAK * 86400),
          note="11.70 days, from the rounded 1e21"),
    Claim("dit_training_images", 768e6, 3, "images",
          derive=lambda p: 3e6 * 256,
          note="3e6 steps x 256; ImageNet's 1,281,167 images 599 times, not the 14M it names"),
    Claim("latent_frames", 180.0, 3, "latent frames",
          derive=lambda p: 60 * 24 / 8,
          note="60 s x 24 fps / 8"),
    Claim("size_multiplier", 30.0, 2, "x",
          derive=lambda p: 20e9 / p["dit_params"],
          note="20 / 0.675 = 29.63"),
    Claim("data_multiplier_low", 4.0, 1, "x", of="sora.data_multiplier_low"),
    Claim("data_multiplier_high", 10.0, 2, "x", of="sora.data_multiplier_high"),
    Claim("sora_training_compute_low", 1.1e25, 2, _COMPUTE,
          derive=lambda p: _sora_training(p, "low"),
          note="1.08e25 before rounding; drops the image half (-0.6 %) and counts MACs"),
    Claim("sora_training_compute_high", 2.7e25, 2, _COMPUTE,
          derive=lambda p: _sora_training(p, "high"),
          note="2.70e25; drops the image half (-0.6 %) and counts MACs"),
    Claim("sora_training_h100_months_low", 4211.0, 4, "H100-month", of="sora_training_gpu_months_low",
          derive=lambda p: _sora_training(p, "low") / (PEAK * MONTH),
          note="needs 989.4 TFLOP/s, a 30-day month, 100 % utilisation and the unrounded 1.08e25"),
    Claim("sora_training_h100_months_high", 10528.0, 5, "H100-month", of="sora_training_gpu_months_high",
          derive=lambda p: _sora_training(p, "high") / (PEAK * MONTH),
          note="needs 989.4 TFLOP/s, a 30-day month and 100 % utilisation"),
    Claim("dit_compute_per_step", 524e9, 3, _COMPUTE,
          derive=lambda p: 524.6e9,
          note="the paper prints 524.60 (and means GMACs); cut to 524, not rounded to 525"),
    Claim("diffusion_steps", 250.0, 3, "steps", of="serve.steps",
          note="an input: DDPM sampling in DiT; later models take 50, distilled ones 4 to 16"),
    Claim("dit_compute_per_image", 131e12, 3, _COMPUTE,
          derive=lambda p: p["dit_compute_per_step"] * p["diffusion_steps"],
          note="524e9 x 250 MACs; two FLOPs each"),
    Claim("dit_break_even_images", 7.6e6, 2, "images",
          derive=lambda p: p["dit_training_compute"] / p["dit_compute_per_image"],
          note="from the rounded 1e21; unrounded it is 3 x 768e6 / 250 = 9.216M, whatever a pass costs"),
    Claim("sora_compute_per_step", 2.8e15, 2, _COMPUTE,
          derive=_sora_step,
          note="524e9 x 30 x 180 MACs, which holds only if attention stays inside a frame"),
    Claim("sora_compute_per_video", 708e15, 3, _COMPUTE,
          derive=lambda p: _sora_step(p) * p["diffusion_steps"],
          note="the stated 524e9 gives 707.4e15; 708 needs at least 524.08e9 a pass, "
               "and the paper's 524.60e9 gives 708.2e15"),
    Claim("sora_minutes_per_h100_hour", 5.0, 1, "minutes of video per H100-hour", of="sora_minutes_per_gpu_hour",
          derive=lambda p: 3600 * PEAK / p["sora_compute_per_video"],
          note="5.03 with MACs read as FLOPs; half of that with FLOPs"),
    Claim("sora_break_even_low", 15.3e6, 3, "minutes of video",
          derive=lambda p: _sora_training(p, "low") / p["sora_compute_per_video"],
          note="only by way of the rounded 708e15; the chain from 524e9 gives 15.27M, exact inputs 18.43M"),
    Claim("sora_break_even_high", 38.1e6, 3, "minutes of video",
          derive=lambda p: _sora_training(p, "high") / p["sora_compute_per_video"],
          note="only by way of the rounded 708e15; the chain from 524e9 gives 38.17M, exact inputs 46.08M"),
    Claim("llama2_70b_compute_per_output", None, 2, "FLOP",
          derive=lambda p: 2 * 70e9 * 1000,
          note="a bar in a figure, no number printed; in FLOPs, beside DiT's MACs"),
    Claim("gpt4_compute_per_output", None, 2, "FLOP",
          derive=lambda p: 2 * 2 * 220e9 * 1000,
          note="a bar in a figure, no number printed; in FLOPs, beside Sora's MACs: 1,609x, not 804x"),
    Claim("tiktok_minutes_per_day", 17e6, 2, "minutes/day",
          derive=lambda p: 34e6 * 30 / 60,
          note="34M videos x 30 s"),
    Claim("youtube_minutes_per_day", 43e6, 2, "minutes/day", of="demand.youtube_minutes",
          derive=lambda p: HOURS_TO_YOUTUBE * 60.0 * 60 * 24,
          note="500 hours uploaded a minute give 43.2M"),
    Claim("tiktok_ai_share", 0.5, 1, "share", of="demand.tiktok_share"),
    Claim("youtube_ai_share", 0.15, 2, "share", of="demand.youtube_share"),
    Claim("ai_minutes_per_day", 10.7e6, 3, "minutes/day",
          derive=_ai_minutes,
          note="17M x 50 % + 43M x 15 % = 14.95M; 10.70M is what 25 % for TikTok would give"),
    Claim("minutes_per_h100_day", 120.0, 3, "minutes of video per H100-day", of="sora_minutes_per_gpu_day",
          derive=lambda p: p["sora_minutes_per_h100_hour"] * 24,
          note="5 x 24"),
    Claim("demand_h100", 89e3, 2, "H100", of="demand_gpus",
          derive=lambda p: _ai_minutes(p) / p["minutes_per_h100_day"],
          note="10.7M / 120 = 89.2k inherits the wrong sum; 14.95M / 120 = 124.6k"),
    Claim("utilisation_factor", 2.0, 1, "x", of="demand.utilisation_factor"),
    Claim("peak_factor", 2.0, 1, "x", of="demand.peak_factor"),
    Claim("candidates_factor", 2.0, 1, "x", of="demand.candidates_factor"),
    Claim("peak_demand_h100", 720e3, 2, "H100", of="peak_demand_gpus",
          derive=lambda p: (_ai_minutes(p) / p["minutes_per_h100_day"]
                 * p["utilisation_factor"] * p["peak_factor"] * p["candidates_factor"]),
          note="89.2k x 8 = 713k, and 720k needs 90k; the right sum gives 997k"),
)
# fmt: on
CLAIMS: dict[str, Claim] = {claim.name: claim for claim in _CLAIMS}


def printed_values() -> dict[str, float]:
    """What the report prints, by claim."""
    return {claim.name: claim.published for claim in _CLAIMS if claim.published is not None}


def claims_of(result: str) -> list[str]:
    """The claims that publish a result: one, or its low and high end; none for most results."""
    ends = (result, f"{result}_low", f"{result}_high")
    return [claim.name for claim in _CLAIMS if not claim.is_input and claim.result in ends]


def agrees(published: float, recomputed: float, digits: int) -> bool:
    """Whether a number, rounded to the printed digits, is the printed one."""
    return abs(float(round_to_digits(recomputed, digits)) / published - 1) < 1e-9


def audit(
    measured: Assumptions | None = None,
    intervals: Mapping[str, Interval | None] | None = None,
    decades: Mapping[str, float] | None = None,
) -> dict[str, ClaimFinding]:
    """Every claim by id.

    Args:
        measured: the measured preset with a calibration applied; None: nothing was measured here.
        intervals: of the results of the measured preset; None: none are given.
        decades: that its extrapolated results lie beyond the largest measured pass.
    """
    printed, corrected = printed_values(), shipped("corrected")
    findings = {}
    for name, claim in CLAIMS.items():
        recomputed = claim.derive(printed) if claim.derive else printed[name]
        mended: Any = corrected.entries[claim.of].value if claim.is_input else corrected.best[claim.result]
        # An input of the report is nothing that a measurement gives.
        known = measured is not None and not claim.is_input
        findings[name] = ClaimFinding(
            published=claim.published,
            recomputed=recomputed,
            follows=claim.published is None or agrees(claim.published, recomputed, claim.digits),
            corrected=float(mended),
            measured=measured.best[claim.result] if measured and known else None,
            interval=None if claim.is_input else (intervals or {}).get(claim.result),
            note=claim.note,
            unit=claim.unit,
            decades_beyond=(decades or {}).get(claim.result) if known else None,
        )
    return findings
