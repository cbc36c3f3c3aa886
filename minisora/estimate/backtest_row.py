"""One row of the back-test: what the method predicts of a disclosed model, beside what was disclosed.

The arithmetic of both methods is here: ours (closed-form MACs, two FLOPs each, every pass counted) and the naive
one of the report by Factorial Funds. Which utilisation a prediction may use is `minisora.estimate.backtest`'s.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from minisora.estimate.cost import PassMacs, forward_macs
from minisora.estimate.model import DIT_PLACES
from minisora.estimate.units import FLOP_PER_MAC, SECONDS_PER_HOUR, Quantity
from minisora.estimate.video_models import Grade, Timing, Triple, VideoModel

TRAINING_PASSES = 3  # forward, and twice that backward
DIT_MACS, DIT_PARAMS = 524e9, 675e6  # of a pass of DiT-XL/2 at 512x512, as the report rounds it
SAME_CHIP = {"H800 SXM": "H100 SXM"}  # the H800's links and FP64 are slower, its bfloat16 peak is the same


@dataclass(frozen=True)
class Row:
    """One timing of a model, or its training. None: undisclosed, or out of the method's reach.

    Args:
        model, case: which model; which clip (frames x height x width) on which GPUs.
        grade: the worst source among its inputs.
        tokens, params: predicted, and as disclosed (in tokens a clip, and weights).
        flops_per_clip: FLOPs of all passes; `attention_share` is the part quadratic in tokens.
        seconds: leave-one-out, at `mfu_of_others`; in sample; of the naive method; as disclosed.
        mfu: utilisation that the disclosed seconds imply.
        training_flops: of all stages; disclosed: GPU-hours x peak x `training_mfu`, disclosed or assumed.
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


def predict(model: VideoModel, timing: Timing | None, peaks: Mapping[str, float], utilisation: float) -> Row:
    """A row but for its leave-one-out columns.

    Args:
        model: what it disclosed.
        timing: the timing to compare with; None to compare training instead.
        peaks: dense bfloat16 peak of a card in FLOP/s, by name.
        utilisation: of the in-sample seconds, and of training where no MFU was disclosed.
    """
    clip = timing.clip.value if timing and timing.clip else model.clip.value if model.clip else None
    grid = model.grid(clip)
    own = clip is not None and model.clip is not None and clip == model.clip.value
    found: dict[str, Any] = {
        "tokens": grid[0] * grid[1] if grid else None,
        "tokens_disclosed": model.tokens.value if model.tokens and own else None,
        "params": model.closed_form_params(),
        "params_disclosed": model.params.value,
    }
    cost = _pass(model, clip)
    if cost is not None:
        found["attention_share"] = float(cost.attention_share)
    steps = model.steps.value if model.steps else None
    if grid and steps:  # the report knows of no guidance
        found["naive_flops_per_clip"] = naive_macs(model.params.value, grid) * steps
    if steps and model.guidance_passes and cost is not None:
        passes = steps * model.guidance_passes.value
        found["flops_per_clip"] = flops(cost.total, passes)
        found["flops_per_clip_disclosed"] = model.pass_macs and flops(model.pass_macs.value, passes)
    where = "x".join(map(str, clip)) if clip else ""
    if timing is not None:
        gpu, count, seconds = timing.gpu.value, timing.gpus.value, timing.seconds.value
        where = f"{where}, {count} x {gpu}"
        speed = peaks[chip(gpu)] * count
        found |= {"gpu": gpu, "gpus": count, "seconds_disclosed": seconds}
        if "flops_per_clip" in found:
            found["mfu"] = found["flops_per_clip"] / (speed * seconds)
            found["seconds_in_sample"] = found["flops_per_clip"] / (speed * utilisation)
            found["naive_seconds"] = found["naive_flops_per_clip"] / speed
    elif model.training is not None:
        where = f"{where}, training" if where else "training"
        found |= _training(model, peaks, utilisation)
    return Row(model.name, where, model.grade(timing), **found)


def _training(model: VideoModel, peaks: Mapping[str, float], utilisation: float) -> dict[str, Any]:
    if model.training is None:
        return {}
    disclosed = model.training
    peak = peaks[chip(disclosed.gpu.value)] * disclosed.gpu_hours.value * float(SECONDS_PER_HOUR.value)
    mfu = disclosed.mfu.value if disclosed.mfu else utilisation
    found: dict[str, Any] = {
        "training_gpu_hours_disclosed": disclosed.gpu_hours.value,
        "training_mfu": mfu,
        "training_mfu_is_assumed": disclosed.mfu is None,
        "training_flops_disclosed": peak * mfu,
    }
    total = naive = 0.0
    for stage in disclosed.stages or []:
        clip, samples = stage.clip.value, stage.samples.value
        cost, grid = _pass(model, clip), model.grid(clip)
        if cost is None or grid is None:
            return found
        total += flops(cost.total, TRAINING_PASSES) * samples
        if clip[0] > 1:  # the report divides by two for the images and counts them as free
            naive += TRAINING_PASSES * naive_macs(model.params.value, grid) * samples
    if total:
        found |= {
            "training_flops": total,
            "naive_training_flops": naive,
            "training_mfu_implied": total / peak,
        }
    return found


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


def naive_macs(params: float, grid: tuple[int, int]) -> float:
    """The report's MACs of a pass: DiT-XL/2's x parameters x latent frames x places."""
    return DIT_MACS * params / DIT_PARAMS * grid[0] * grid[1] / DIT_PLACES


def chip(gpu: str) -> str:
    """The card whose peak and utilisation it shares."""
    return SAME_CHIP.get(gpu, gpu)


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None
