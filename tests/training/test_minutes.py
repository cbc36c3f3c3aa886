"""A plan of minutes: shared out, kept over an interruption, refused where it cannot hold; no clock is looked at."""

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from minisora.config import AugmentConfig, Config, load
from minisora.data.dataset import open_dataset
from minisora.data.shapes_world.shapes_dataset import make_shapes
from minisora.errors import UserError
from minisora.training import minutes, trial
from minisora.training.minutes import (
    BY_HEART,
    ENOUGH,
    Enough,
    Pace,
    Plan,
    StagePlan,
    make_plan,
    open_plan,
    pace_of,
    plan_file,
    settle,
)
from minisora.training.trial import LAW, LOSS_LAW, expected_loss

QUIET = Console(quiet=True)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A machine whose every time is known: seconds of a step by width, of a clip, of the process so far."""
    times = {"vae": 0.1, "more": 5.0, "reading": 3.0, "encoding": 1.0, "begun": 10.0}
    monkeypatch.setattr(minutes, "elapsed", lambda: times["begun"])
    monkeypatch.setattr(minutes, "time_vae", lambda *_: (times["vae"], times["more"]))
    monkeypatch.setattr(minutes, "time_clips", lambda *_: (times["reading"], times["encoding"]))

    def sizes(
        config: Config, trial: Path, console: Console, seconds: float, *_: list[str]
    ) -> list[dict[str, float]]:
        tried = []
        for width, depth, params, step in ((64, 3, 2e5, 0.02), (96, 5, 7e5, 0.05), (192, 8, 4e6, 0.3)):
            compute = 6 * params * 32 * 80 * max(1.0, seconds) / step
            best = LAW["k"] * compute ** LAW["a"]
            tried.append(
                {"width": width, "depth": depth, "params": params, "step_seconds": step, "more_seconds": 4.0}
                | {"steps": seconds / step, "flops": compute, "best_params": best}
            )
        return tried

    monkeypatch.setattr(minutes, "time_sizes", sizes)
    return times


def test_all_that_is_planned_takes_the_minutes_asked_for(
    steady: dict[str, float], tiny_config: Config, tmp_path: Path
) -> None:
    plan = make_plan(tiny_config, tmp_path, QUIET, 10)
    vae, dit = plan.stages["vae"], plan.stages["dit"]
    spent = steady["begun"] + plan.encoding + vae.seconds + dit.seconds
    assert spent == pytest.approx(600, abs=10)
    assert vae.steps * vae.step_seconds + steady["more"] + steady["reading"] == pytest.approx(
        vae.seconds, abs=1
    )
    assert dit.steps * dit.step_seconds + 4 == pytest.approx(dit.seconds, abs=1)


def test_more_minutes_choose_a_larger_dit(
    steady: dict[str, float], tiny_config: Config, tmp_path: Path
) -> None:
    few, many = (make_plan(tiny_config, tmp_path, QUIET, each) for each in (2, 240))
    assert few.dit["width"] < many.dit["width"]


def test_a_slow_vae_is_paid_by_the_dit_of_what_is_left(
    steady: dict[str, float], tiny_config: Config, tmp_path: Path
) -> None:
    plan = make_plan(tiny_config, tmp_path, QUIET, 10)
    planned = plan.stages["dit"].steps
    settle(plan, tmp_path, "dit", left=plan.stages["dit"].seconds + plan.encoding - 60)
    assert plan.stages["dit"].steps == pytest.approx(planned - 60 / plan.stages["dit"].step_seconds, abs=2)
    assert plan.settled
    # A VAE that took all of the time leaves no model of one step.
    settle(plan, tmp_path, "dit", left=-100)
    assert plan.stages["dit"].steps == minutes.FEWEST_STEPS
    pace = pace_of(plan, tmp_path, "dit", end=0, decay_share=0.4)
    for step in (8, 16, 24):
        steady["begun"] += 1
        assert pace(step) == minutes.FEWEST_STEPS


def test_a_plan_does_not_go_on_from_what_a_killed_one_tried(
    steady: dict[str, float], tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "trial" / "vae" / "checkpoints"
    left.mkdir(parents=True)

    def time_vae(config: Config, trial: Path, console: Console) -> tuple[float, float]:
        assert not left.exists()
        return 0.1, 5.0

    monkeypatch.setattr(minutes, "time_vae", time_vae)
    assert make_plan(tiny_config, tmp_path, QUIET, 10).stages["dit"].steps > minutes.FEWEST_STEPS


def test_a_machine_that_gets_slower_takes_fewer_steps(
    steady: dict[str, float], tiny_config: Config, tmp_path: Path
) -> None:
    plan = make_plan(tiny_config, tmp_path, QUIET, 10)
    planned = plan.stages["dit"].steps
    pace = pace_of(plan, tmp_path, "dit", end=600, decay_share=0.4)
    steady["begun"] = 300
    assert pace(100) == planned
    # Half a second a step between two validations, and 250 seconds are left.
    steady["begun"] = 350
    assert pace(200) == 200 + 500
    assert open_plan(tiny_config, tmp_path, QUIET, 10).stages["dit"].steps == 700
    # A checkpoint is resumed with the warm-up that it had.
    assert plan.stages["dit"].warmup == 50
    # What is late already ends as soon as its learning rate has fallen.
    steady["begun"] = 650
    assert pace(300) == 500
    # One that may not take more than its config's steps takes no more, however fast it gets.
    steady["begun"] = 0
    pace = Pace(400, 600, lambda _: None, decay_share=0.4, most=400)
    assert pace(100) == 400
    steady["begun"] = 10
    assert pace(200) == 400
    assert plan.apply(tiny_config).train_dit.warmup_steps == 50


def test_a_vae_that_copies_what_moves_well_leaves_the_rest_of_its_time(
    steady: dict[str, float], tiny_config: Config, tmp_path: Path
) -> None:
    plan = open_plan(tiny_config, tmp_path, QUIET, 10)
    planned = plan.stages["vae"].steps
    enough, log = Enough(plan, tmp_path, decay_share=0.4), tmp_path / "metrics.jsonl"
    for step, decibels, steps in ((60, ENOUGH - 1, planned), (90, ENOUGH, 150)):
        with log.open("a") as file:
            file.write(json.dumps({"stage": "vae", "step": step, "val_psnr_moving": decibels}) + "\n")
        # The rate falls for the last two fifths in either case.
        assert enough(step) == steps
    assert open_plan(tiny_config, tmp_path, QUIET, 10).stages["vae"].steps == 150 < planned


def test_clips_that_would_be_seen_too_often_are_seen_in_views(
    steady: dict[str, float], tiny_config: Config, tmp_path: Path
) -> None:
    make_shapes(tmp_path / "clips", 40, 0, tiny_config.clip, progress=False)
    footage = tiny_config.replace(**{"data.source": "folder", "data.path": tmp_path / "clips"})
    few, many = (
        make_plan(footage.replace(**{"train_dit.batch_size": size}), tmp_path, QUIET, 2) for size in (1, 32)
    )
    count = len(open_dataset(footage, "train"))
    assert few.stages["dit"].steps / count < BY_HEART <= 32 * many.stages["dit"].steps / count
    assert few.augment == {}
    assert many.augment == {"views": 3, "shift": 2}
    assert many.encoding == 3 * few.encoding
    assert many.apply(footage).data.augment == AugmentConfig(views=3, shift=2)
    # Who says how clips are altered is asked no more, and a world that is drawn has clips enough.
    recolored = footage.replace(**{"data.augment": {"views": 2, "color": 0.2}, "train_dit.batch_size": 32})
    for config in (recolored, tiny_config.replace(**{"train_dit.batch_size": 32})):
        assert make_plan(config, tmp_path, QUIET, 2).augment == {}


def test_a_run_that_goes_on_keeps_its_plan(
    steady: dict[str, float], tiny_config: Config, tmp_path: Path
) -> None:
    first = open_plan(tiny_config, tmp_path, QUIET, 10)
    steady["vae"] = 0.5
    assert open_plan(tiny_config, tmp_path, QUIET, 10) == first
    with pytest.raises(UserError, match="planned for 10 minutes"):
        open_plan(tiny_config, tmp_path, QUIET, 20)
    plan_file(tmp_path).write_text("{}")
    with pytest.raises(UserError, match="delete it"):
        open_plan(tiny_config, tmp_path, QUIET, 10)


@pytest.mark.parametrize("slow", [{"vae": 5.0}, {"reading": 170.0}, {"more": 60.0}])
def test_too_few_minutes_are_refused_with_how_many_would_do(
    slow: dict[str, float], steady: dict[str, float], tiny_config: Config, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="at least 1"):
        open_plan(tiny_config, tmp_path, QUIET, 0.5)
    steady |= slow
    with pytest.raises(UserError, match=r"too few on this machine.*give --minutes (\d+)") as refused:
        open_plan(tiny_config, tmp_path, QUIET, 3)
    enough = int(str(refused.value).split("--minutes ")[1].split(",")[0])
    assert enough > 3
    assert make_plan(tiny_config, tmp_path, QUIET, enough).stages["vae"].steps >= 60
    assert not plan_file(tmp_path).exists()


def test_the_config_of_a_plan_has_its_steps_and_its_size(tiny_config: Config) -> None:
    stages = {"vae": StagePlan(400, 40, 0.1), "dit": StagePlan(1000, 100, 0.1)}
    config = Plan(3, "cpu", stages, {"width": 96, "depth": 5, "heads": 3}).apply(tiny_config)
    assert (config.train_vae.steps, config.train_dit.steps, config.dit.width) == (400, 1000, 96)
    assert config.train_dit.validate_every == 125


def test_the_law_is_the_ladders() -> None:
    law = json.loads((Path(__file__).parents[2] / "benchmarks/results/ladder/law.json").read_text())
    assert law["size_law"]["constants"] == pytest.approx(LAW)
    assert law["budget_law"]["constants"] == pytest.approx(LOSS_LAW)


def test_a_loss_is_expected_only_on_latents_that_the_law_was_fitted_to() -> None:
    toy = load("toy", ["train_vae.scale_equivariance=0"])
    law = json.loads((Path(__file__).parents[2] / "benchmarks/results/ladder/law.json").read_text())
    for optimum in law["optima"]:
        told = expected_loss(toy, optimum["flops"])
        assert told == pytest.approx(optimum["loss"], rel=0.06)
    assert expected_loss(toy.replace(**{"vae.latent_channels": 16}), 1e13) is None
    assert expected_loss(load("toy"), 1e13) is None
    assert (
        expected_loss(load("clips", changes={"data.source": "folder", "data.path": Path("x")}), 1e13) is None
    )


def test_minutes_taken_are_those_of_every_command_that_trained(
    steady: dict[str, float], tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def train() -> float:
        minutes.train_for_minutes(tiny_config, tmp_path, QUIET, 10)
        return open_plan(tiny_config, tmp_path, QUIET, 10).taken

    monkeypatch.setattr(minutes, "train_vae", lambda *_, **__: None)
    monkeypatch.setattr(minutes, "train_dit", stopped)
    with pytest.raises(KeyboardInterrupt):
        train()
    monkeypatch.setattr(minutes, "train_dit", lambda *_, **__: None)
    steady["begun"] = 32.5
    assert train() == 42.5
    # A look at a finished run takes none of its minutes.
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    assert train() == 42.5


@pytest.mark.slow
def test_a_real_plan_trains_a_model(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step for real, with the clock of the minutes held: what is tried is gone, what is planned is trained."""
    monkeypatch.setattr(minutes, "FEWEST_STEPS", 1)
    monkeypatch.setattr(minutes, "pace_of", lambda *_: None)
    monkeypatch.setattr(minutes, "ENOUGH", math.inf)
    monkeypatch.setattr(trial, "SIZES", ((32, 1),))
    monkeypatch.setattr(minutes, "stage_of", lambda seconds, step, *_: StagePlan(3, seconds, step))
    console = Console(file=io.StringIO(), width=100)
    config = minutes.train_for_minutes(tiny_config, tmp_path / "run", console, 5)
    assert (config.train_vae.steps, config.train_dit.steps) == (3, 3)
    assert (tmp_path / "run" / "model" / "model_index.json").is_file()
    assert not (tmp_path / "run" / "trial").exists()
    assert "plan for 5 minutes" in console.file.getvalue()  # type: ignore[attr-defined]
