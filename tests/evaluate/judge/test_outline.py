"""Rendered clips are whole; notched, doubled and stretched ones are found, by day and night and behind a wall."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from minisora.data.clips import to_float
from minisora.data.shapes_world.grammar import ShapesPrompt, parse
from minisora.data.shapes_world.shapes_dataset import ShapesTruth, ShapesWorld
from minisora.evaluate.judge.verdict import LEAST_OVERLAP, judge, judge_all
from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.score import Score

Draw = Callable[..., Tensor]
Truth = Callable[[str], ShapesTruth]
SQUARE, CIRCLE, TRIANGLE = (f"a red {shape} moving left" for shape in ("square", "circle", "triangle"))
# Wider than the room beside its wall: never wholly seen.
WIDE = "a green triangle moving right behind a gray wall"


def is_whole(video: Tensor, caption: str) -> bool:
    return judge(video).whole(parse(caption))


def notched(video: Tensor, truth: ShapesTruth, depth: float = 0.9) -> Tensor:
    """The upper right of the object, from near its centre on, in the colour of the background."""
    video = video.clone()
    for frame, (y, x) in enumerate(truth.centers.round().astype(int)):
        far, near = round(2 * truth.radius), round((1 - depth) * truth.radius)
        video[:, frame, max(y - far, 0) : y - near, x + near : x + far] = video[:, :1, 0, 0, None]
    return video


def with_blob(video: Tensor, frames: int, color: tuple[float, float, float], left: int, top: int) -> Tensor:
    """A square of 8 pixels in the first frames."""
    video = video.clone()
    video[:, :frames, top : top + 8, left : left + 8] = torch.tensor(color).view(3, 1, 1, 1)
    return video


@pytest.mark.parametrize("size", [(17, 64, 64), (5, 48, 80), (3, 96, 96)])
def test_rendered_clips_are_whole_at_other_sizes(size: tuple[int, int, int]) -> None:
    world = ShapesWorld(16, 3, *size, split="all")
    prompts = world.prompts(range(16))
    score = Score.of(judge_all(to_float(world.clips(range(16)))), prompts)
    assert (score.whole.share, score.quality["second"]) == (1, 0)
    assert score.quality["overlap"] > 0.94


@pytest.mark.slow
def test_every_rendered_prompt_is_whole() -> None:
    prompts = [parse(caption) for caption in prompt_set("all")] * 2
    score = Score.of(judge_all(ShapesWorld(1).render(prompts, 7)), prompts)
    assert score.whole.share == 1


@pytest.mark.parametrize("caption", [SQUARE, CIRCLE, TRIANGLE, f"{SQUARE} by day"])
def test_a_notch_is_found(draw: Draw, truth: Truth, caption: str) -> None:
    assert is_whole(draw(caption), caption)
    verdict = judge(notched(draw(caption), truth(caption)))
    assert verdict.overlap is not None
    assert verdict.overlap < LEAST_OVERLAP
    assert not verdict.whole(parse(caption))
    # What is notched in fewer than half of the frames is whole in the median.
    few = torch.cat([notched(draw(caption), truth(caption))[:, :6], draw(caption)[:, 6:]], dim=1)
    assert is_whole(few, caption)


@pytest.mark.parametrize("shape", ["square", "circle"])
@pytest.mark.parametrize("size", [(64, 80), (80, 64)])
def test_what_is_stretched_is_found(draw: Draw, shape: str, size: tuple[int, int]) -> None:
    caption = f"a blue {shape} moving up"
    verdict = judge(functional.interpolate(draw(caption), size, mode="bilinear"))
    assert verdict.overlap == pytest.approx(0.8, abs=0.06)
    assert not verdict.one_whole_object


@pytest.mark.parametrize("color", [(1.0, -1.0, -1.0), (-1.0, 1.0, -1.0)])
def test_a_second_object_is_found_however_near(draw: Draw, truth: Truth, color: tuple[float, ...]) -> None:
    exact, video = truth(SQUARE), draw(SQUARE)
    y, x = exact.centers[0].round().astype(int)
    # Two pixels between them, where a second blob is not yet looked for by `leftovers`.
    beside = x + round(exact.radius) + 2 if x < 32 else x - round(exact.radius) - 10
    still = video[:, :1].expand_as(video)
    verdict = judge(with_blob(still, 17, color, beside, y - 3))  # type: ignore[arg-type]
    assert (verdict.second, verdict.leftovers) == (1, 0)
    assert verdict.overlap is not None
    assert verdict.overlap > LEAST_OVERLAP
    far = [judge(with_blob(video, frames, color, 2, 2)) for frames in (1, 2)]  # type: ignore[arg-type]
    assert [each.second for each in far] == [1 / 17, 2 / 17]
    assert [each.whole(parse(SQUARE)) for each in far] == [True, False]  # 6 % of the frames may


def test_a_crumb_is_no_object(draw: Draw) -> None:
    video = draw(SQUARE)
    video[:, :, 2:5, 2:5] = torch.tensor([1.0, -1.0, -1.0]).view(3, 1, 1, 1)
    assert judge(video).second == 0
    assert is_whole(video, SQUARE)


def test_a_frame_with_hardly_anything_has_no_outline_and_is_judged(draw: Draw, truth: Truth) -> None:
    video = draw(SQUARE)
    ground, object_color = video[:, 5, 0, 0].clone(), torch.tensor([0.9, -0.8, -0.8])
    y, x = truth(SQUARE).centers[5].round().astype(int)
    # A pixel of a little more than half of the object's colour: between pixels none is covered by half.
    video[:, 5] = ground.view(3, 1, 1)
    video[:, 5, y, x] = torch.lerp(ground, object_color, 0.6)
    verdict = judge(video)
    assert is_whole(video, SQUARE)
    assert verdict.overlap is not None
    assert verdict.presence == pytest.approx(16 / 17)


def test_a_second_object_that_touches_the_first_spoils_its_outline(draw: Draw) -> None:
    video = draw(CIRCLE)
    assert not judge(torch.maximum(video, video.roll(12, dims=2))).one_whole_object


def test_behind_a_wall_what_is_visible_counts(draw: Draw) -> None:
    video = draw(WIDE)
    verdict = judge(video)
    assert verdict.overlap is not None
    assert verdict.overlap > 0.9
    assert (verdict.second, verdict.whole(parse(WIDE))) == (0, True)


def test_an_object_that_is_cut_by_the_frame_all_the_time_is_not_told() -> None:
    prompt = ShapesPrompt("red", "square", "still", size="large")
    world = ShapesWorld(1)
    video, exact = world.render([prompt], 1)[0], world.render_truth([prompt], 1)[0]
    top = round(exact.centers[0, 0] - 0.6 * exact.radius)
    verdict = judge(video[:, :, top:])
    assert (verdict.color, verdict.overlap) == ("red", None)
    assert not verdict.whole(prompt)
    assert judge(video).whole(prompt)


def test_nothing_is_no_whole_object() -> None:
    verdict = judge(torch.full((3, 5, 64, 64), -0.9))
    assert (verdict.overlap, verdict.second, verdict.one_whole_object) == (None, 0, False)


def test_day_and_night_are_alike(draw: Draw) -> None:
    night, day = (judge(draw(f"a white circle moving up {light}")) for light in ("at night", "by day"))
    assert day.overlap == pytest.approx(night.overlap, abs=0.01)


def test_verdicts_are_the_same_whatever_the_batch(draw: Draw, truth: Truth) -> None:
    captions = [SQUARE, CIRCLE, WIDE]
    videos = torch.stack([*map(draw, captions), notched(draw(SQUARE), truth(SQUARE))])
    alone = [judge(video) for video in videos]
    for size in (2, 4):
        assert [verdict for part in videos.split(size) for verdict in judge_all(part)] == alone
