from collections.abc import Sequence

import pytest

from minisora.data.captions import parse
from minisora.data.shapes import ShapesWorld
from minisora.errors import UserError
from minisora.evaluate.judge import Verdict, judge_all
from minisora.evaluate.score import Score
from minisora.evaluate.steps import StepsPoint, enough, parse_steps

PROMPTS = [parse("a red circle moving left"), parse("a blue square moving up")]


def point(steps: int, right: int, verdicts: Sequence[Verdict]) -> StepsPoint:
    """A point at which the first `right` of 40 clips are as asked for."""
    wrong = list(reversed(verdicts))
    shown = [verdicts[i % 2] if i < right else wrong[i % 2] for i in range(40)]
    return StepsPoint(steps, 2 * steps, Score.of(shown, [PROMPTS[i % 2] for i in range(40)]), 0.1)


def test_the_fewest_steps_that_cannot_be_told_from_the_best() -> None:
    verdicts = judge_all(ShapesWorld(1).render(PROMPTS, 0))
    points = [point(s, r, verdicts) for s, r in ((1, 0), (4, 30), (8, 37), (32, 39), (64, 38))]
    assert points[3].score.all_right.right == 39
    assert enough(points).steps == 8
    assert enough(points[:2]).steps == 4


def test_lists_of_steps_are_read_and_refused_by_value() -> None:
    assert parse_steps("32") == [32]
    assert parse_steps("1,2, 4") == [1, 2, 4]
    for text in ("fast", "0,4", "4,4", "4,"):
        with pytest.raises(UserError, match="--steps"):
            parse_steps(text)
