"""Which clips are sampled and compared with which."""

from collections import Counter

import numpy as np
import pytest

from minisora.evaluate.clip_sets import EACH, matching, mean, prompts_of


def test_held_out_captions_are_sampled_in_turn_and_rare_ones_a_few_times() -> None:
    captions = ["a"] * 10 + ["b"]
    prompts = prompts_of(captions, 22)
    assert prompts[:11] == prompts[11:22] == captions
    assert Counter(prompts) == {"a": 20, "b": EACH}
    assert prompts_of(["a", "b", "c"], 2) == ["a", "b"]


def test_a_match_has_the_same_caption_where_there_is_one_and_is_taken_once() -> None:
    training = ["a", "b", "b", "c", "d"]
    chosen = matching(["b", "b", "a", "x"], training, np.random.default_rng(0))
    assert [training[i] for i in chosen[:3]] == ["b", "b", "a"]
    assert training[chosen[3]] in {"c", "d"}
    assert len(set(chosen)) == 4
    draws = {tuple(matching(["b"], training, np.random.default_rng(seed))) for seed in range(9)}
    assert draws == {(1,), (2,)}


def test_a_set_with_fewer_clips_than_are_wanted_gives_some_twice() -> None:
    assert Counter(matching(["x"] * 5, ["a", "b"], np.random.default_rng(0))).total() == 5
    assert set(matching(["a", "a"], ["a"], np.random.default_rng(0))) == {0}


def test_a_mean_is_of_numbers() -> None:
    assert mean([1.0, float("nan"), 3.0]) == pytest.approx(2)
    assert mean([float("nan")]) is None
