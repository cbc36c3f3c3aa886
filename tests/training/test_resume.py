"""Killed and resumed, accumulated, or spread over two processes: the same losses as one uninterrupted run."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from minisora.config import Config, load, override
from minisora.config_files import config_folder
from minisora.data.batches import DiTBatch
from minisora.data.dataset import open_dataset
from minisora.data.folder.pack import pack_folder
from minisora.data.folder.scan import scan_folder
from minisora.data.shapes_world.shapes_dataset import make_shapes
from minisora.run_metrics import read_metrics
from minisora.training.checkpoint import checkpoints
from minisora.training.dit_task import Denoiser, DiTTask
from minisora.training.progress import MetricsLog
from minisora.training.stages import train_dit, train_vae

QUIET = Console(quiet=True)
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}


def losses(run: Path, stage: str) -> dict[int, float]:
    return {
        r["step"]: r["loss"]
        for r in read_metrics(run / "metrics.jsonl")
        if r["stage"] == stage and "loss" in r
    }


def steps_written(run: Path, stage: str) -> list[int]:
    return [r["step"] for r in read_metrics(run / "metrics.jsonl") if r["stage"] == stage and "loss" in r]


def link_vae(source: Path, run: Path) -> None:
    (run / "vae").mkdir(parents=True)
    (run / "vae" / "model").symlink_to(source / "vae" / "model")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_kill_9_and_resume_gives_the_losses_of_an_uninterrupted_run(
    optimizer: str, tiny_config_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    settings = ["train_dit.steps=400", "train_dit.save_every=20", f"train_dit.optimizer={optimizer}"]
    config = load(tiny_config_file, settings)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for run in (whole, killed):
        link_vae(tiny_run, run)
    train_dit(config, whole, QUIET)

    command = [
        sys.executable,
        "-m",
        "minisora",
        "train",
        "dit",
        "-c",
        str(tiny_config_file),
        "-o",
        str(killed),
    ]
    command += [part for setting in settings for part in ("-s", setting)]
    process = subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL)
    metrics = killed / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.is_file() and len(read_metrics(metrics)) > 50:
            break
        time.sleep(0.005)
    assert process.poll() is None, "the run was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = read_metrics(metrics)[-1]["step"]
    assert 20 <= last < 400
    train_dit(config, killed, QUIET)

    assert steps_written(killed, "dit") == list(range(1, 401))  # no step twice, none lost
    assert losses(killed, "dit") == losses(whole, "dit")
    for name in ("model", "ema", "optimizer"):
        a, b = (
            load_file(checkpoints(run / "dit" / "checkpoints")[-1] / f"{name}.safetensors")
            for run in (whole, killed)
        )
        assert a.keys() == b.keys()
        assert all(a[key].equal(b[key]) for key in a)


def test_accumulation_changes_no_loss(tiny_config: Config, tiny_run: Path, tmp_path: Path) -> None:
    link_vae(tiny_run, tmp_path)
    train_dit(override(tiny_config, ["train_dit.accumulation=2"]), tmp_path, QUIET)
    assert losses(tmp_path, "dit") == pytest.approx(losses(tiny_run, "dit"), rel=1e-4)


def test_dropout_is_resumed_alike_changes_training_and_nothing_else(
    tiny_config: Config, tiny_run: Path, tmp_path: Path
) -> None:
    settings = ["dit.dropout=0.2", "train_dit.steps=6", "train_dit.save_every=2", "train_dit.decay_share=0"]
    settings += ["train_dit.accumulation=2", "train_dit.validate_every=3"]
    config = override(tiny_config, settings)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for run in (whole, killed):
        link_vae(tiny_run, run)
    train_dit(config, whole, QUIET)
    train_dit(config.replace(**{"train_dit.steps": 4}), killed, QUIET)
    train_dit(config, killed, QUIET)
    assert losses(killed, "dit") == losses(whole, "dit")
    plain = tmp_path / "plain"
    link_vae(tiny_run, plain)
    train_dit(config.replace(**{"dit.dropout": 0.0}), plain, QUIET)
    assert losses(plain, "dit")[6] != losses(whole, "dit")[6]
    assert (plain / "model/dit/config.json").read_bytes() == (whole / "model/dit/config.json").read_bytes()


def test_altered_views_are_learned_but_in_the_last_steps_resumed_or_not(
    tiny_config: Config, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["train_dit.steps=8", "train_dit.save_every=2", "train_dit.decay_share=0.5"]
    # 48 clips in batches of 4: the last 2 steps.
    config = override(tiny_config, [*settings, "data.augment={views: 3, shift: 1, plain_epochs: 0.16}"])
    seen: list[list[int]] = []
    real = DiTTask.loss

    def loss(task: DiTTask, model: Denoiser, batch: DiTBatch) -> Any:
        seen.append(batch.indices)
        if len(seen) == killed_at:
            raise KeyboardInterrupt
        return real(task, model, batch)

    monkeypatch.setattr(DiTTask, "loss", loss)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for run in (whole, killed):
        link_vae(tiny_run, run)
    killed_at = 0
    train_dit(config, whole, QUIET)
    clips = len(open_dataset(config.replace(**{"data.augment": {}}), "train"))
    # Costs are counted on the first, before the steps.
    steps = seen[-8:]
    assert max(index for batch in steps[:6] for index in batch) >= clips
    assert all(index < clips for batch in steps[6:] for index in batch)
    seen.clear()
    killed_at = 7
    with pytest.raises(KeyboardInterrupt):
        train_dit(config, killed, QUIET)
    killed_at = 0
    train_dit(config, killed, QUIET)
    assert losses(killed, "dit") == losses(whole, "dit")
    # Where samples may be of altered views, they are learned to the end.
    seen.clear()
    train_dit(
        config.replace(**{"data.augment.plain_epochs": 0}),
        tmp_path / "all",
        QUIET,
        tiny_run / "vae" / "model",
    )
    assert max(index for batch in seen[-3:] for index in batch) >= clips


def _worse_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation losses that fall until a step and rise after it."""

    def validate(task: DiTTask, model: Denoiser, rank: int, world_size: int) -> dict[str, torch.Tensor]:
        assert not model.training
        done = max((r["step"] for r in read_metrics(task.metrics_file) if r["stage"] == "dit"), default=0)
        return {"loss": torch.tensor(1.0 + abs(done - step)), "count": torch.tensor(1.0)}

    monkeypatch.setattr(DiTTask, "validate", validate)


def test_patience_ends_a_stage_resumed_or_not(
    tiny_config: Config, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["train_dit.keep=best", "train_dit.patience=3", "train_dit.validate_every=1"]
    config = override(tiny_config, [*settings, "train_dit.save_every=4", "train_dit.decay_share=0"])
    _worse_after(4, monkeypatch)
    weights = []
    for name, first in (("whole", 0), ("stopped", 6)):
        run = tmp_path / name
        link_vae(tiny_run, run)
        monkeypatch.setattr(DiTTask, "metrics_file", run / "metrics.jsonl", raising=False)
        if first:
            train_dit(config.replace(**{"train_dit.steps": first}), run, QUIET)
        console = Console(record=True, width=200, file=io.StringIO())
        result = train_dit(config, run, console)
        assert result.validation == {"loss": 1.0}
        assert steps_written(run, "dit") == list(range(1, 8))
        line = "stopped: 3 validations in a row were no better than val_loss 1 (train_dit.patience=3)"
        assert console.export_text().count(line) == 1
        again = Console(record=True, width=200, file=io.StringIO())
        train_dit(config, run, again)
        assert again.export_text().count(f"dit at step 7 {line}") == 1
        assert steps_written(run, "dit") == list(range(1, 8))
        weights.append(load_file(run / "model/dit/diffusion_pytorch_model.safetensors"))
    assert all(weights[0][key].equal(weights[1][key]) for key in weights[0])
    # It may be given more.
    train_dit(config.replace(**{"train_dit.patience": 4}), run, QUIET)
    assert steps_written(run, "dit") == list(range(1, 9))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_train_as_one(
    kind: str, tiny_config_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(config_folder() / "accelerate" / f"{kind}.yaml"), "--num_processes", "2"]
    command += ["-m", "minisora", "train", "-c", str(tiny_config_file), "-o", str(tmp_path)]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 processes" in done.stdout

    for stage in ("vae", "dit"):
        assert losses(tmp_path, stage) == pytest.approx(losses(tiny_run, stage), rel=1e-4)
    last = checkpoints(tmp_path / "dit" / "checkpoints")[-1]
    ema, model = load_file(last / "ema.safetensors"), load_file(last / "model.safetensors")
    reference = load_file(checkpoints(tiny_run / "dit" / "checkpoints")[-1] / "ema.safetensors")
    first = load_file(checkpoints(tiny_run / "dit" / "checkpoints")[0] / "ema.safetensors")
    assert any(not ema[key].equal(model[key]) for key in ema)  # the average is not the last weights
    assert any(not ema[key].equal(first[key]) for key in ema)  # and it moves
    for key, value in reference.items():
        assert (ema[key] - value).abs().max() < 1e-4


def test_a_finished_run_is_not_trained_again(tiny_config: Config, tiny_run: Path) -> None:
    before = (tiny_run / "metrics.jsonl").read_bytes()
    train_vae(tiny_config, tiny_run, QUIET)
    assert (tiny_run / "metrics.jsonl").read_bytes() == before


def test_shards_killed_and_resumed_have_the_losses_of_the_folder(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, shards = tmp_path / "clips", tmp_path / "shards"
    make_shapes(clips, 24, 0, tiny_config.clip)
    pack_folder(scan_folder(clips, tiny_config.clip), shards, 40_960)
    assert len(list(shards.iterdir())) > 1
    settings = {"data.source": "folder", "train_vae.workers": 2, "train_vae.log_every": 1}
    loose, packed = (tiny_config.replace(**settings, **{"data.path": folder}) for folder in (clips, shards))
    for train in (train_vae, train_dit):
        train(loose, tmp_path / "loose", QUIET)

    def write(log: MetricsLog, step: int, **values: float) -> None:
        if step == 8 and "loss" in values:
            raise KeyError("killed")
        written(log, step, **values)

    written = MetricsLog.write
    for train in (train_vae, train_dit):
        monkeypatch.setattr(MetricsLog, "write", write)
        with pytest.raises(KeyError, match="killed"):
            train(packed, tmp_path / "packed", QUIET)
        monkeypatch.undo()
        train(packed, tmp_path / "packed", QUIET)
    for stage in ("vae", "dit"):
        assert len(losses(tmp_path / "loose", stage)) == 12
        assert losses(tmp_path / "packed", stage) == losses(tmp_path / "loose", stage)
