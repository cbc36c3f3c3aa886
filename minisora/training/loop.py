"""The one training loop: accumulate, clip, step, average, log, validate, save; resumable at any step."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from rich.console import Console
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from minisora.config import Config
from minisora.data.batches import Batch, BatchSource, check_batch_size, load_batches
from minisora.data.draws import rng
from minisora.errors import UserError
from minisora.screen import say
from minisora.training import checkpoint
from minisora.training.costs import check_state, introduce, measure_costs
from minisora.training.latents import encodes_in_step
from minisora.training.launch import compile_blocks, explained
from minisora.training.optimizer import lr_scale, make_optimizer, steps_changed
from minisora.training.progress import MetricsLog, StepProgress
from minisora.training.stop_signals import StopSignals
from minisora.training.tasks import Task

# Times the steps first planned, the most that there can come to be.
AT_MOST = 4
# Key of the draws of dropout, beside those of `minisora.data.batches`.
_DROPOUT = 4


@dataclass(frozen=True)
class StageResult:
    """The end of a stage: averaged weights by name (full, on the CPU) and the last validation."""

    weights: dict[str, Tensor]
    validation: dict[str, float]


class Trainer:
    """Trains one task to `settings.steps`, from a checkpoint if there is one; for its arguments see `run_stage`.

    Args:
        task: what is trained.
        config: the whole run's, written into checkpoints.
        accelerator: of the stage, from `make_accelerator`.
        out: the stage's folder.
        inputs: fingerprint of what the stage is given.
        console: where progress is shown.
        last: the checkpoint to go on from, of this run, and what it says.
        on_sample: called on the main process with the step and the averaged weights, every `sample_every` steps.
        on_validate: the same, after each validation.
        steps_by: gives the steps in all, after each validation at which the learning rate does not depend on them yet.
    """

    def __init__(
        self,
        task: Task,
        config: Config,
        accelerator: Accelerator,
        out: Path,
        inputs: str,
        console: Console,
        last: tuple[Path, checkpoint.TrainState] | None = None,
        on_sample: Callable[[int, dict[str, Tensor]], None] | None = None,
        on_validate: Callable[[int, dict[str, Tensor]], None] | None = None,
        steps_by: Callable[[int], int] | None = None,
    ):
        self.task, self.settings, self.accelerator = task, task.settings, accelerator
        self.config, self.seed = checkpoint.described(config), config.seed
        self.inputs, self.console, self._steps_by = inputs, console, steps_by
        # In the order in which they are called where both are due: what is shown of a validation may show samples.
        self._callbacks = {"sample": on_sample, "validate": on_validate}
        self.folder = out / "checkpoints"
        self.metrics = MetricsLog(out.parent / "metrics.jsonl", task.name, accelerator)
        check_batch_size(self.settings.batch_size, self.settings.accumulation, accelerator.num_processes)

        # What was compiled, in words.
        self.compiled = ""
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
        # Optimizer steps done.
        self.step = 0
        self.validation: dict[str, float] = {}
        # The least validation loss so far, and how many validations came after it, where a stage keeps the best.
        self.least, self.waited = math.inf, 0
        if last is None:
            # Of a run that was killed before its first checkpoint.
            self.metrics.rewind(0)
        else:
            self._resume(*last)
        # Step and validation of the best averaged weights so far, where a stage keeps them.
        self.best: dict[str, float] = {}
        if task.keeps_best:
            self.best = checkpoint.best_until(self.folder.parent / "best", self.step)
            # Of a checkpoint that an older version wrote.
            self.least = min(self.least, self.best.get("loss", math.inf))

    @property
    def _is_over(self) -> bool:
        """Whether no step is left to do."""
        return self.step >= self.settings.steps or self._waits_in_vain

    @property
    def _waits_in_vain(self) -> bool:
        return 0 < self.task.patience <= self.waited

    def fit(self) -> StageResult:
        """Train to the last step, or until the task's patience is over, and return the averaged weights."""
        settings = self.settings
        if not self._is_over:
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
        if self.best:
            weights = checkpoint.load_best(self.folder.parent / "best")[0]
            return StageResult(weights, {k: v for k, v in self.best.items() if k != "step"})
        return StageResult(checkpoint.full_weights(self.model, self.ema), self.validation)

    def _run(self, progress: StepProgress, signals: StopSignals) -> None:
        settings, accelerator = self.settings, self.accelerator
        device = accelerator.device
        self.model.train()
        # Looked at only where a number is read.
        first_bad = torch.full((), -1, device=device, dtype=torch.long)
        step_loss = torch.zeros((), device=device)
        # Clips of the micro-batches since the last look.
        recent: list[list[int]] = []
        # FLOPs since the clock was set.
        clock, clock_step, flops = time.perf_counter(), self.step, 0.0
        for number, batch in enumerate(self._batches()):
            self._seed_dropout(number % settings.accumulation)
            recent.append(batch.indices)
            flops += self.costs.flops(batch)
            with accelerator.accumulate(self.model):
                loss, parts = self.task.loss(self.model, batch.to(device))
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(self.parameters, settings.clip_norm)
                    if isinstance(norm, DTensor):
                        norm = norm.full_tensor()
                    for group in self.optimizer.param_groups:
                        group["lr"] = group["peak_lr"] * lr_scale(self.step, self.settings)
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
            if self._is_over:
                if self.step < self.settings.steps:
                    if "save" not in due:
                        self._save()
                    progress.note(self.step, self._told_patience())
                return

    @property
    def _is_falling(self) -> bool:
        """Whether the learning rate has left its plateau, from where on the number of steps stands."""
        return self.step > (1 - self.settings.decay_share) * self.settings.steps

    @property
    def _is_last(self) -> bool:
        """Whether the next step is of the last ones, whose batches are others."""
        return self._is_falling and self.step >= self.settings.steps - self.task.last_steps

    def _batches(self) -> Iterator[Batch]:
        """Micro-batches from the step that the stage stands at; those of the last steps may differ."""
        while True:
            last = self._is_last
            source = self.task.last_source if last else self.task.source
            for batch in self._load(source):
                yield batch
                if self._is_last != last:
                    break
            else:
                return

    def _load(self, source: BatchSource[Batch]) -> Iterator[Batch]:
        """Micro-batches of a source, to the last step."""
        settings, accelerator = self.settings, self.accelerator
        return load_batches(
            source,
            start_step=self.step,
            # More than there will be, where their number is not known yet.
            stop_step=settings.steps if self._steps_by is None else AT_MOST * settings.steps,
            batch_size=settings.batch_size,
            accumulation=settings.accumulation,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            # A forked worker cannot use this process's GPU, nor should it hold a VAE of its own.
            workers=0 if encodes_in_step(source) else settings.workers,
            pin_memory=accelerator.device.type == "cuda",
        )

    def _told_patience(self) -> str:
        return (
            f"stopped: {self.waited} validations in a row were no better than val_loss {self.least:.4g} "
            f"(train_{self.task.name}.patience={self.task.patience})"
        )

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
            took = time.perf_counter() - start
            rows = {f"val_{k}": v for k, v in self.validation.items()}
            self.metrics.write(self.step, **rows, seconds=took)
            # What no clip can tell, such as of motion where none moves, is no number.
            known = {k: v for k, v in self.validation.items() if not math.isnan(v)}
            progress.note(self.step, "  ".join(f"val_{k} {v:.4g}" for k, v in known.items()))
            self._keep_best()
            self._set_steps(progress)
        for what, call in self._callbacks.items():
            if what in due and call is not None:
                weights = checkpoint.full_weights(self.model, self.ema)
                if self.accelerator.is_main_process:
                    call(self.step, weights)
                self.accelerator.wait_for_everyone()
        if "save" in due:
            self._save()
        return time.perf_counter() - start

    def _set_steps(self, progress: StepProgress) -> None:
        """Ask how many steps there are in all, while the learning rate stands on its plateau; more than were done."""
        if self._steps_by is None or self._is_falling or self.step >= self.settings.steps:
            return
        plateau = 1 - self.settings.decay_share
        steps = max(self._steps_by(self.step), math.ceil(self.step / plateau), self.step + 1)
        self.settings = self.settings.replace(steps=min(steps, AT_MOST * self.task.settings.steps))
        self.config[f"train_{self.task.name}"]["steps"] = self.settings.steps
        progress.expect(self.settings.steps)

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
        written = checkpoint.checkpoints(self.folder)
        clips = sorted({index for indices in recent for index in indices})
        shown = ", ".join(map(str, clips[:16])) + (", ..." if len(clips) > 16 else "")
        last = f"the last good checkpoint is {written[-1]}" if written else "there is no checkpoint yet"
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
            # Seldom run: not worth a graph of its own.
            with torch.compiler.set_stance("force_eager"):
                sums = self.task.validate(self.model, rank, world)
        finally:
            self.ema.restore(parameters)
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                # Drop gathered copies of the average that FSDP2 keeps for a backward pass.
                module.reshard()
        self.model.train()
        totals = {name: float(self.accelerator.reduce(value, "sum")) for name, value in sums.items()}
        counts = {name: totals.pop(name) for name in list(totals) if name.startswith("count")}
        means = {}
        for name, value in totals.items():
            count = counts.get(f"count_{name}", counts["count"])
            means[name] = value / count if count else math.nan
        return means

    def _keep_best(self) -> None:
        """Write the averaged weights down if no validation was better, else count it; of tasks that keep the best."""
        if not self.task.keeps_best:
            return
        loss = self.validation.get("loss", math.nan)
        if loss < self.least:
            self.least, self.waited = loss, 0
        else:
            self.waited += 1
        if not loss < self.best.get("loss", math.inf):
            return
        weights = checkpoint.full_weights(self.model, self.ema)
        self.best = {"step": self.step, **self.validation}
        if self.accelerator.is_main_process:
            checkpoint.save_best(self.folder.parent / "best", weights, self.best)
        self.accelerator.wait_for_everyone()

    def _save(self) -> None:
        precision = "bf16" if self.accelerator.mixed_precision == "bf16" else "fp32"
        name, best = self.task.name, (self.least, self.waited)
        state = checkpoint.TrainState(self.step, self.config, precision, name, self.inputs, *best)
        checkpoint.save(
            self.folder,
            state,
            self.accelerator,
            self.model,
            self.ema,
            self.optimizer,
            self.settings.keep_checkpoints,
        )

    def _resume(self, last: Path, state: checkpoint.TrainState) -> None:
        checkpoint.load(last, self.model, self.ema, self.optimizer)
        self.step = self.ema.optimization_step = state.step
        self.least, self.waited = state.least, state.waited
        self.metrics.rewind(state.step)
        if self._is_over:
            self.validation = self.metrics.validation(state.step)
        if self.accelerator.is_main_process:
            self._tell_resumed(last, state)

    def _tell_resumed(self, last: Path, state: checkpoint.TrainState) -> None:
        """Say from where the stage goes on, what was passed over, and what other steps do."""
        name, lines = self.task.name, []
        for place in checkpoint.passed_over(self.folder):
            lines.append(f"checkpoint {place} is damaged ({checkpoint.damage(place)}): passed over")
        if self._waits_in_vain:
            lines.append(f"{name} at step {self.step} {self._told_patience()}")
        elif self.step < self.settings.steps:
            lines.append(f"resuming {name} at step {self.step} from {last}")
        before = state.config.get(f"train_{name}", {}).get("steps", self.settings.steps)
        if before != self.settings.steps:
            meant = f"train_{name}.steps was {before} and is {self.settings.steps}"
            lines.append(f"{meant}: {steps_changed(self.step, before, self.settings)}")
        for line in lines:
            say(self.console, line, style="dim")
