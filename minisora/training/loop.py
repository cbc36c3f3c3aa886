"""The one training loop: accumulate, clip, step, average, log, validate, save; resumable at any step."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from rich.console import Console
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from minisora.config import Config, TrainConfig
from minisora.data.batches import check_batch_size, load_batches
from minisora.data.draws import rng
from minisora.errors import UserError
from minisora.models.precision import choose_precision
from minisora.screen import say
from minisora.training import checkpoint
from minisora.training.compilation import compile_blocks, explained
from minisora.training.costs import check_state, introduce, measure_costs
from minisora.training.interrupt import StopSignals
from minisora.training.latents import encodes_in_step
from minisora.training.launch import device_name, make_accelerator, process_device
from minisora.training.learning_rate import lr_scale, steps_changed
from minisora.training.metrics import MetricsLog
from minisora.training.optimizer import make_optimizer
from minisora.training.progress import StepProgress
from minisora.training.tasks.task import Task

_DROPOUT = 4  # key of what dropout drops, beside those of `minisora.data.batches`


@dataclass(frozen=True)
class StageResult:
    """The end of a stage: averaged weights by name (full, on the CPU) and the last validation."""

    weights: dict[str, Tensor]
    validation: dict[str, float]


def prepare_stage(config: Config, settings: TrainConfig, out: Path, width: int) -> tuple[Accelerator, str]:
    """The accelerate handle of a stage, and a line that says what it runs on."""
    device = process_device()
    last = checkpoint.newest(out / "checkpoints")
    if last is not None:  # going on in another precision would change the losses
        precision, reason = checkpoint.read_state(last).precision, "as in the checkpoint"
    else:
        precision, reason = choose_precision(settings.precision, device, width)
    accelerator = make_accelerator(
        precision=precision,
        accumulation=settings.accumulation,
        trackers=settings.trackers,
        out=out,
        seed=config.seed,
    )
    return accelerator, f"{device_name(device)}, {precision} ({reason})"


def check_resumable(config: Config, out: Path, inputs: str) -> None:
    """Refuse a stage whose newest checkpoint is of another run; to be called before anything is written.

    Args:
        config: the whole run's.
        out: the stage's folder.
        inputs: fingerprint of the data (and VAE) the stage is given.

    Raises:
        UserError: it is, or cannot be read; the message says how it differs.
    """
    last = checkpoint.newest(out / "checkpoints")
    if last is not None:
        state = checkpoint.read_state(last)
        checkpoint.check_resumable(last, state, checkpoint.described(config), inputs)


class Trainer:
    """Trains one task to `settings.steps`, from the newest checkpoint in `out` if there is one.

    Args:
        task: what is trained.
        config: the whole run's, written into checkpoints.
        accelerator: from `prepare_stage`.
        out: the stage's folder; checkpoints go below it.
        metrics: the run's metrics file.
        inputs: fingerprint of the data (and VAE) the stage is given.
        console: where progress is shown.
        on_sample: called on every process with the step and the averaged weights, every `sample_every` steps.
    """

    def __init__(
        self,
        task: Task,
        config: Config,
        accelerator: Accelerator,
        *,
        out: Path,
        metrics: Path,
        inputs: str,
        console: Console,
        on_sample: Callable[[int, dict[str, Tensor]], None] | None = None,
    ):
        self.task, self.settings, self.accelerator = task, task.settings, accelerator
        self.config, self.seed = checkpoint.described(config), config.seed
        self.out, self.inputs, self.console, self.on_sample = out, inputs, console, on_sample
        self.folder = out / "checkpoints"
        self.metrics = MetricsLog(metrics, task.name, accelerator)
        check_batch_size(self.settings.batch_size, self.settings.accumulation, accelerator.num_processes)

        self.compiled = ""  # what was, in words
        if self.settings.compile:
            self.compiled = compile_blocks(task.model, task.block, accelerator.device)
        plugin = getattr(accelerator.state, "fsdp_plugin", None)
        if plugin is not None and self.settings.optimizer == "muon":
            raise UserError(
                f"muon needs whole matrices, FSDP2 shards them: set train_{task.name}.optimizer=adamw"
            )
        if plugin is not None and config.data.packing is not None:
            raise UserError("packed rows go past FSDP2's hooks: set data.packing=null, or train with DDP")
        if plugin is not None:
            plugin.transformer_cls_names_to_wrap = [task.block]
        dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
        sharers = accelerator.num_processes if plugin is not None else 1
        learned = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
        check_state(learned // sharers, accelerator.device)
        optimizer = make_optimizer(task.model, self.settings, dtype)
        self.model: nn.Module
        self.model, self.optimizer = accelerator.prepare(task.model, optimizer)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.ema = EMAModel(
            checkpoint.local_parameters(self.model), decay=self.settings.ema_decay, foreach=True
        )
        self.step = 0  # optimizer steps done
        self.validation: dict[str, float] = {}
        self._resume()

    def fit(self) -> StageResult:
        """Train to the last step and return the averaged weights."""
        settings = self.settings
        if self.step < settings.steps:
            device = self.accelerator.device
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                self.costs = measure_costs(self.task, self.model, self.accelerator)
            self.optimizer.zero_grad()
            if self.accelerator.is_main_process:
                left = settings.steps - self.step
                introduce(self.task, self.costs, self.accelerator, left, self.console, self.compiled)
            progress = StepProgress(self.console, self.task.name, self.step, settings.steps)
            shown = progress if self.accelerator.is_main_process else progress.silenced()
            with shown, StopSignals() as signals, explained(self.task.name):
                self._run(progress, signals)
        if not self.validation:
            self.validation = self._validate()
        return StageResult(checkpoint.full_weights(self.model, self.ema), self.validation)

    def _run(self, progress: StepProgress, signals: StopSignals) -> None:
        settings, accelerator = self.settings, self.accelerator
        device = accelerator.device
        loader = load_batches(
            self.task.source,
            start_step=self.step,
            stop_step=settings.steps,
            batch_size=settings.batch_size,
            accumulation=settings.accumulation,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            # A forked worker cannot use this process's GPU, nor should it hold a VAE of its own.
            workers=0 if encodes_in_step(self.task.source) else settings.workers,
            pin_memory=device.type == "cuda",
        )
        self.model.train()
        first_bad = torch.full(
            (), -1, device=device, dtype=torch.long
        )  # looked at only where a number is read
        step_loss = torch.zeros((), device=device)
        recent: list[list[int]] = []  # clips of the micro-batches since the last look
        clock, clock_step, flops = time.perf_counter(), self.step, 0.0  # flops since the clock was set
        for number, batch in enumerate(loader):
            self._seed_dropout(number % settings.accumulation)
            recent.append(batch.indices)
            flops += self.costs.flops(batch)
            with accelerator.accumulate(self.model):
                loss, parts = self.task.loss(self.model, batch.to(device))
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(self.parameters, settings.clip_norm)
                    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # sharded by FSDP2
                    for group in self.optimizer.param_groups:
                        group["lr"] = group["peak_lr"] * lr_scale(self.step, settings)
                self.optimizer.step()
                self.optimizer.zero_grad()
            step_loss += loss.detach() / settings.accumulation
            if not accelerator.sync_gradients:
                continue

            bad = ~(torch.isfinite(step_loss) & torch.isfinite(norm))
            first_bad = torch.where((first_bad < 0) & bad, self.step, first_bad)
            self.ema.step(checkpoint.local_parameters(self.model))
            self.step += 1
            due = self._due()
            looks = device.type == "cpu" or bool(due)
            if looks:
                self._stop_if_bad(first_bad, recent)
                recent.clear()
            if "log" in due:
                value = float(accelerator.reduce(step_loss, "mean"))
                elapsed = time.perf_counter() - clock
                seconds = elapsed / (self.step - clock_step)
                speed = flops * accelerator.num_processes / elapsed
                self.metrics.write(
                    self.step,
                    loss=value,
                    grad_norm=float(norm),
                    lr=self.optimizer.param_groups[0]["lr"],
                    samples_per_second=settings.batch_size / seconds,
                    flops_per_second=speed,
                    mfu=speed / self.costs.peak,
                    **{name: float(part.detach()) for name, part in parts.items()},
                )
                progress.update(self.step, value, settings.batch_size / seconds, speed / self.costs.peak)
                clock, clock_step, flops = time.perf_counter(), self.step, 0.0
            else:
                progress.update(self.step)
            step_loss = torch.zeros_like(step_loss)
            clock += self._housekeeping(due, progress)
            if self._is_asked_to_stop(signals.heard, looks):
                self._stop_if_bad(first_bad, recent)
                self._interrupt(due, progress)

    def _seed_dropout(self, micro: int) -> None:
        """Draw what dropout drops from the place of a micro-batch, as all else: nothing to save, resumed alike."""
        place = rng(self.seed, _DROPOUT, self.step, micro, self.accelerator.process_index)
        torch.manual_seed(int(place.integers(2**63)))

    def _is_asked_to_stop(self, heard: bool, looks: bool) -> bool:
        """Whether a process heard a signal; several agree on it where they read numbers anyway."""
        if self.accelerator.num_processes == 1:
            return heard
        if not looks:
            return False
        asked = torch.tensor(float(heard), device=self.accelerator.device)
        return float(self.accelerator.reduce(asked, "sum")) > 0

    def _interrupt(self, due: set[str], progress: StepProgress) -> None:
        """Save after the step just done, unless it was, and stop."""
        if "save" not in due:
            self._save()
        place = checkpoint.checkpoints(self.folder)[-1]
        progress.note(self.step, f"interrupted: {place} is saved, and the same command goes on from there")
        raise KeyboardInterrupt

    def _housekeeping(self, due: set[str], progress: StepProgress) -> float:
        """Validate, sample and save where due; returns the seconds it took, which are not training."""
        start = time.perf_counter()
        if "validate" in due:
            self.validation = self._validate()
            self.metrics.write(self.step, **{f"val_{k}": v for k, v in self.validation.items()})
            progress.note(self.step, "  ".join(f"val_{k} {v:.4g}" for k, v in self.validation.items()))
        if "sample" in due and self.on_sample is not None:
            self.on_sample(self.step, checkpoint.full_weights(self.model, self.ema))
        if "save" in due:
            self._save()
        return time.perf_counter() - start

    def _due(self) -> set[str]:
        """What happens after the step just done."""
        s, last = self.settings, self.step == self.settings.steps
        every = {
            "log": s.log_every,
            "validate": s.validate_every,
            "save": s.save_every,
            "sample": s.sample_every,
        }
        return {what for what, n in every.items() if n and (last or self.step % n == 0)}

    def _stop_if_bad(self, first_bad: Tensor, recent: list[list[int]]) -> None:
        step = int(first_bad)
        if step < 0:
            return
        kept = checkpoint.checkpoints(self.folder)
        clips = sorted({index for indices in recent for index in indices})
        shown = ", ".join(map(str, clips[:16])) + (", ..." if len(clips) > 16 else "")
        last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        raise UserError(
            f"{self.task.name} loss or gradient is not finite at step {step} (clips {shown}); {last}; "
            f"lower train_{self.task.name}.lr (now {self.settings.lr:g}) or set precision=fp32"
        )

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Validation means with the averaged weights, over all processes."""
        self.model.eval()
        parameters = checkpoint.local_parameters(self.model)
        self.ema.store(parameters)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        try:
            self.ema.copy_to(parameters)
            with torch.compiler.set_stance("force_eager"):  # seldom run: not worth a graph of its own
                sums = self.task.validate(self.model, rank, world)
        finally:
            self.ema.restore(parameters)
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # drop gathered copies of the average that FSDP2 keeps for a backward
        self.model.train()
        totals = {name: float(self.accelerator.reduce(value, "sum")) for name, value in sums.items()}
        count = totals.pop("count")
        return {name: value / count if count else math.nan for name, value in totals.items()}

    def _save(self) -> None:
        precision = "bf16" if self.accelerator.mixed_precision == "bf16" else "fp32"
        state = checkpoint.TrainState(self.step, self.config, precision, self.task.name, self.inputs)
        checkpoint.save(
            self.folder,
            state,
            self.accelerator,
            self.model,
            self.ema,
            self.optimizer,
            self.settings.keep_checkpoints,
        )

    def _resume(self) -> None:
        last = checkpoint.newest(self.folder)
        if last is None:
            self.metrics.rewind(0)  # of a run that was killed before its first checkpoint
            return
        state = checkpoint.read_state(last)
        checkpoint.check_resumable(last, state, self.config, self.inputs)
        checkpoint.load(last, self.model, self.ema, self.optimizer)
        self.step = self.ema.optimization_step = state.step
        self.metrics.rewind(state.step)
        if self.step >= self.settings.steps:
            self.validation = self.metrics.validation(state.step)
        if self.accelerator.is_main_process:
            self._tell_resumed(last, state)

    def _tell_resumed(self, last: Path, state: checkpoint.TrainState) -> None:
        """Say from where the stage goes on, what was passed over, and what other steps do."""
        name, lines = self.task.name, []
        for place in checkpoint.passed_over(self.folder):
            lines.append(f"checkpoint {place} is damaged ({checkpoint.damage(place)}): passed over")
        if self.step < self.settings.steps:
            lines.append(f"resuming {name} at step {self.step} from {last}")
        before = state.config.get(f"train_{name}", {}).get("steps", self.settings.steps)
        if before != self.settings.steps:
            meant = f"train_{name}.steps was {before} and is {self.settings.steps}"
            lines.append(f"{meant}: {steps_changed(self.step, before, self.settings)}")
        for line in lines:
            say(self.console, line, style="dim")
