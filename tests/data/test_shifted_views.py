"""Moved clips: whole pixels, repeated borders, their own captions, and the same places every time."""

import torch

from minisora.data.clip_memory import from_bytes, to_bytes
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.data.shifted_views import MovedClips, move


def test_a_video_is_moved_with_its_border_repeated() -> None:
    video = torch.arange(12.0).view(1, 1, 1, 3, 4)
    assert move(video, torch.tensor([[1, 0]]))[0, 0, 0].tolist() == [
        [4, 5, 6, 7],
        [8, 9, 10, 11],
        [8, 9, 10, 11],
    ]
    assert move(video, torch.tensor([[0, -2]]))[0, 0, 0, 0].tolist() == [0, 0, 0, 1]


def test_views_are_the_clip_and_its_moves() -> None:
    world = ShapesWorld(5, frames=3, height=32, width=32)
    moved = MovedClips(world, [4, 1], views=3, reach=2)
    assert len(moved) == 6
    said = world.captions()
    assert moved.captions() == [said[4]] * 3 + [said[1]] * 3
    assert moved[5].caption == said[1]
    videos = moved.clips(range(6))
    clips = from_bytes(to_bytes(world.clips(range(5))))
    assert torch.equal(videos[0], clips[4])
    assert torch.equal(videos[3], clips[1])
    for index, video in enumerate(videos):
        assert torch.equal(video, moved[index].video)  # whatever was asked for before
        own = clips[[4, 1][index // 3]][None]
        shifts = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
        assert any(torch.equal(move(own, torch.tensor([shift]))[0], video) for shift in shifts)
    assert not torch.equal(videos[1], videos[2])


def test_another_choice_is_another_set() -> None:
    world = ShapesWorld(5, frames=1, height=16, width=16)
    sets = [
        MovedClips(world, [0, 1], 2, 2),
        MovedClips(world, [0, 2], 2, 2),
        MovedClips(world, [0, 1], 3, 2),
        MovedClips(world, [0, 1], 2, 3),
        MovedClips(world, [0, 1], 2, 2, seed=1),
        MovedClips(ShapesWorld(5, seed=1, frames=1, height=16, width=16), [0, 1], 2, 2),
    ]
    assert len({each.fingerprint() for each in sets}) == len(sets)
