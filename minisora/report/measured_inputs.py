"""What this project measured, read from its files: a calibration of some machine, a toy run.

No torch: a calibration made on a GPU is read on a laptop. The cost law has one coefficient for each kind of
work; the estimate asks how far a *measured* one is from arithmetic, and what the fit is worth at Sora's size,
decades beyond its largest point.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from minisora.errors import UserError
from minisora.files import read_json
from minisora.report.assumptions import Assumptions
from minisora.report.cost import ATTENTIONS, PassMacs, TransformerShape, forward_macs
from minisora.report.model import Inputs, number, scaled_dit_macs, sora_shape, token_grid

# Of minisora.flops.calibration.
FORMAT = 1
# Coefficients of the cost law that arithmetic gives.
ARITHMETIC = np.array([1.0, 2.0, 1.0])
# 16 values in and 32 out are 2 x 24.
DIT_XL_512 = (TransformerShape(28, 1152, 4608, patch_values=24), 1.0, 1024.0)


@dataclass(frozen=True)
class MachineCalibration:
    """A calibration of one machine.

    Args:
        path: its file.
        features: of every point, (tokens x weights a token meets, pairs of attention, weights a sample meets).
        macs: counted at every point.
        coefficients: of the cost law, fitted to all but the held-out points.
        held_out_error: worst relative error of the law there.
        train_over_forward: FLOPs of a training step, what is computed twice left out as MFU leaves it out, over those
            of a forward pass, at the largest point.
        seconds: coefficients of the time law of a forward pass: a second a FLOP, linear and attention.
        seconds_error: worst relative error of the time law on held-out points.
        utilisation: share of the datasheet peak at the largest point, (forward, train); None without a datasheet.
        peak: of the datasheet, FLOP/s.
        device: name and precision.
        date: of the measurement.
    """

    path: Path
    features: np.ndarray
    macs: np.ndarray
    coefficients: np.ndarray
    held_out_error: float
    train_over_forward: float
    seconds: tuple[float, float]
    seconds_error: float
    utilisation: tuple[float, float] | None
    peak: float | None
    device: str
    date: str

    def predict(self, features: Sequence[float]) -> tuple[float, float]:
        """MACs by the law at these features, and its relative error there.

        The error is the largest change of the prediction when any one measured point is left out and the law
        is fitted again: what the fit itself is worth at that distance.
        """
        at = np.asarray(features, dtype=float)
        best = float(at @ self.coefficients)
        others = [
            float(at @ _fit(np.delete(self.features, i, 0), np.delete(self.macs, i)))
            for i in range(len(self.macs))
        ]
        return best, max(abs(other / best - 1) for other in others)

    def decades_beyond(self, macs: float) -> float:
        """How many powers of ten lie between the largest measured pass and this one."""
        return math.log10(macs / self.macs.max())


def read_calibration(path: Path) -> MachineCalibration:
    """A file written by `minisora calibrate`.

    Raises:
        UserError: it is missing, of another format, or no calibration at all.
    """
    try:
        tree = read_json(path)
        if tree["format"] != FORMAT:
            raise UserError(f"{path} has format {tree['format']}, not {FORMAT}: run minisora calibrate again")
        points, laws, device = tree["points"], tree["laws"], tree["device"]
        trained = [point for point in points if point["train_flops"]]
        largest = max(trained, key=lambda point: point["macs"])
        law = laws["forward_macs"]
        return MachineCalibration(
            path=path,
            features=np.array(
                [[p["tokens"] * p["token_params"], p["attention_pairs"], p["sample_params"]] for p in points],
                dtype=float,
            ),
            macs=np.array([point["macs"] for point in points], dtype=float),
            coefficients=np.array([law["coefficients"][name] for name in "abc"], dtype=float),
            held_out_error=float(law["held_out_error"]),
            train_over_forward=largest["model_flops"] / largest["forward_flops"],
            seconds=(
                float(laws["forward_seconds"]["coefficients"]["s_linear"]),
                float(laws["forward_seconds"]["coefficients"]["s_attention"]),
            ),
            seconds_error=float(laws["forward_seconds"]["held_out_error"]),
            utilisation=(largest["forward_mfu_datasheet"], largest["train_mfu_datasheet"])
            if tree["datasheet_peak_flops"]
            else None,
            peak=tree["datasheet_peak_flops"],
            device=f"{device['name'] or device['type']}, {device['dtype']}",
            date=tree["date"],
        )
    except FileNotFoundError as error:
        raise UserError(f"no calibration at {path}: make one with minisora calibrate --out {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path} is not a calibration: make one with minisora calibrate") from error


def _fit(features: np.ndarray, macs: np.ndarray) -> np.ndarray:
    """The cost law by least squares of relative errors."""
    return np.linalg.lstsq(features / macs[:, None], np.ones(len(macs)), rcond=None)[0]


def law_features(cost: PassMacs) -> tuple[float, float, float]:
    """What the cost law reads of a pass: products, pairs of attention (two MACs each), modulation."""
    return float(cost.linear), float(cost.attention) / 2, float(cost.per_sample)


def apply_calibration(assumptions: Assumptions, calibration: MachineCalibration) -> Assumptions:
    """The assumptions with what was measured in place of arithmetic and of the literature."""
    where = f"{calibration.path.name}: {calibration.device}, {calibration.date[:10]}"
    ratios = calibration.coefficients / ARITHMETIC
    changed = assumptions
    for name, ratio in zip(("cost.linear", "cost.attention", "cost.per_sample"), ratios, strict=True):
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
    if calibration.utilisation and calibration.peak and math.isclose(calibration.peak, peak, rel_tol=1e-6):
        for name, share in zip(
            ("serve.utilisation", "train.utilisation"), calibration.utilisation, strict=True
        ):
            low, high = assumptions.entries[name].low or share, assumptions.entries[name].high or share
            changed = changed.change(
                name, value=share, low=min(low, share), high=max(high, share), source=where, status="measured"
            )
    return changed


def sora_from_points(calibration: MachineCalibration, inputs: Inputs) -> dict[str, Any]:
    """A pass of Sora by the law fitted to measured points, for each kind of attention, with its own error."""
    frames, places = (float(part) for part in token_grid(inputs))
    shape = sora_shape(inputs)
    published = float(scaled_dit_macs(inputs, frames))
    rows = {}
    for kind in ATTENTIONS:
        features = law_features(forward_macs(shape, frames, places, kind))
        macs, error = calibration.predict(features)
        linear, attention = features[0] + features[2], 2 * features[1]
        seconds = 2 * linear * calibration.seconds[0] + 2 * attention * calibration.seconds[1]
        rows[kind] = {
            "macs_per_step": macs,
            "extrapolation_error": error,
            "over_per_frame_rule": macs / published,
            "decades_beyond_largest_point": calibration.decades_beyond(macs),
            "seconds_per_step_on_this_machine": seconds,
        }
    return {
        "file": calibration.path.name,
        "device": calibration.device,
        "date": calibration.date,
        "points": len(calibration.macs),
        "held_out_error_macs": calibration.held_out_error,
        "held_out_error_seconds": calibration.seconds_error,
        "params": float(number(inputs, "sora.params")),
        "sora_step": rows,
    }


def apply_run(assumptions: Assumptions, run: Path) -> Assumptions:
    """The assumptions with what a toy run measured: the compression of its VAE and, if `minisora evaluate --steps
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
        pass  # no demo, or one that has not come so far
    changed = assumptions.change("sora.vae_frames", value=frames, source=source, status="measured")
    changed = changed.change("sora.vae_pixels", value=pixels, source=source, status="measured")
    curve = run / "steps.json"
    if not curve.is_file():
        return changed
    try:
        steps = read_json(curve)
        enough, tried = steps["enough_steps"], [point["steps"] for point in steps["points"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{curve} is not of minisora evaluate --steps: run it again") from error
    source = (
        f"toy {run.name}: fewest of {', '.join(map(str, tried))} steps within 5 points of the most (95 %)"
    )
    low = max((number for number in tried if number < enough), default=enough)  # no finer than what was tried
    high = min((number for number in tried if number > enough), default=enough)
    return changed.change("serve.steps", value=enough, low=low, high=high, source=source, status="measured")
