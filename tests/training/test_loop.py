"""Ctrl-C at any moment: the step under way is finished and saved, and resuming gives an uninterrupted run."""

import io
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from minisora.config import Config, override
from minisora.errors import UserError
from minisora.run_metrics import read_metrics
from minisora.training.checkpoint import checkpoints
from minisora.training.dit_task import DiTTask
from minisora.training.stages import train_dit
from minisora.training.stop_signals import StopSignals

QUIET = Console(quiet=True)


def losses(run: Path) -> list[tuple[int, float]]:
    rows = read_metrics(run / "metrics.jsonl")
    return [(row["step"], row["loss"]) for row in rows if row["stage"] == "dit" and "loss" in row]


def signalling(real: Callable[..., Any], call: int) -> Callable[..., Any]:
    """The same function; at the end of that call Ctrl-C is pressed."""
    calls: list[None] = []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        calls.append(None)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return result

    return wrapped


def dit_run(source: Path, run: Path) -> None:
    (run / "vae").mkdir(parents=True)
    (run / "vae" / "model").symlink_to(source / "vae" / "model")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["optimizer", "validation"])
def test_ctrl_c_saves_a_whole_step_and_the_same_command_goes_on(
    where: str, tiny_config: Config, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dit_run(tiny_run, tmp_path)
    config = override(tiny_config, ["train_dit.save_every=100"])
    told = io.StringIO()
    with monkeypatch.context() as patch:
        if where == "optimizer":  # weights are a step ahead of the step number
            patch.setattr(torch.optim.AdamW, "step", signalling(torch.optim.AdamW.step, 4))
        else:  # the model holds the averaged weights
            patch.setattr(DiTTask, "validate", signalling(DiTTask.validate, 1))
        with pytest.raises(KeyboardInterrupt):
            train_dit(config, tmp_path, Console(file=told, width=200))
    step = 4 if where == "optimizer" else 6
    place = tmp_path / "dit" / "checkpoints" / f"step-{step:08d}"
    assert checkpoints(tmp_path / "dit" / "checkpoints") == [place]
    assert f"interrupted: {place} is saved, and the same command goes on from there" in told.getvalue()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train_dit(config, tmp_path, QUIET)
    assert losses(tmp_path) == losses(tiny_run)
    for name in ("model", "ema", "optimizer"):
        a, b = (
            load_file(run / "dit" / "checkpoints" / "step-00000012" / f"{name}.safetensors")
            for run in (tmp_path, tiny_run)
        )
        assert all(a[key].equal(b[key]) for key in a)


def test_ctrl_c_does_not_save_weights_that_are_not_finite(
    tiny_config: Config, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dit_run(tiny_run, tmp_path)
    real_step, real_loss = torch.optim.AdamW.step, DiTTask.loss
    monkeypatch.setattr(torch.optim.AdamW, "step", signalling(real_step, 1))

    def bad_loss(self: DiTTask, model: torch.nn.Module, batch: Any) -> Any:
        loss, parts = real_loss(self, model, batch)
        return loss * torch.nan, parts

    monkeypatch.setattr(DiTTask, "loss", bad_loss)
    with pytest.raises(UserError, match="not finite at step 0"):
        train_dit(tiny_config, tmp_path, QUIET)
    assert not checkpoints(tmp_path / "dit" / "checkpoints")


def test_the_first_signal_is_kept_and_the_second_interrupts_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    signals = StopSignals()

    def press_twice() -> None:
        with signals:
            signal.raise_signal(signal.SIGTERM)
            assert signals.heard
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second signal was kept too")

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(KeyboardInterrupt), StopSignals():  # and one that nobody looked for is not lost
        signal.raise_signal(signal.SIGINT)


def test_an_ignored_signal_stays_ignored_and_other_threads_do_not_listen() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGINT)
        assert not signals.heard
    finally:
        signal.signal(signal.SIGINT, before)
    found: list[Any] = []

    def listen() -> None:
        with StopSignals():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [before]
