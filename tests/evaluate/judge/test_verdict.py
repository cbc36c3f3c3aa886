"""The judge is right where the truth is known, through blur and noise, and says where nothing can be told."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from minisora.data.clips import to_float
from minisora.data.shapes_world.grammar import ShapesPrompt, parse
from minisora.data.shapes_world.shapes_dataset import ShapesTruth, ShapesWorld
from minisora.errors import UserError
from minisora.evaluate.judge.follow import observe
from minisora.evaluate.judge.verdict import ATTRIBUTES, judge, judge_all
from minisora.evaluate.score import Score

Draw = Callable[..., Tensor]
Truth = Callable[[str], ShapesTruth]
Worsen = Callable[[float, float, float], Callable[[Tensor], Tensor]]
WALL = "a small red circle moving left behind a gray wall"


def judged(
    count: int,
    seed: int,
    size: tuple[int, int, int] = (17, 64, 64),
    change: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """The share of rendered clips, held-out triples too, of which each attribute is judged right."""
    world = ShapesWorld(count, seed, *size, split="all")
    clips = to_float(world.clips(range(count)))
    score = Score.of(judge_all(change(clips) if change else clips), world.prompts(range(count)))
    return {name: getattr(score, name).share for name in (*ATTRIBUTES, "permanence")}


@pytest.mark.slow
def test_clean_clips_are_judged_right() -> None:
    right = judged(100, seed=3)
    assert right == dict.fromkeys(right, 1.0)


@pytest.mark.parametrize("size", [(5, 64, 64), (17, 48, 80), (9, 96, 96), (33, 32, 32)])
def test_other_sizes_and_lengths(size: tuple[int, int, int]) -> None:
    right = judged(30, seed=4, size=size)
    assert min(right[name] for name in ATTRIBUTES) == 1.0


@pytest.mark.parametrize(("sigma", "noise", "gain"), [(1.0, 0.04, 0.05), (2.0, 0.06, 0.15)])
def test_blur_noise_and_tint_mislead_hardly(
    worsen: Worsen,
    sigma: float,
    noise: float,
    gain: float,
) -> None:
    right = judged(40, seed=5, change=worsen(sigma, noise, gain))
    assert min(right[name] for name in ATTRIBUTES) >= 0.97  # one of 40


@pytest.mark.parametrize("color", ["white", "yellow", "blue", "purple", "red", "green"])
@pytest.mark.parametrize("light", ["day", "night"])
def test_every_color_on_every_light(worsen: Worsen, color: str, light: str) -> None:
    prompt = parse(f"a small {color} square moving up {'by day' if light == 'day' else 'at night'}")
    video = worsen(1.5, 0.08, 0.1)(ShapesWorld(1).render([prompt], 7))[0]
    assert all(judge(video).matches(prompt).values()), judge(video)


@pytest.mark.parametrize("caption", ["a large blue triangle moving down by day", WALL])
def test_centers_and_masks_follow_the_object(draw: Draw, truth: Truth, caption: str) -> None:
    found, exact = observe(draw(caption)).object, truth(caption)
    assert found is not None
    known = exact.visibility > 0.6
    np.testing.assert_allclose(found.centers[known], exact.centers[known], atol=0.2)
    assert found.fit.radius == pytest.approx(exact.radius, rel=0.02)
    whole = exact.visibility == 1
    np.testing.assert_allclose(found.masks.sum(axis=(1, 2))[whole], found.areas[whole], rtol=0.1)
    assert found.masks[~known & (exact.visibility == 0)].sum() == 0


def test_a_clip_without_object_matches_no_prompt() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (3, 17, 64, 64)
    for video in (
        torch.full(shape, -0.9),
        torch.ones(shape),
        torch.randn(shape, generator=generator).clamp(-1, 1),
        (0.1 * torch.randn(shape, generator=generator) - 0.8).clamp(-1, 1),
        functional.pad(torch.ones(3, 17, 50, 50), (7, 7, 7, 7), value=-1.0),  # too large for this world
    ):
        verdict = judge(video)
        assert (verdict.color, verdict.shape, verdict.motion, verdict.size) == (None,) * 4
        assert verdict.presence == 0
        matches = verdict.matches(parse("a red circle moving left"))
        assert not any(matches[name] for name in ("color", "shape", "motion", "size"))


def test_unsaid_is_medium_at_night_and_without_a_wall(draw: Draw) -> None:
    verdict = judge(draw("a green square moving right"))
    assert set(verdict.matches(ShapesPrompt("green", "square", "right"))) == set(ATTRIBUTES)
    assert all(verdict.matches(ShapesPrompt("green", "square", "right")).values())
    wrong = ShapesPrompt("blue", "circle", "left", size="small", wall=True, light="day")
    assert not any(verdict.matches(wrong).values())


def test_one_frame_has_no_motion_but_all_else(draw: Draw) -> None:
    verdict = judge(draw("a yellow triangle moving down by day")[:, :1])
    assert (verdict.color, verdict.shape, verdict.light, verdict.motion) == (
        "yellow",
        "triangle",
        "day",
        None,
    )


def test_crooked_and_uneven_paths_show(draw: Draw) -> None:
    video = draw("a red circle moving left")
    straight = judge(video)
    assert straight.path_error is not None
    assert straight.path_error < 0.05
    assert straight.speed_error is not None
    assert straight.speed_error < 0.005
    shaken = torch.stack([video[:, t].roll(3 * (-1) ** t, dims=1) for t in range(17)], dim=1)
    crooked = judge(shaken)
    assert crooked.motion == "left"
    assert crooked.path_error == pytest.approx(3, rel=0.1)
    assert crooked.path_error_share == pytest.approx(3 / 64, rel=0.1)
    halting = video.clone()
    halting[:, 8:] = video[:, 8:9]
    uneven = judge(halting).speed_error
    assert uneven is not None
    assert uneven > 0.1


def test_a_second_blob_is_a_leftover_and_does_not_move_the_first(draw: Draw) -> None:
    video = draw("a red circle moving left")
    twice = torch.maximum(video, video.roll(30, dims=2))
    verdict = judge(twice)
    assert verdict.leftovers == 1
    assert (verdict.shape, verdict.motion) == ("circle", "left")
    assert verdict.path_error is not None
    assert verdict.path_error < 0.1
    other = video.clone()
    other[:, :4, 2:14, 2:14] = torch.tensor([-1.0, 1.0, -1.0]).view(3, 1, 1, 1)
    assert judge(other).leftovers == pytest.approx(4 / 17)
    assert judge(video).leftovers == 0


def test_flicker_is_the_mean_change_of_the_background(draw: Draw) -> None:
    video = draw("a red circle moving left")
    assert judge(video).flicker < 1e-4
    sign = torch.tensor([(-1.0) ** t for t in range(17)]).view(1, 17, 1, 1)
    assert judge(video * 0.9 + 0.02 * sign).flicker == pytest.approx(0.02, rel=0.05)


def test_vanishing_lowers_presence(draw: Draw) -> None:
    video = draw("a red circle moving left")
    video[:, 10:] = video[:, :1, :1, :1]
    assert judge(video).presence == pytest.approx(10 / 17)


def test_permanence_is_of_the_same_object_in_the_right_place(draw: Draw, truth: Truth) -> None:
    video, hidden = draw(WALL), int(np.nonzero(truth(WALL).visibility < 0.01)[0][0])

    def after(other: Tensor) -> bool | None:
        return judge(torch.cat([video[:, :hidden], other[:, hidden:]], dim=1)).permanence

    assert after(video) is True
    assert judge(draw("a small red circle moving left")).permanence is None  # no wall
    assert after(video[:, hidden : hidden + 1].expand_as(video)) is False  # never came out
    assert after(draw(WALL.replace("red", "blue"))) is False
    whitish = draw(WALL.replace("red", "yellow"))[:, hidden:]
    assert (
        judge(torch.cat([draw(WALL.replace("red", "white"))[:, :hidden], whitish], dim=1)).permanence is False
    )
    assert after(draw(WALL.replace("circle", "square"))) is False
    assert after(draw(WALL.replace("circle", "triangle"))) is False
    assert after(video.roll(-10, dims=2)) is False  # came out higher
    assert after(video.roll(3, dims=1)) is False  # came out late
    no_wall = draw(WALL.replace(" behind a gray wall", ""))
    shape = (no_wall - no_wall[:, :1, :1, :1]).abs().sum(dim=0) > 0.6
    assert judge(torch.where(shape, no_wall, video)).permanence is False  # passed in front of it


def test_a_verdict_depends_on_its_clip_alone() -> None:
    world = ShapesWorld(4, seed=9)
    videos = to_float(world.clips(range(4)))
    assert judge_all(videos) == [judge(video) for video in videos.flip(0)][::-1]


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match=r"3 T H W.*\(4, 8, 8\)"):
        judge(torch.zeros(4, 8, 8))
    with pytest.raises(UserError, match="uint8"):
        judge(torch.zeros(3, 4, 8, 8, dtype=torch.uint8))
    with pytest.raises(UserError, match="not finite"):
        judge(torch.full((3, 4, 32, 32), float("nan")))
    with pytest.raises(UserError, match="B 3 T H W"):
        judge_all(torch.zeros(3, 4, 32, 32))


def test_a_formless_object_has_a_color_and_a_motion_but_no_shape() -> None:
    video = torch.full((3, 9, 64, 64), -0.9)
    for t in range(9):
        left = 5 + 4 * t
        video[0, t, 20:40, left : left + 6] = 0.8  # an L
        video[0, t, 34:40, left : left + 20] = 0.8
    verdict = judge(video)
    assert (verdict.color, verdict.motion, verdict.shape) == ("red", "right", None)
