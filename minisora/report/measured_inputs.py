"""What this project measured, read from its files: a calibration of some machine, a toy run.

The cost law has one coefficient for each kind of work; the estimate asks how far a *measured* one is from arithmetic,
and what the fit is worth at Sora's size, decades beyond its largest point.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from minisora.errors import UserError
from minisora.files import read_json
from minisora.flops.calibration import LARGEST_CUDA_MACS, PASS_KINDS, Calibration
from minisora.report.assumptions import Assumptions
from minisora.report.cost import ATTENTIONS, PassMacs, TransformerShape, forward_macs
from minisora.report.model import Inputs, estimate, number, scaled_dit_macs, sora_shape, token_grid

# Coefficients of the cost law that arithmetic gives.
ARITHMETIC = np.array([1.0, 2.0, 1.0])
# What a calibration replaces in the cost of a pass of Sora, and of DiT-XL/2.
SORA_LAW, DIT_LAW = ("cost.linear", "cost.attention", "cost.per_sample"), ("dit.macs_per_step",)
# 16 values in and 32 out are 2 x 24.
DIT_XL_512 = (TransformerShape(28, 1152, 4608, patch_values=24), 1.0, 1024.0)


def law_features(cost: PassMacs) -> tuple[float, float, float]:
    """What the cost law reads of a pass: products, pairs of attention (two MACs each), modulation."""
    return float(cost.linear), float(cost.attention) / 2, float(cost.per_sample)


def _name(calibration: Calibration) -> str:
    return calibration.path.name if calibration.path else "a calibration just taken"


def apply_calibration(assumptions: Assumptions, calibration: Calibration) -> Assumptions:
    """The assumptions with what was measured in place of arithmetic and of the literature."""
    where = f"{_name(calibration)}: {calibration.machine}, {calibration.date[:10]}"
    ratios = calibration.coefficients / ARITHMETIC
    changed = assumptions
    for name, ratio in zip(SORA_LAW, ratios, strict=True):
        changed = changed.change(name, value=float(ratio), source=where, status="measured")
    dit, _ = calibration.predict(law_features(forward_macs(*DIT_XL_512)))
    changed = changed.change("dit.macs_per_step", value=dit, source=f"cost law of {where}", status="measured")
    changed = changed.change(
        "train.passes",
        value=calibration.train_over_forward,
        source=f"counted training step, nothing twice, over forward pass, {where}",
        status="measured",
    )
    peak = assumptions.entries["hardware.peak"].value
    assert isinstance(peak, float)
    # Another card's share says nothing of this one's.
    if calibration.utilisation and math.isclose(calibration.datasheet_peak or 0, peak, rel_tol=1e-6):
        for name, share in zip(
            ("serve.utilisation", "train.utilisation"), calibration.utilisation, strict=True
        ):
            low, high = assumptions.entries[name].low or share, assumptions.entries[name].high or share
            changed = changed.change(
                name, value=share, low=min(low, share), high=max(high, share), source=where, status="measured"
            )
    return changed


def extrapolated_macs(assumptions: Assumptions) -> dict[str, float]:
    """The largest pass that a result rests on by a measured cost law, MACs of a sample, of each result that does.

    What rests on a law moves with it, so each law is moved a little and the estimate is made again.
    """
    found: dict[str, float] = {}
    best = assumptions.best
    passes = {kind: best[f"sora_macs_per_step_{kind}"] for kind in ATTENTIONS}
    whole = {"sora": best["sora_macs_per_step"], "dit": float(number(assumptions.inputs(), DIT_LAW[0]))}
    for model, law in (("dit", DIT_LAW), ("sora", SORA_LAW)):
        values = {name: assumptions.entries[name] for name in law}
        if any(entry.status != "measured" for entry in values.values()):
            continue
        moved: dict[str, Any] = {
            # By different amounts, so that shares of a pass move too.
            name: float(entry.value or 0) * (1 + 1e-3 * (i + 1))
            for i, (name, entry) in enumerate(values.items())
        }
        for name, quantity in estimate(assumptions.inputs(moved)).items():
            if not math.isclose(float(quantity.value), best[name], rel_tol=1e-9):
                kind = next((kind for kind in ATTENTIONS if name.endswith(f"_{kind}")), None)
                macs = whole[model] if kind is None or model == "dit" else passes[kind]
                found[name] = max(found.get(name, 0.0), macs)
    return found


def decades_beyond(assumptions: Assumptions, calibration: Calibration) -> dict[str, float]:
    """How many decades each extrapolated result lies beyond the largest measured pass (below 0: within)."""
    return {name: calibration.decades_beyond(macs) for name, macs in extrapolated_macs(assumptions).items()}


def _decades_of_a_gpu(macs: float) -> float:
    """The same beyond the largest pass of a GPU's sweep."""
    return math.log10(macs / LARGEST_CUDA_MACS)


def sora_from_points(calibration: Calibration, inputs: Inputs) -> dict[str, Any]:
    """A pass of Sora by the law fitted to measured points, for each kind of attention, with its own error.

    Beside the distance to the largest measured point stands that which a sweep on a GPU would leave: its largest pass
    is known from its grid, measured or not.
    """
    frames, places = (float(part) for part in token_grid(inputs))
    shape = sora_shape(inputs)
    published = float(scaled_dit_macs(inputs, frames))
    rates = calibration.forward_time_law.coefficients
    rows = {}
    for kind in ATTENTIONS:
        features = law_features(forward_macs(shape, frames, places, kind))
        macs, error = calibration.predict(features)
        linear, attention = features[0] + features[2], 2 * features[1]
        seconds = 2 * linear * rates["s_linear"] + 2 * attention * rates["s_attention"]
        rows[kind] = {
            "macs_per_step": macs,
            "extrapolation_error": error,
            "over_per_frame_rule": macs / published,
            "decades_beyond_largest_point": calibration.decades_beyond(macs),
            "decades_beyond_a_sweep_on_a_gpu": _decades_of_a_gpu(macs),
            "seconds_per_step_on_this_machine": seconds,
        }
    return {
        "file": _name(calibration),
        "device": calibration.machine,
        "date": calibration.date,
        "points": len(calibration.points),
        "held_out_error_macs": calibration.mac_law.held_out_error,
        "held_out_error_seconds": calibration.forward_time_law.held_out_error,
        "params": float(number(inputs, "sora.params")),
        "largest_point_macs": calibration.largest_macs,
        "largest_gpu_macs": float(LARGEST_CUDA_MACS),
        "measured_peak_flops": calibration.measured_peak,
        "measured_peak_way": calibration.peak_words,
        "best_mfu": {kind: calibration.best_mfu(kind) for kind in PASS_KINDS},
        "sora_step": rows,
    }


def apply_run(assumptions: Assumptions, run: Path) -> Assumptions:
    """The assumptions with what a toy run measured: the compression of its VAE and, if `minisora evaluate steps
    1,2,4,... --out RUN` has written RUN/steps.json, how many sampling steps are enough.

    Raises:
        UserError: the folder holds no run, or a steps.json that cannot be read.
    """
    try:
        vae = yaml.safe_load((run / "config.yaml").read_text())["vae"]
        pixels, frames = vae["spatial_factor"], vae["temporal_factor"]
    except (OSError, KeyError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{run} holds no run: train one with minisora demo or minisora train") from error
    source = f"VAE of the run {run.name}"
    try:
        quality = read_json(run / "demo.json")["vae_quality"]["psnr"]
        source += f", {quality:.1f} dB on unseen clips"
    except (OSError, ValueError, KeyError, TypeError):
        # No demo, or one that has not come so far.
        pass
    changed = assumptions.change("sora.vae_frames", value=frames, source=source, status="measured")
    changed = changed.change("sora.vae_pixels", value=pixels, source=source, status="measured")
    curve = run / "steps.json"
    if not curve.is_file():
        return changed
    try:
        steps = read_json(curve)
        enough, tried = steps["enough_steps"], [point["steps"] for point in steps["points"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{curve} is not of minisora evaluate steps: run it again") from error
    source = (
        f"toy {run.name}: fewest of {', '.join(map(str, tried))} steps within 5 points of the most (95 %)"
    )
    # No finer than what was tried.
    low = max((number for number in tried if number < enough), default=enough)
    high = min((number for number in tried if number > enough), default=enough)
    return changed.change("serve.steps", value=enough, low=low, high=high, source=source, status="measured")
