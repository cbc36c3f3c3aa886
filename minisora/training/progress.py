"""What a stage tells while it trains: a bar on a terminal, plain lines in a log file, and numbers in `metrics.jsonl`.

metrics.jsonl holds one JSON object a line, of all stages of a run; accelerate trackers get the same numbers.
"""

import json
import math
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Self

from accelerate import Accelerator
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from minisora.errors import UserError
from minisora.files import write_whole
from minisora.run_metrics import read_metrics
from minisora.screen import say

# How many lines a stage leaves in a log file.
_LINES = 10


class StepProgress:
    """Shows steps, loss, clips per second and time left.

    Args:
        console: where it is shown; a bar if it is a terminal, some ten lines if not.
        name: of the stage.
        start: steps done already.
        total: steps in all.
        unit: of what is counted, for a log file.
        at_least: steps between two lines there.
    """

    def __init__(
        self, console: Console, name: str, start: int, total: int, unit: str = "step", at_least: int = 1
    ):
        self.console, self.name, self.start, self.total = console, name, start, total
        self._counted = f"{name} {unit}".strip()
        self._began = time.perf_counter()
        self._line_every = max(at_least, total // _LINES)
        self._lines = start // self._line_every
        self._loss = self._rate = self._mfu = float("nan")
        self._silent = False
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task(name, total=total, completed=start, status="")

    def silenced(self) -> AbstractContextManager["StepProgress"]:
        """The same object, showing nothing: for all processes but the main one."""
        self._silent = True
        return nullcontext(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def expect(self, total: int) -> None:
        """There are so many steps in all from now on."""
        self.total = total
        self._bar.update(self._task, total=total)

    def update(
        self, step: int, loss: float | None = None, rate: float | None = None, mfu: float | None = None
    ) -> None:
        """Move to `step`; loss, rate (clips per second) and MFU (share of the measured peak) where they were read."""
        if self._silent:
            return
        if loss is not None and rate is not None and mfu is not None:
            self._loss, self._rate, self._mfu = loss, rate, mfu
        if self.console.is_terminal:
            # With the first step: where nothing is left to do, no bar is shown.
            self._bar.start()
            self._bar.update(self._task, completed=step, status=self._status())
        elif step // self._line_every > self._lines or step == self.total:
            self._lines = step // self._line_every
            done, spent = step - self.start, time.perf_counter() - self._began
            left = spent / max(1, done) * (self.total - step)
            parts = [
                f"{self._counted} {step}/{self.total}",
                self._status(),
                f"{spent:.0f} s, {left:.0f} s left",
            ]
            say(self.console, "  ".join(filter(None, parts)))

    def note(self, step: int, text: str) -> None:
        """A line that stays, above the bar."""
        if not self._silent:
            say(self.console, f"{self._counted} {step}/{self.total}  {text}")

    def _status(self) -> str:
        # Nothing was read yet.
        if math.isnan(self._loss):
            return ""
        return f"loss {self._loss:.4f}  {self._rate:.1f} clips/s  MFU {self._mfu:.0%}"


class MetricsLog:
    """Appends records of one stage; resuming drops what was written after the checkpoint.

    Args:
        path: the file; stages of a run share it.
        stage: its name, as of `Task`, written into every record.
        accelerator: its trackers get the same numbers; only the main process writes.
    """

    def __init__(self, path: Path, stage: str, accelerator: Accelerator):
        self.path, self.stage, self.accelerator = path, stage, accelerator

    def rewind(self, step: int) -> None:
        """Forget this stage's records after `step`, and a line cut short: no step is twice, all lines are whole."""
        if not self.accelerator.is_main_process or not self.path.is_file():
            return
        records = [r for r in read_metrics(self.path) if r["stage"] != self.stage or r["step"] <= step]
        write_whole(self.path, "".join(json.dumps(record) + "\n" for record in records))

    def validation(self, step: int) -> dict[str, float]:
        """This stage's validation after `step`; empty if there is no record of one."""
        if not self.path.is_file():
            return {}
        values: dict[str, float] = {}
        for record in read_metrics(self.path):
            if record["stage"] == self.stage and record["step"] == step:
                values |= {k.removeprefix("val_"): v for k, v in record.items() if k.startswith("val_")}
        return values

    def write(self, step: int, **values: float) -> None:
        """Record numbers of a step.

        Raises:
            UserError: the file cannot be written.
        """
        if not self.accelerator.is_main_process:
            return
        record = {"stage": self.stage, "step": step, **{k: float(f"{v:.6g}") for k, v in values.items()}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; free space and run again"
            ) from error
        self.accelerator.log({f"{self.stage}/{k}": v for k, v in values.items()}, step=step)
