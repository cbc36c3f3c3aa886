"""Clips are bytes; a memory holds them once, as far as they fit, and changes none."""

from collections.abc import Sequence

import torch
from torch import Tensor

from minisora import memory
from minisora.data.clips import ClipMemory, to_float, to_uint8
from minisora.data.shapes_world.shapes_dataset import ShapesWorld

ONE = 3 * 5 * 16 * 16  # bytes of a clip


class Counting(ShapesWorld):
    """A world that notes what is asked of it."""

    def __init__(self, num_clips: int):
        super().__init__(num_clips, frames=5, height=16, width=16)
        self.asked: list[int] = []

    def clips(self, indices: Sequence[int]) -> Tensor:
        self.asked += list(indices)
        return super().clips(indices)


def test_every_byte_comes_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(levels)), levels)


def test_bytes_are_the_nearest_and_what_is_outside_is_clamped() -> None:
    values = torch.tensor([-1.5, -1.0, -0.9999, 0.0, 1.0, 1.5])
    before = values.clone()
    assert to_uint8(values).tolist() == [0, 0, 0, 128, 255, 255]
    assert torch.equal(values, before)
    assert to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_a_clip_is_read_once_and_is_the_bytes_of_the_data_set() -> None:
    world = Counting(6)
    held = ClipMemory(world, limit=6 * ONE)
    for _ in range(2):
        clips = held.clips([4, 0, 4, 2])
        assert torch.equal(torch.stack(clips), ShapesWorld(6, 0, 5, 16, 16).clips([4, 0, 4, 2]))
    assert sorted(world.asked) == [0, 2, 4]


def test_what_does_not_fit_is_read_again_and_is_the_same() -> None:
    world = Counting(6)
    small, whole = ClipMemory(world, limit=2 * ONE + 1), ClipMemory(world, limit=6 * ONE)
    want = torch.stack(whole.clips(range(6)))
    world.asked.clear()
    for _ in range(2):
        assert torch.equal(torch.stack(small.clips(range(6))), want)
    assert sorted(world.asked) == [0, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    # A held clip keeps no more than its own bytes.
    assert sum(clip.untyped_storage().nbytes() for clip in small._clips.values()) == 2 * ONE


def test_filling_stops_where_the_memory_is_full() -> None:
    world = Counting(6)
    ClipMemory(world, limit=0).fill()
    assert len(world.asked) <= 1
    world.asked.clear()
    held = ClipMemory(world, max_clips=4, limit=100 * ONE)
    held.fill()
    assert sorted(world.asked) == [0, 1, 2, 3]


def test_the_sum_is_told_with_a_remedy_where_it_does_not_fit() -> None:
    shape = (3, 5, 16, 16)
    assert ClipMemory(Counting(6), limit=6 * ONE).describe(shape, "shrink") == (
        "22.5 KiB of clips, all 6 held as bytes"
    )
    line = ClipMemory(Counting(6), limit=2 * ONE).describe(shape, "shrink")
    assert line == (
        "22.5 KiB of clips, more than the 7.5 KiB for them: 2 of 6 are held, the others read anew for every batch; "
        "shrink"
    )


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr(memory, "_left_in_groups", lambda: [1000])
    world = ShapesWorld(2, frames=5, height=16, width=16)
    assert ClipMemory(world).limit == 500
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert ClipMemory(world).limit == 125
    assert ClipMemory(world, limit=7).limit == 7
