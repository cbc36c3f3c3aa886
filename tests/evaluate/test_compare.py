"""The experiments and their runner: what is written, what is printed, and what is refused before any work."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from minisora.data.shapes_world.grammar import ShapesPrompt, parse
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.evaluate.compare import (
    Sampling,
    StepsPoint,
    compare_modes,
    compare_sizes,
    compare_steps,
    enough,
    evaluate_folder,
    evaluate_prompts,
    loss_against,
    parse_sizes,
    parse_steps,
    run_experiment,
)
from minisora.evaluate.judge.verdict import judge_all
from minisora.evaluate.score import Score

QUIET = Console(quiet=True)
PROMPTS = [parse("a red circle moving left"), parse("a blue square moving up")]


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    file = tmp_path / "prompts.txt"
    file.write_text("a red circle moving left\na blue square moving right behind a gray wall\n")
    return str(file)


def test_a_model_and_its_run_are_evaluated_and_written_down(
    tiny_run: Path, tmp_path: Path, prompts: str
) -> None:
    console, out = Console(width=110, record=True, file=(tmp_path / "log").open("w")), tmp_path / "out"
    sampling = Sampling(tiny_run / "model", prompts, samples_per_prompt=2, steps=2, batch_size=3)
    run_experiment(out, console, lambda bar: evaluate_prompts(sampling, bar, tiny_run))
    written = json.loads((out / "evaluate.json").read_text())
    assert len(written["clips"]) == 4
    assert written["settings"] == {
        "samples_per_prompt": 2,
        "seed": 0,
        "num_inference_steps": 2,
        "guidance_scale": None,
        "size": [9, 32, 32],
        "model": str(tiny_run / "model"),
        "prompts": prompts,
    }
    assert written["judge"]["reconstructed"]["color"]["total"] == 144
    # Twelve steps of training.
    assert written["curves"]["finding"]["state"] == "stuck at predicting the mean"
    assert len(written["curves"]["loss_by_sigma"]["loss"]) == 8
    assert len(written["curves"]["nearest_training_clip"]["samples"]) == 8
    assert written["num_failures"] == 4
    assert (out / "failures.png").is_file()
    assert (out / "worst.png").is_file()
    assert written["score"]["whole"]["total"] == 4
    assert [clip["whole"] for clip in written["clips"]] == [False] * 4
    assert not list(out.glob("*.partial"))
    printed = console.export_text()
    assert "stuck at predicting the mean: its error" in printed
    assert "4 of 4 clips" in printed


@pytest.mark.slow
def test_the_sheet_of_an_earlier_evaluation_does_not_stay(tmp_path: Path) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    video = ShapesWorld(1).render([ShapesPrompt("red", "circle", "left")], 0)[0]
    write_video(clips / "a.mp4", video, 8)
    for color, wrong in (("blue", True), ("red", False)):
        (clips / "metadata.csv").write_text(f"file_name,text\na.mp4,a {color} circle moving left\n")
        run_experiment(out, QUIET, lambda bar: evaluate_folder(clips, bar))
        assert (out / "failures.png").exists() is wrong
        written = json.loads((out / "evaluate.json").read_text())
        assert written["num_failures"] == int(wrong)
        assert written["settings"] == {"size": [17, 64, 64], "videos": str(clips)}


def test_steps_are_compared_on_the_same_prompts(tiny_run: Path, tmp_path: Path, prompts: str) -> None:
    """The keys that `report --run` and the model card read."""
    sampling = Sampling(tiny_run / "model", prompts, guidance=1.0)
    run_experiment(tmp_path, QUIET, lambda bar: compare_steps(sampling, [2, 1], bar))
    written = json.loads((tmp_path / "steps.json").read_text())
    assert list(written) == ["settings", "enough_steps", "points"]
    assert list(written["settings"]) == ["model", "prompts", "seed", "guidance"]
    assert [(point["steps"], point["passes"]) for point in written["points"]] == [(1, 1), (2, 2)]
    assert set(written["points"][0]) == {"steps", "passes", "seconds_per_video", "score"}
    assert not list(tmp_path.glob("*.png"))


def test_every_size_is_sampled_judged_and_shown(tiny_run: Path, tmp_path: Path, prompts: str) -> None:
    sampling = Sampling(tiny_run / "model", prompts, steps=1, samples_per_prompt=2)
    sizes = parse_sizes("9x32x32, 5x32x48")
    run_experiment(tmp_path, QUIET, lambda bar: compare_sizes(sampling, sizes, bar))
    written = json.loads((tmp_path / "sizes.json").read_text())
    settings = ["model", "prompts", "samples_per_prompt", "seed", "steps", "guidance"]
    assert list(written["settings"]) == settings
    points = written["points"]
    assert [point["size"] for point in points] == [[9, 32, 32], [5, 32, 48]]
    assert all(point["score"]["all_right"]["total"] == 4 for point in points)
    assert set(points[0]) == {"size", "score", "judge_rendered", "seconds_per_video"}
    assert (tmp_path / "sizes.png").stat().st_size > 1000


def test_a_size_that_does_not_fit_is_refused_before_sampling(tiny_run: Path, tmp_path: Path) -> None:
    sampling = Sampling(tiny_run / "model")
    with pytest.raises(UserError, match="height 50 does not fit"):
        run_experiment(tmp_path, QUIET, lambda bar: compare_sizes(sampling, [(9, 32, 32), (9, 50, 32)], bar))
    assert not (tmp_path / "sizes.json").exists()


def test_every_mode_is_written_with_its_picture(
    tiny_run: Path, tmp_path: Path, prompts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a mode scores is tested in test_judge_modes.py; here, what becomes of it."""
    from minisora.evaluate import compare
    from minisora.evaluate.judge_modes import ModeScore
    from minisora.evaluate.score import Rate

    video = ShapesWorld(1).render(PROMPTS[:1], 0)[0]
    scores = {
        "day_to_night": ModeScore({"kept_path": Rate(1, 2)}, {"jump_px": float("nan")}, "a red circle", video)
    }
    monkeypatch.setattr(compare, "evaluate_modes", lambda *arguments, **options: scores)
    console = Console(width=110, record=True, file=(tmp_path / "log").open("w"))
    run_experiment(tmp_path, console, lambda bar: compare_modes(Sampling(tiny_run / "model", prompts), bar))
    written = json.loads((tmp_path / "modes.json").read_text())
    assert list(written["settings"]) == ["model", "prompts", "seed", "steps", "guidance"]
    assert written["modes"]["day_to_night"]["kept_path"]["right"] == 1
    assert written["modes"]["day_to_night"]["jump_px"] is None
    assert (tmp_path / "modes.png").is_file()
    assert "kept path" in console.export_text()


@pytest.mark.parametrize("text", ["64x64", "17x64xa", "17x64x0", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="write FRAMESxHEIGHTxWIDTH"):
        parse_sizes(text)


def point(steps: int, right: list[bool]) -> StepsPoint:
    score = Score.of(judge_all(ShapesWorld(1).render(PROMPTS, 0)), PROMPTS)  # not looked at
    return StepsPoint(steps, 2 * steps, score, 0.1, tuple(right))


def first(count: int, total: int = 200) -> list[bool]:
    return [i < count for i in range(total)]


def test_the_fewest_steps_that_lose_at_most_five_points_for_sure() -> None:
    points = [point(s, first(r)) for s, r in ((1, 0), (4, 190), (8, 196), (32, 199), (64, 198))]
    assert enough(points).steps == 8
    assert loss_against(points[1], points[-1])[0] == pytest.approx(0.04)  # below 5 points, but not surely
    assert loss_against(points[1], points[-1])[1] > 0.05
    few = [point(8, first(37, 40)), point(64, first(38, 40))]
    assert enough(few).steps == 64  # 40 prompts cannot tell


def test_only_prompts_judged_differently_count() -> None:
    same, other = point(4, first(100)), point(64, first(100))
    lost, bound = loss_against(same, other)
    assert lost == 0.0
    assert bound == pytest.approx(1.645 / 202)
    five = loss_against(point(4, [True] * 5), point(64, [True] * 5))[1]
    assert five == pytest.approx(1.645 / 7)  # five prompts prove little
    lost, bound = loss_against(
        point(4, [False, True] * 2 + first(66, 68)), point(64, [True, False] * 2 + first(66, 68))
    )
    assert bound == pytest.approx(1.645 * 5**0.5 / 74)  # Wald's interval with half a pair more of each kind
    assert enough([point(4, [True] * 5), point(64, [True] * 5)]).steps == 64
    swapped = point(4, [not right for right in first(100)])
    lost, bound = loss_against(swapped, other)
    assert lost == 0.0
    assert bound > 0.1


def test_lists_of_steps_are_read_and_refused_by_value() -> None:
    assert parse_steps("32") == [32]
    assert parse_steps("1,2, 4") == [1, 2, 4]
    for text in ("fast", "0,4", "4,4", "4,"):
        with pytest.raises(UserError, match="--steps"):
            parse_steps(text)
