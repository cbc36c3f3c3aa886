import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minisora.data.draws import random_box, rng, sample_indices, uniforms
from minisora.errors import UserError


@given(st.integers(1, 40), st.integers(0, 200), st.integers(0, 50), st.integers(0, 2**31))
def test_any_cut_of_the_order_is_the_same_order(num_items, start, length, seed):
    whole = sample_indices(num_items, range(start + length), seed)
    assert sample_indices(num_items, range(start, start + length), seed) == whole[start:]


def test_world_size_does_not_change_a_global_batch():
    whole = sample_indices(10, range(32, 48), seed=1)
    ranks = [sample_indices(10, range(32 + rank, 48, 2), seed=1) for rank in range(2)]
    assert [item for pair in zip(*ranks, strict=True) for item in pair] == whole


def test_every_epoch_has_every_item_once_in_its_own_order():
    epochs = [sample_indices(50, range(50 * e, 50 * e + 50), seed=0) for e in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert sample_indices(50, range(50), seed=1) != epochs[0]


def test_a_set_smaller_than_a_batch_works_and_an_empty_one_says_why():
    assert sorted(sample_indices(3, range(6), seed=0)) == [0, 0, 1, 1, 2, 2]
    with pytest.raises(UserError, match="0 clips"):
        sample_indices(0, range(1), seed=0)


def test_generators_depend_on_every_key_and_nothing_else():
    assert rng(1, 2, 3).random() == rng(1, 2, 3).random()
    assert len({rng(1, 2, 3).random(), rng(1, 3, 2).random(), rng(2, 2, 3).random(), rng(1, 2).random()}) == 4


def test_crops_lie_inside_and_reach_every_place():
    video = torch.arange(3 * 5 * 4 * 6).reshape(1, 3, 5 * 4, 6).float()
    starts = set()
    for sample in range(300):
        box = random_box(video.shape[-3:], (2, 19, 4), rng(0, sample))
        crop = video[(..., *box)]
        assert crop.shape == (1, 2, 19, 4)
        t, y, x = np.unravel_index(int(crop[0, 0, 0, 0]), (3, 20, 6))
        assert torch.equal(crop, video[:, t : t + 2, y : y + 19, x : x + 4])
        starts.add((t, y, x))
    assert len(starts) == 2 * 2 * 3
    with pytest.raises(UserError, match="larger than the clip"):
        random_box((3, 20, 6), (4, 1, 1), rng(0))


def test_a_crop_around_what_moves_holds_it_and_lies_inside():
    moves = torch.zeros(5, 20, 30, dtype=torch.bool)
    moves[3, 19, 0] = moves[4, 2, 28] = True
    places = set()
    for sample in range(200):
        t, y, x = random_box((5, 20, 30), (3, 6, 6), rng(0, sample), moves)
        assert 0 <= y.start <= y.stop <= 20
        assert 0 <= x.start <= x.stop <= 30
        if moves[t].any():
            assert moves[t, y, x].any()
        places.add((y.start, x.start))
    # The pixel may lie anywhere in its crop.
    assert len(places) > 20


def test_uniforms_are_uniform_and_do_not_depend_on_company():
    draws = uniforms(7, range(20000), 4)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.allclose(draws.mean(0), 0.5, atol=0.01)
    assert np.allclose(np.corrcoef(draws.T), np.eye(4), atol=0.03)
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.03
    assert abs(np.corrcoef(draws[:, 0], uniforms(8, range(20000), 1)[:, 0])[0, 1]) < 0.03
    assert np.array_equal(uniforms(7, [123, 5], 2), draws[[123, 5], :2])
