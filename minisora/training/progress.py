"""Progress of a stage: a live bar with loss, throughput and ETA on a terminal, plain lines in a log file."""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from minisora.screen import say

_LINES = 10  # how many lines a stage leaves in a log file


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
        self._told = start // self._line_every
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

    def update(
        self, step: int, loss: float | None = None, rate: float | None = None, mfu: float | None = None
    ) -> None:
        """Move to `step`; loss, rate (clips per second) and MFU (share of the matmul peak) where they were read."""
        if self._silent:
            return
        if loss is not None and rate is not None and mfu is not None:
            self._loss, self._rate, self._mfu = loss, rate, mfu
        if self.console.is_terminal:
            self._bar.start()  # with the first step: where nothing is left to do, no bar is shown
            self._bar.update(self._task, completed=step, status=self._status())
        elif step // self._line_every > self._told or step == self.total:
            self._told = step // self._line_every
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
        if math.isnan(self._loss):  # nothing was read yet
            return ""
        return f"loss {self._loss:.4f}  {self._rate:.1f} clips/s  MFU {self._mfu:.0%}"
