"""The method of the estimate on models that disclosed what they cost: prediction against disclosure.

    tokens      frames, height, width through the strides of VAE and patch          against the stated context
    params      closed form of the shape                                            against the stated size
    compute     2 FLOPs a MAC x MACs of a pass x steps x guidance passes            against the stated cost of a pass
    seconds     compute / (GPUs x datasheet peak x utilisation)                     against the stated latency
    training    3 passes x samples seen, stage by stage or in one step              against GPU-hours x peak x MFU

Utilisation is what the disclosed latencies imply, so a model's own latency must not set the utilisation that
its latency is then predicted with. A row's `seconds` are therefore *leave-one-out*: at the median utilisation of the
models of all other developers, timed on the same card where there are any. `seconds_in_sample` takes the one given
utilisation and is no test, as 0.36 is the cluster of these very latencies.

Beside it runs the *naive* method, that of the report by Factorial Funds: MACs of DiT-XL/2 scaled by parameters,
latent frames and places, read as FLOPs, one pass a step, images free, 100 % utilisation. Every factor is
predicted / disclosed; training's factor is one of GPU-hours, the unit in which utilisation counts too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from minisora.flops.peaks import CARDS
from minisora.report.assumptions import shipped
from minisora.report.cost import PassMacs, TransformerShape, forward_macs
from minisora.report.model import DIT_PLACES, MLP_RATIO, Inputs, number, sora_shape, token_grid
from minisora.report.one_more import one_more
from minisora.report.units import FLOP_PER_MAC, SECONDS_PER_HOUR, Quantity
from minisora.report.video_models import DisclosedRun, Grade, Triple, VideoModel

# Where published latencies of large models on one H100 cluster.
UTILISATION = 0.36
H100 = "H100 SXM"
# Forward, and twice that backward.
TRAINING_PASSES = 3
# The links (and FP64) of the H800 and the A800 are slower, their bfloat16 peak is the same.
SAME_CHIP = {"H800 SXM": "H100 SXM", "A800 80GB": "A100 80GB"}


@dataclass(frozen=True)
class BacktestRow:
    """One timing of a model, its training or one step of it. None: undisclosed, or out of the method's reach.

    Args:
        model, case: which model; which clip (frames x height x width) on which GPUs.
        grade: the worst source among its inputs.
        tokens, params: predicted, and as disclosed (in tokens a clip, and weights).
        flops_per_clip: FLOPs of all passes; `attention_share` is the part quadratic in tokens.
        seconds: leave-one-out, at `mfu_of_others`; in sample; of the naive method; as disclosed.
        mfu: utilisation that the disclosed seconds imply.
        training_flops: of all stages, or of the step; disclosed: GPU-hours x peak x `training_mfu`, which is
            disclosed or assumed.
        training_mfu_implied: training_flops / (GPU-hours x peak).
        naive_training_flops: MACs that the report's method calls FLOPs.
    """

    model: str
    case: str
    grade: Grade
    tokens: int | None = None
    tokens_disclosed: float | None = None
    params: float | None = None
    params_disclosed: float | None = None
    flops_per_clip: float | None = None
    flops_per_clip_disclosed: float | None = None
    attention_share: float | None = None
    naive_flops_per_clip: float | None = None
    gpu: str | None = None
    gpus: int | None = None
    seconds_disclosed: float | None = None
    mfu: float | None = None
    seconds_in_sample: float | None = None
    mfu_of_others: float | None = None
    seconds: float | None = None
    naive_seconds: float | None = None
    training_gpu_hours_disclosed: float | None = None
    training_mfu: float | None = None
    training_mfu_is_assumed: bool | None = None
    training_flops_disclosed: float | None = None
    training_flops: float | None = None
    training_mfu_implied: float | None = None
    naive_training_flops: float | None = None

    @property
    def factors(self) -> dict[str, float | None]:
        """Predicted / disclosed, by quantity."""
        hours_at_peak = _ratio(self.training_flops_disclosed, self.training_mfu)
        return {
            "tokens_factor": _ratio(self.tokens, self.tokens_disclosed),
            "params_factor": _ratio(self.params, self.params_disclosed),
            "flops_factor": _ratio(self.flops_per_clip, self.flops_per_clip_disclosed),
            "naive_over_our_flops": _ratio(self.naive_flops_per_clip, self.flops_per_clip),
            "seconds_factor": _ratio(self.seconds, self.seconds_disclosed),
            "seconds_in_sample_factor": _ratio(self.seconds_in_sample, self.seconds_disclosed),
            "naive_seconds_factor": _ratio(self.naive_seconds, self.seconds_disclosed),
            "training_factor": _ratio(self.training_flops, self.training_flops_disclosed),
            "naive_training_factor": _ratio(self.naive_training_flops, hours_at_peak),
        }

    def to_dict(self) -> dict[str, Any]:
        """Fields and factors for `report.json`."""
        return {**asdict(self), **self.factors}


def backtest(
    models: Sequence[VideoModel],
    *,
    utilisation: float = UTILISATION,
    peaks: Mapping[str, float] | None = None,
    include_unverified: bool = True,
) -> list[BacktestRow]:
    """Predict and compare: one row a timing or a timed step of training, and one for a model's whole training.

    A model without a timing has a row for its size and the cost of a pass.

    Args:
        models: from `load_models`.
        utilisation: of the in-sample seconds, and of training where no MFU was disclosed.
        peaks: dense bfloat16 peak of a card in FLOP/s by name, where it is not that of `minisora.flops.peaks`.
        include_unverified: keep rows that rest on anything but primary sources. Without them they do not set
            the utilisation of others either.
    """
    known = {**_peaks(), **(peaks or {})}
    cases: list[tuple[VideoModel, BacktestRow]] = []
    for model in models:
        # Training has a row of its own: what is doubtful about it must not cast doubt on a timing.
        whole = [None] if model.training or not model.timings else []
        for run in [*model.timings, *whole, *model.timed_steps]:
            row = predict(model, run, known, utilisation)
            if include_unverified or row.grade == "primary":
                cases.append((model, row))
    rows = []
    for model, row in cases:
        if row.gpu is not None and row.mfu is not None and row.seconds_in_sample is not None:
            others = _mfu_by_model((m, r) for m, r in cases if m.developer != model.developer)
            card = chip(row.gpu)
            pool = [mfu for (_, its), mfu in others.items() if its == card] or list(others.values())
            if pool:
                left_out = median(pool)
                seconds = row.seconds_in_sample * utilisation / left_out
                row = replace(row, mfu_of_others=left_out, seconds=seconds)
        rows.append(row)
    return rows


def implication(rows: Sequence[BacktestRow]) -> dict[str, Any]:
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
        implied[f"{name}_correction_interval"] = one_more(logs)
        implied[f"{name}_correction_range"] = [float(np.exp(f(logs))) for f in (min, max)] if logs else None

    per_hour = _peaks()[H100] * float(SECONDS_PER_HOUR.value)
    published = _published()
    grid, steps = token_grid(published), number(published, "serve.steps")
    # The ratio of sizes, 30, is rounded there.
    dit_params = number(published, "dit.params")
    params = np.rint(number(published, "sora.params") / dit_params) * dit_params
    reported = naive_macs(float(params), (float(grid[0]), float(grid[1]))) * float(steps)
    implied["minutes_per_h100_hour_by_the_report"] = per_hour / reported
    ours = flops(forward_macs(_whole(sora_shape(published)), *grid).total, float(steps))
    mfu, interval = implied["median_mfu"], implied["time_correction_interval"]
    minutes = per_hour * mfu / ours if mfu else None
    implied["minutes_per_h100_hour"] = minutes
    # More seconds than predicted are fewer minutes an hour, so the ends change places.
    ends = [minutes / end for end in reversed(interval)] if minutes and interval else None
    implied["minutes_per_h100_hour_interval"] = ends
    return implied


def _mfu_by_model(cases: Iterable[tuple[VideoModel, BacktestRow]]) -> dict[tuple[str, str], float]:
    """Median implied utilisation of each model on each card."""
    mfus: dict[tuple[str, str], list[float]] = {}
    for model, row in cases:
        if row.mfu is not None and row.gpu is not None:
            mfus.setdefault((model.name, chip(row.gpu)), []).append(row.mfu)
    return {key: median(values) for key, values in mfus.items()}


def _votes(rows: Sequence[BacktestRow], values: Sequence[float | None]) -> dict[str, list[float]]:
    """Values of each model, however many of its timings were disclosed."""
    votes: dict[str, list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        if value is not None:
            votes.setdefault(row.model, []).append(value)
    return votes


def _peaks() -> dict[str, float]:
    """Dense bfloat16 peaks in FLOP/s by card."""
    return {card.name: card.tflops["bfloat16"] * 1e12 for card in CARDS if "bfloat16" in card.tflops}


# One row: what the method predicts of a model, beside what was disclosed.


def predict(
    model: VideoModel, run: DisclosedRun | None, peaks: Mapping[str, float], utilisation: float
) -> BacktestRow:
    """A row but for its leave-one-out columns.

    Args:
        model: what it disclosed.
        run: the timing to compare with, of a clip or of a step of training; None to compare whole training instead.
        peaks: dense bfloat16 peak of a card in FLOP/s, by name.
        utilisation: of the in-sample seconds, and of training where no MFU was disclosed.
    """
    clip = run.clip.value if run and run.clip else model.clip.value if model.clip else None
    grid = model.grid(clip)
    own = clip is not None and model.clip is not None and clip == model.clip.value
    predicted: dict[str, Any] = {
        "tokens": grid[0] * grid[1] if grid else None,
        "tokens_disclosed": model.tokens.value if model.tokens and own else None,
        "params": model.closed_form_params(),
        "params_disclosed": model.params.value,
    }
    cost = _pass(model, clip)
    if cost is not None:
        predicted["attention_share"] = float(cost.attention_share)
    where = ["x".join(map(str, clip))] if clip else []
    if run is not None and run.gpu and run.gpus:
        where.append(f"{run.gpus.value} x {run.gpu.value}")
    if run is not None and run.trains:
        where.append("a training step")
        predicted |= _of_a_step(model, run, clip, peaks, utilisation)
    else:
        predicted |= _of_a_clip(model, run, grid, cost, peaks, utilisation)
        if run is None and model.training is not None:
            where.append("training")
            predicted |= _training(model, peaks, utilisation)
    return BacktestRow(model.name, ", ".join(where), model.grade(run), **predicted)


def _of_a_clip(
    model: VideoModel,
    run: DisclosedRun | None,
    grid: tuple[int, int] | None,
    cost: PassMacs | None,
    peaks: Mapping[str, float],
    utilisation: float,
) -> dict[str, Any]:
    """Compute and seconds of generating a clip."""
    predicted: dict[str, Any] = {}
    steps = (run.steps if run else None) or model.steps
    guidance = (run.guidance_passes if run else None) or model.guidance_passes
    # The report knows of no guidance.
    if grid and steps:
        predicted["naive_flops_per_clip"] = naive_macs(model.params.value, grid) * steps.value
    if steps and guidance and cost is not None:
        passes = steps.value * guidance.value
        predicted["flops_per_clip"] = flops(cost.total, passes)
        predicted["flops_per_clip_disclosed"] = model.pass_macs and flops(model.pass_macs.value, passes)
    if run is None or not (run.seconds and run.gpu and run.gpus):
        return predicted
    gpu, count, seconds = run.gpu.value, run.gpus.value, run.seconds.value
    predicted |= {"gpu": gpu, "gpus": count, "seconds_disclosed": seconds}
    if "flops_per_clip" in predicted and chip(gpu) in peaks:
        speed = peaks[chip(gpu)] * count
        predicted["mfu"] = predicted["flops_per_clip"] / (speed * seconds)
        predicted["seconds_in_sample"] = predicted["flops_per_clip"] / (speed * utilisation)
        predicted["naive_seconds"] = predicted["naive_flops_per_clip"] / speed
    return predicted


def _of_a_step(
    model: VideoModel,
    run: DisclosedRun,
    clip: Triple | None,
    peaks: Mapping[str, float],
    utilisation: float,
) -> dict[str, Any]:
    """Compute of one step of training, in which all weights learn; recomputation is no part of it."""
    if not (run.seconds and run.gpu and run.gpus and run.samples):
        return {}
    hours = run.gpus.value * run.seconds.value / float(SECONDS_PER_HOUR.value)
    peak = peaks[chip(run.gpu.value)] * run.gpus.value * run.seconds.value
    predicted: dict[str, Any] = {
        "gpu": run.gpu.value,
        "gpus": run.gpus.value,
        "training_gpu_hours_disclosed": hours,
        "training_mfu": utilisation,
        "training_mfu_is_assumed": True,
        "training_flops_disclosed": peak * utilisation,
    }
    return predicted | _compute(model, [(clip, run.samples.value)], peak)


def _training(model: VideoModel, peaks: Mapping[str, float], utilisation: float) -> dict[str, Any]:
    """Compute of the whole training."""
    if model.training is None:
        return {}
    disclosed = model.training
    peak = peaks[chip(disclosed.gpu.value)] * disclosed.gpu_hours.value * float(SECONDS_PER_HOUR.value)
    mfu = disclosed.mfu.value if disclosed.mfu else utilisation
    predicted: dict[str, Any] = {
        "training_gpu_hours_disclosed": disclosed.gpu_hours.value,
        "training_mfu": mfu,
        "training_mfu_is_assumed": disclosed.mfu is None,
        "training_flops_disclosed": peak * mfu,
    }
    stages = [(stage.clip.value, stage.samples.value) for stage in disclosed.stages or []]
    return predicted | _compute(model, stages, peak)


def _compute(model: VideoModel, stages: Sequence[tuple[Triple | None, float]], peak: float) -> dict[str, Any]:
    """FLOPs of training on samples of each size, by both methods; `peak`: what the GPUs could have computed."""
    total = naive = 0.0
    for clip, samples in stages:
        cost, grid = _pass(model, clip), model.grid(clip)
        if clip is None or cost is None or grid is None:
            return {}
        total += flops(cost.total, TRAINING_PASSES) * samples
        # The report divides by two for the images and counts them as free.
        if clip[0] > 1:
            naive += TRAINING_PASSES * naive_macs(model.params.value, grid) * samples
    if not total:
        return {}
    return {"training_flops": total, "naive_training_flops": naive, "training_mfu_implied": total / peak}


def _pass(model: VideoModel, clip: Triple | None) -> PassMacs | None:
    """MACs of one pass over a clip."""
    shape, grid = model.shape(), model.grid(clip)
    if shape is None or grid is None or model.attention is None:
        return None
    return forward_macs(shape, *grid, model.attention.value)


def flops(macs: Any, passes: float) -> float:
    """FLOPs a sample, of that many passes with that many MACs each."""
    compute = Quantity(macs, "MAC/pass") * FLOP_PER_MAC * Quantity(passes, "pass/sample")
    return float(compute.to("FLOP/sample"))


def naive_macs(params: float, grid: tuple[float, float]) -> float:
    """The report's MACs of a pass: DiT-XL/2's x parameters x latent frames x places."""
    dit_macs, dit_params = (number(_published(), f"dit.{name}") for name in ("macs_per_step", "params"))
    return float(dit_macs * params / dit_params * grid[0] * grid[1] / DIT_PLACES)


def _published() -> Inputs:
    """The report's own Sora: one minute at 512x512, 180 latent frames, 250 steps, one pass a step."""
    return shipped("as_published").inputs()


def _whole(shape: TransformerShape) -> TransformerShape:
    """The same with whole layers, and heads of 128 channels: 42 of 5,120 for the report's Sora."""
    width = 128 * round(float(shape.width) / 128)
    return TransformerShape(layers=round(float(shape.layers)), width=width, hidden=MLP_RATIO * width)


def chip(gpu: str) -> str:
    """The card whose peak and utilisation it shares."""
    return SAME_CHIP.get(gpu, gpu)


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None
