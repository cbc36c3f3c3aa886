"""The method of the estimate on models that disclosed what they cost: prediction against disclosure.

    tokens      frames, height, width through the strides of VAE and patch          against the stated context
    params      closed form of the shape                                            against the stated size
    compute     2 FLOPs a MAC x MACs of a pass x steps x guidance passes            against the stated cost of a pass
    seconds     compute / (GPUs x datasheet peak x utilisation)                     against the stated latency
    training    3 passes x samples seen, stage by stage                             against GPU-hours x peak x MFU

Utilisation is what the disclosed latencies imply, so a model's own latency must not set the utilisation that
its latency is then predicted with. `Row.seconds` is therefore *leave-one-out*: the median utilisation of the
models of all other developers, timed on the same card where there are any. `Row.seconds_in_sample` takes the one
given utilisation and is no test, as 0.36 is the cluster of these very latencies.

Beside it runs the *naive* method, that of the report by Factorial Funds: MACs of DiT-XL/2 scaled by parameters,
latent frames and places, read as FLOPs, one pass a step, images free, 100 % utilisation. Every factor is
predicted / disclosed; training's factor is one of GPU-hours, the unit in which utilisation counts too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from minisora.estimate.backtest_row import DIT_PARAMS, Row, chip, flops, naive_macs, predict
from minisora.estimate.cost import TransformerShape, forward_macs
from minisora.estimate.units import SECONDS_PER_HOUR
from minisora.estimate.video_models import Timing, VideoModel, load_models
from minisora.measure.hardware import CARDS
from minisora.screen import Table

__all__ = ["Row", "backtest", "implication", "load_models", "table"]

UTILISATION = 0.36  # where published latencies of large models on one H100 cluster
H100 = "H100 SXM"

# The report's Sora: one minute at 512x512, 180 latent frames, 250 steps, one pass a step, 5.03 min per H100-hour.
SORA = TransformerShape(layers=42, width=5120, hidden=20480)
SORA_GRID, SORA_STEPS = (180, 1024), 250
SORA_PARAMS = 30 * DIT_PARAMS  # 20e9, its ratio to DiT-XL/2 rounded


def backtest(
    models: Sequence[VideoModel],
    *,
    utilisation: float = UTILISATION,
    peaks: Mapping[str, float] | None = None,
    include_unverified: bool = True,
) -> list[Row]:
    """Predict and compare: one row a timing, and one for a model's training, or for its size alone.

    Args:
        models: from `load_models`.
        utilisation: of the in-sample seconds, and of training where no MFU was disclosed.
        peaks: dense bfloat16 peak of a card in FLOP/s by name, where it is not that of `minisora.measure.hardware`.
        include_unverified: keep rows that rest on anything but primary sources. Without them they do not set
            the utilisation of others either.
    """
    known = {**_peaks(), **(peaks or {})}
    cases: list[tuple[VideoModel, Timing | None, Row]] = []
    for model in models:
        # Training has a row of its own: what is doubtful about it must not cast doubt on a timing.
        for timing in [*model.timings, *([None] if model.training or not model.timings else [])]:
            row = predict(model, timing, known, utilisation)
            if include_unverified or row.grade == "primary":
                cases.append((model, timing, row))
    rows = []
    for model, timing, row in cases:
        if timing is not None and row.mfu is not None and row.seconds_in_sample is not None:
            others = _mfu_by_model((m, r) for m, _, r in cases if m.developer != model.developer)
            card = chip(timing.gpu.value)
            pool = [mfu for (_, its), mfu in others.items() if its == card] or list(others.values())
            if pool:
                left_out = median(pool)
                seconds = row.seconds_in_sample * utilisation / left_out
                row = replace(row, mfu_of_others=left_out, seconds=seconds)
        rows.append(row)
    return rows


def implication(rows: Sequence[Row]) -> dict[str, Any]:
    """What the back-test implies for the estimate of Sora.

    A *correction* multiplies a prediction: the geometric mean of disclosed / predicted, one vote a model. Its
    *interval* is the 5 to 95 % range for one more model (Student's t on logarithms, so that few models give a
    wide one), its *range* the lowest and highest model. Seconds count on the H100 only.

    `minutes_per_h100_hour` is the report's own Sora (its clip, 250 steps, one pass a step) with two FLOPs a MAC
    and attention over all of space and time, at the median utilisation; its interval is that of time.
    """
    timed = [row for row in rows if row.gpu is not None and chip(row.gpu) == H100]
    alone = [row for row in timed if row.gpus == 1]
    implied: dict[str, Any] = {}
    for name, which in (("median_mfu", timed), ("median_mfu_of_one_gpu", alone)):
        mfus = [median(values) for values in _votes(which, [row.mfu for row in which]).values()]
        implied[f"models_in_{name}"], implied[name] = len(mfus), median(mfus) if mfus else None
    for name, factor, used in (
        ("time", "seconds_factor", timed),
        ("naive_time", "naive_seconds_factor", timed),
        ("training", "training_factor", rows),
        ("naive_training", "naive_training_factor", rows),
    ):
        votes = _votes(used, [row.factors[factor] for row in used])
        logs = [-float(np.mean(np.log(values))) for values in votes.values()]
        implied[f"models_in_{name}_correction"] = len(logs)
        implied[f"{name}_correction"] = float(np.exp(np.mean(logs))) if logs else None
        implied[f"{name}_correction_interval"] = _interval(logs)
        implied[f"{name}_correction_range"] = [float(np.exp(f(logs))) for f in (min, max)] if logs else None

    per_hour = _peaks()[H100] * float(SECONDS_PER_HOUR.value)
    reported = naive_macs(SORA_PARAMS, SORA_GRID) * SORA_STEPS
    implied["minutes_per_h100_hour_by_the_report"] = per_hour / reported
    ours = flops(forward_macs(SORA, *SORA_GRID).total, SORA_STEPS)
    mfu, interval = implied["median_mfu"], implied["time_correction_interval"]
    minutes = per_hour * mfu / ours if mfu else None
    implied["minutes_per_h100_hour"] = minutes
    # More seconds than predicted are fewer minutes an hour, so the ends change places.
    ends = [minutes / end for end in reversed(interval)] if minutes and interval else None
    implied["minutes_per_h100_hour_interval"] = ends
    return implied


def table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    shown = Table(title="Back-test; x: predicted / disclosed, seconds leave-one-out")
    heads = ("model", "case", "grade", "tokens", "params x", "FLOPs/clip", "attn", "s", "s pred.", "MFU", "s x",
             "naive s x", "train FLOPs", "train x", "naive train x")  # fmt: skip
    for position, head in enumerate(heads):
        shown.add_column(head, justify="left" if position < 3 else "right", no_wrap=True)
    for row in rows:
        x = row.factors
        shown.add_row(
            row.model, row.case, row.grade, _text(row.tokens, ",.0f"), _text(x["params_factor"]),
            _text(row.flops_per_clip, ".2e"), _text(row.attention_share, ".0%"),
            _text(row.seconds_disclosed, ",.0f"), _text(row.seconds, ",.0f"), _text(row.mfu, ".1%"),
            _text(x["seconds_factor"]), _text(x["naive_seconds_factor"], ".3f"),
            _text(row.training_flops, ".2e"), _text(x["training_factor"]),
            _text(x["naive_training_factor"], ".4f"),
        )  # fmt: skip
    return shown


def _mfu_by_model(cases: Iterable[tuple[VideoModel, Row]]) -> dict[tuple[str, str], float]:
    """Median implied utilisation of each model on each card."""
    found: dict[tuple[str, str], list[float]] = {}
    for model, row in cases:
        if row.mfu is not None and row.gpu is not None:
            found.setdefault((model.name, chip(row.gpu)), []).append(row.mfu)
    return {key: median(values) for key, values in found.items()}


def _votes(rows: Sequence[Row], values: Sequence[float | None]) -> dict[str, list[float]]:
    """Values of each model, however many of its timings were disclosed."""
    found: dict[str, list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        if value is not None:
            found.setdefault(row.model, []).append(value)
    return found


def _interval(logs: Sequence[float]) -> list[float] | None:
    """5 to 95 % for one more value, from logarithms; None for fewer than three."""
    if len(logs) < 3:
        return None
    middle, scale = float(np.mean(logs)), float(np.std(logs, ddof=1) * np.sqrt(1 + 1 / len(logs)))
    spread = scale * float(student_t.ppf(0.95, len(logs) - 1))
    return [float(np.exp(middle - spread)), float(np.exp(middle + spread))]


def _peaks() -> dict[str, float]:
    """Dense bfloat16 peaks in FLOP/s by card."""
    return {card.name: card.tflops["bfloat16"] * 1e12 for card in CARDS if "bfloat16" in card.tflops}


def _text(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)
