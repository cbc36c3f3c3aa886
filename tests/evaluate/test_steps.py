import pytest

from minisora.data.shapes_world.grammar import parse
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.errors import UserError
from minisora.evaluate.judge.verdict import judge_all
from minisora.evaluate.score import Score
from minisora.evaluate.steps import StepsPoint, enough, loss_against, parse_steps

PROMPTS = [parse("a red circle moving left"), parse("a blue square moving up")]


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
