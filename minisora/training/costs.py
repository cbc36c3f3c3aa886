"""What a stage costs on this machine: counted and timed before its first step, and printed."""

import time
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor, nn

from minisora.data.batches import Batch
from minisora.errors import UserError
from minisora.flops.count_torch import count_step
from minisora.flops.measured_peak import measure_peak
from minisora.memory import available_memory, size_text
from minisora.screen import say
from minisora.training.tasks import Task

# Per parameter in float32: itself, its gradient, two moments, its average.
_STATE_BYTES = 20
# Spent on finding the machine's peak, once a process.
_PEAK_SECONDS = 0.4


@dataclass(frozen=True)
class Costs:
    """Of training, without the optimizer.

    Args:
        clip_flops: FLOPs of forward and backward on one clip, by its shape, without what checkpointing computes
            twice (PaLM, arXiv 2204.02311, appendix B).
        step_seconds: of a step, on average over the shapes of clips, timed once each.
        peak: FLOP/s of this machine's own matrix products, over all processes.
    """

    clip_flops: dict[tuple[int, ...], float]
    step_seconds: float
    peak: float

    def flops(self, batch: Batch) -> float:
        """Of forward and backward on a batch of clips of any of the shapes."""
        return sum(clips * self.clip_flops[shape] for shape, clips in batch.clips_by_shape().items())


def measure_costs(task: Task, model: nn.Module, accelerator: Accelerator) -> Costs:
    """Run a forward and backward pass of every shape of clips, twice; the caller zeroes the gradients.

    Args:
        task: of the stage.
        model: the task's, as it is trained (wrapped or not).
        accelerator: of the stage.

    Raises:
        UserError: an operator has no FLOP formula.
    """
    settings, world = task.settings, accelerator.num_processes
    share = settings.batch_size // (settings.accumulation * world)
    batches = task.cost_batches(share)
    clip_flops: dict[tuple[int, ...], float] = {}
    seconds = 0.0
    for each in batches:
        batch = each.to(accelerator.device)

        def loss(batch: Batch = batch) -> Tensor:
            return task.loss(model, batch)[0]

        with torch.compiler.set_stance("force_eager"):
            count = count_step(loss)
            _finish(accelerator.device)
            start = time.perf_counter()
            loss().backward()
            _finish(accelerator.device)
            seconds += (time.perf_counter() - start) * settings.accumulation / len(batches)
        for shape, clips in batch.clips_by_shape().items():
            clip_flops[shape] = count.model_flops / clips
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    peak = measure_peak(str(accelerator.device), dtype, budget=_PEAK_SECONDS).flops_per_second * world
    return Costs(clip_flops, seconds, peak)


def check_state(parameters: int, device: torch.device) -> None:
    """Refuse a model whose training state surely does not fit, before it is made.

    Raises:
        UserError: gradients, optimizer state and average would take more than there is.
    """
    need, free = (_STATE_BYTES - 4) * parameters, available_memory(device)
    if need > free:
        raise UserError(
            f"training {parameters / 1e6:,.1f} M parameters takes {size_text(need)} beside the weights, and "
            f"{size_text(free)} are free: make the model smaller (width, depth), or shard it with FSDP2"
        )


def _finish(device: torch.device) -> None:
    """Wait for what a device was given to do."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def introduce(
    task: Task, costs: Costs, accelerator: Accelerator, steps: int, console: Console, compiled: str
) -> None:
    """Print what is about to happen.

    Args:
        task: of the stage.
        costs: of its steps.
        accelerator: of the stage.
        steps: still to be done.
        console: where.
        compiled: what was compiled, in words; empty if nothing was to be.
    """
    settings, world = task.settings, accelerator.num_processes
    flops = sorted(each * settings.batch_size / 1e9 for each in costs.clip_flops.values())
    amount = f"{flops[0]:,.1f}" if len(flops) == 1 else f"{flops[0]:,.1f} to {flops[-1]:,.1f}"
    parameters = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
    described = task.describe()
    memory = [
        described.pop("memory", ""),
        f"{size_text(_STATE_BYTES * parameters)} of weights and their state",
    ]
    facts = {
        "parameters": f"{parameters / 1e6:.2f} M",
        **described,
        "memory": ", ".join(filter(None, memory))
        + f"; {size_text(available_memory(accelerator.device))} free",
        "batch": f"{settings.batch_size} clips a step"
        + (f", {world} processes" if world > 1 else "")
        + (f", {settings.accumulation} micro-batches" if settings.accumulation > 1 else ""),
        "compute": f"{amount} GFLOPs a step (forward and backward, counted); "
        f"this machine reaches {costs.peak / 1e9:,.0f} GFLOP/s at most",
        **({"compile": compiled} if compiled else {}),
        "time": f"about {_duration(costs.step_seconds * steps)} for {steps} steps, and the optimizer's own time",
    }
    for name, fact in facts.items():
        say(console, (f"  {name:>16}", "bold"), f"  {fact}")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    )
