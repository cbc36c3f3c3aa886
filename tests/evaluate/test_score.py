"""Counts, Wilson intervals, and seen and held-out triples apart."""

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from torch import Tensor

from minisora.data.shapes_world.grammar import parse
from minisora.errors import UserError
from minisora.evaluate.judge.verdict import judge
from minisora.evaluate.score import Rate, Score

Draw = Callable[..., Tensor]
SEEN, HELD_OUT = "a red square moving left", "a red circle moving left"
WALL = "a small blue circle moving right behind a gray wall"


def test_wilson_interval() -> None:
    low, high = Rate(8, 10).interval  # Newcombe 1998 gives the same to four digits
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert Rate(10, 10).interval[1] == pytest.approx(1)
    assert Rate(10, 10).interval[0] == pytest.approx(0.7225, abs=1e-4)
    assert Rate(0, 0).interval == (0, 1)
    assert math.isnan(Rate(0, 0).share)
    assert str(Rate(8, 10)).startswith("80.0% (8/10, 95 % interval 49.0% to 94.3%")


def test_score_counts_each_attribute_and_splits_by_triple(draw: Draw) -> None:
    prompts = [parse(caption) for caption in (SEEN, HELD_OUT, WALL)]
    right = [judge(draw(caption)) for caption in (SEEN, HELD_OUT, WALL)]
    score = Score.of(right, prompts)
    assert (score.all_right, score.whole, score.permanence) == (Rate(3, 3), Rate(3, 3), Rate(1, 1))
    assert score.seen is not None
    assert score.held_out is not None
    assert (score.seen.all_right, score.held_out.all_right) == (Rate(2, 2), Rate(1, 1))

    wrong = [right[0], replace(right[1], shape="square", size="large"), replace(right[2], permanence=None)]
    score = Score.of(wrong, prompts)
    assert (score.color, score.shape, score.all_right) == (Rate(3, 3), Rate(2, 3), Rate(2, 3))
    assert (score.size, score.permanence) == (Rate(2, 3), Rate(0, 1))
    assert score.held_out is not None
    assert score.held_out.all_right == Rate(0, 1)
    assert score.held_out.permanence == Rate(0, 0)


def test_whole_is_right_of_one_object_with_its_outline(draw: Draw) -> None:
    prompt, right = parse(SEEN), judge(draw(SEEN))
    frames = [replace(right, second=share) for share in (1 / 17, 2 / 17)]
    outlines = [replace(right, overlap=overlap) for overlap in (0.85, 0.84, None)]
    verdicts = [*frames, *outlines, replace(right, color="blue")]
    score = Score.of(verdicts, [prompt] * 6)
    assert [verdict.whole(prompt) for verdict in verdicts] == [True, False, True, False, False, False]
    assert (score.all_right, score.whole) == (Rate(5, 6), Rate(2, 6))
    assert score.quality["second"] == pytest.approx(3 / 17 / 6)


def test_score_is_json(draw: Draw) -> None:
    prompts = [parse(SEEN)]
    told = json.loads(json.dumps(Score.of([judge(draw(SEEN))], prompts).to_dict(), allow_nan=False))
    assert told["all_right"]["share"] == 1
    assert told["permanence"]["share"] is None
    assert told["seen"]["color"]["total"] == 1
    assert "held_out" not in told
    assert told["quality"]["presence"] == 1


def test_counts_must_agree(draw: Draw) -> None:
    with pytest.raises(UserError, match="1 verdicts and 2 prompts"):
        Score.of([judge(draw(SEEN))], [parse(SEEN)] * 2)
    with pytest.raises(UserError, match="0 verdicts"):
        Score.of([], [])
