"""A stage alone within minutes: planned once, kept, refused where it cannot hold; no clock is looked at."""

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from minisora.config import Config, load
from minisora.errors import UserError
from minisora.run_metrics import read_metrics
from minisora.training import distill, stage_minutes
from minisora.training.captioning import train_captioner
from minisora.training.distill import distill_model, teacher_of
from minisora.training.minutes import plan_file, stage_of
from minisora.training.stage_minutes import open_stage_plan, plan_stage

QUIET = Console(quiet=True)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A machine whose every time is known: seconds of a step, of the rest of a stage, of the process so far."""
    times = {"step": 0.5, "rest": 20.0, "begun": 32.0}
    monkeypatch.setattr(stage_minutes, "elapsed", lambda: times["begun"])
    monkeypatch.setattr(stage_minutes, "_time_stage", lambda *_: (times["step"], times["rest"]))
    return times


def untouched(config: Config, folder: Path, console: Console) -> None:
    """A training that no test of a plan alone begins."""
    pytest.fail("trained")


def test_the_steps_fill_the_minutes_and_are_kept(
    steady: dict[str, float], tiny_config: Config, tmp_path: Path
) -> None:
    plan = open_stage_plan(tmp_path, 4)
    config = plan_stage(plan, "caption", tiny_config, tmp_path, QUIET, untouched)
    spent = steady["begun"] + steady["rest"] + steady["step"] * config.train_caption.steps
    assert spent == pytest.approx(240, abs=10)
    steady["step"] = 5.0
    again = plan_stage(open_stage_plan(tmp_path, 4), "caption", tiny_config, tmp_path, QUIET, untouched)
    assert again == config
    with pytest.raises(UserError, match="planned for 4 minutes"):
        open_stage_plan(tmp_path, 5)


def test_too_few_minutes_are_refused_with_how_many_would_do(
    steady: dict[str, float], tiny_config: Config, tmp_path: Path
) -> None:
    steady["step"] = 4.0
    with pytest.raises(UserError, match=r"too few on this machine.*give --minutes (\d+)") as refused:
        plan_stage(open_stage_plan(tmp_path, 3), "dit", tiny_config, tmp_path, QUIET, untouched)
    assert not plan_file(tmp_path).exists()
    enough = int(str(refused.value).split("--minutes ")[1].split(",")[0])
    plan_stage(open_stage_plan(tmp_path, enough), "dit", tiny_config, tmp_path, QUIET, untouched)


@pytest.mark.slow
def test_a_captioner_and_a_student_are_timed_for_real_and_trained(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_minutes, "FEWEST_STEPS", 0)
    monkeypatch.setattr(distill, "elapsed", lambda: 0.0)
    monkeypatch.setattr(distill, "_TIMED", 2)
    monkeypatch.setattr(distill, "_MOST_SAMPLES", 3)

    def three(seconds: float, step: float, rest: float) -> object:
        planned = stage_of(seconds, step, rest)
        planned.steps = 3
        return planned

    monkeypatch.setattr(stage_minutes, "stage_of", three)
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    config = load(run / "config.yaml", ["train_caption.batch_size=4", "train_caption.views_in_all=6"])
    out = run / "captioner"

    def train(few: Config, folder: Path, console: Console) -> None:
        train_captioner(few, run, console, out=folder / "captioner")

    planned = plan_stage(open_stage_plan(out, 1), "caption", config, out, QUIET, train)
    train_captioner(planned, run, QUIET)
    assert not (out / "trial").exists()
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row["stage"] == "caption"]
    assert rows[-1]["step"] == 3

    student = tmp_path / "student"
    trained_by, teacher = teacher_of(tiny_run, student)
    few = ["train_dit.batch_size=2", "data.num_validation_clips=4"]
    distill_model(trained_by, teacher, student, QUIET, student_steps=2, overrides=few, minutes=1)
    assert (student / "model" / "model_index.json").is_file()
    assert open_stage_plan(student, 1).samples == 3
    assert not (student / "trial").exists()
    # Its plan has a warm-up of its own, with which the same command finds it finished.
    before = (student / "metrics.jsonl").read_text()
    distill_model(trained_by, teacher, student, QUIET, student_steps=2, overrides=few, minutes=1)
    assert (student / "metrics.jsonl").read_text() == before
