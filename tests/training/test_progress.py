"""The metrics file survives a crash in the middle of a line and a run that is begun again."""

import shutil
from pathlib import Path

from accelerate import Accelerator
from rich.console import Console

from minisora.config import Config
from minisora.run_metrics import read_metrics
from minisora.training.progress import MetricsLog
from minisora.training.stages import train_dit


def test_a_line_cut_short_does_not_swallow_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "vae", "step": 1, "loss": 1.0}\n{"stage": "dit", "step": 1, "lo')
    log = MetricsLog(path, "dit", Accelerator(cpu=True))
    log.rewind(0)
    log.write(1, loss=2.0, val_loss=3.0)
    log.write(2, loss=4.0)
    rows = read_metrics(path)
    assert [(row["stage"], row["step"], row["loss"]) for row in rows] == [
        ("vae", 1, 1.0),
        ("dit", 1, 2.0),
        ("dit", 2, 4.0),
    ]
    assert log.validation(1) == {"loss": 3.0}
    assert log.validation(2) == {}
    with path.open("ab") as file:  # glued by an older version: only that line is lost
        file.write(b'{"stage": "di\xff{"stage": "dit", "step": 3}\n{"stage": "dit", "step": 4}\n')
    assert [row["step"] for row in read_metrics(path)] == [1, 1, 2, 4]


def test_a_run_killed_before_its_first_checkpoint_is_not_written_down_twice(
    tiny_config: Config, tiny_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    shutil.rmtree(run / "dit" / "checkpoints")
    train_dit(tiny_config, run, Console(quiet=True))
    assert read_metrics(run / "metrics.jsonl")[0]["stage"] == "vae"
    steps = [
        row["step"] for row in read_metrics(run / "metrics.jsonl") if row["stage"] == "dit" and "loss" in row
    ]
    assert steps == list(range(1, 13))
