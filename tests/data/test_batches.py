"""Batches with known frames, images and several sizes: functions of position, whole steps of one kind."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from minisora.config import FlowConfig
from minisora.data.batches import CropBatches, LatentBatches, MixedBatches, PackedBatches, load_batches
from minisora.data.clips import ClipMemory
from minisora.data.shapes_world.shapes_dataset import ShapesWorld


class Source:
    def __init__(self, frames: int, side: int):
        self.shape = (2, frames, side, side)

    def __len__(self) -> int:
        return 40

    def latents(self, indices: list[int]) -> Tensor:
        return torch.stack([torch.full(self.shape, float(index)) for index in indices])

    def captions(self) -> list[str]:
        return [f"clip {index}" for index in range(40)]


def test_known_frames_change_nothing_else_of_a_batch() -> None:
    plain = LatentBatches(Source(5, 2), FlowConfig(), seed=0).at(range(8))
    batch = LatentBatches(Source(5, 2), FlowConfig(known_share=0.5), seed=0).at(range(8))
    for name in ("latents", "noise", "normal"):
        assert torch.equal(getattr(plain, name), getattr(batch, name))
    assert plain.captions == batch.captions
    assert plain.known is None
    assert batch.known is not None
    assert batch.known.shape == (8, 5)


def test_the_shares_of_known_frames_and_of_clean_ones_are_as_configured() -> None:
    batch = LatentBatches(Source(5, 2), FlowConfig(known_share=0.4, known_sigma=0.1), seed=0).at(range(1000))
    assert batch.known is not None
    assert batch.known_sigma is not None
    assert batch.known.any(1).float().mean() == pytest.approx(0.4, abs=0.05)
    assert not batch.known.all(1).any()
    assert (batch.known_sigma == 0).float().mean() == pytest.approx(0.5, abs=0.05)
    assert 0.09 < batch.known_sigma.max() <= 0.1


def test_a_step_is_of_one_size_and_kind_however_it_is_split() -> None:
    parts = [LatentBatches(Source(f, s), FlowConfig(known_share=0.5), 0) for f, s in ((5, 2), (2, 4))]
    mixed = MixedBatches(parts, [1.0, 0.5], image_share=0.25, batch_size=4, seed=0)
    kinds: Counter[tuple[int, int]] = Counter()
    for step in range(400):
        whole = mixed.at(range(4 * step, 4 * step + 4))
        halves = [mixed.at(range(start, start + 2)) for start in (4 * step, 4 * step + 2)]
        assert torch.equal(torch.cat([half.noise for half in halves]), whole.noise)
        frames, side = whole.latents.shape[2:4]
        assert whole.noise.shape == whole.latents.shape
        assert (whole.known is None) == (frames == 1)
        kinds[frames, side] += 1
    images = sum(count for (frames, _), count in kinds.items() if frames == 1)
    assert images / 400 == pytest.approx(0.25, abs=0.07)
    small = kinds[2, 4] / (kinds[2, 4] + kinds[5, 2])
    assert small == pytest.approx(1 / 3, abs=0.08)
    assert len(mixed.all_captions) == 80


def test_a_packed_step_holds_every_position_once_however_it_is_split() -> None:
    parts = [LatentBatches(Source(f, s), FlowConfig(known_share=0.5), 0) for f, s in ((5, 2), (2, 4))]
    packed = PackedBatches(parts, [1.0, 1.0], image_share=0.25, seed=0)
    whole = packed.at(range(64))
    assert len(whole.indices) == 64
    assert {tuple(part.latents.shape[2:4]) for part in whole.parts} == {(1, 2), (5, 2), (1, 4), (2, 4)}
    alone = [packed.at([position]).parts[0] for position in range(64)]
    one_by_one = sorted(float(part.noise.sum()) for part in alone)
    together = sorted(float(noise.sum()) for part in whole.parts for noise in part.noise)
    assert together == pytest.approx(one_by_one)


def test_crops_are_bytes_and_a_function_of_their_position() -> None:
    source = CropBatches(ClipMemory(ShapesWorld(6, 0, 5, 16, 16)), (3, 8, 8), (2, 1, 2, 2), seed=0)
    batch = source.at(range(8))
    assert batch.video.dtype == torch.uint8
    assert batch.video.shape == (8, 3, 3, 8, 8)
    alone = source.at([5])
    assert torch.equal(alone.video, batch.video[5:6])
    assert torch.equal(alone.noise, batch.noise[5:6])


@pytest.mark.parametrize("workers", [0, 1])
def test_processes_and_micro_batches_take_every_position_of_a_step_once(workers: int) -> None:
    source = LatentBatches(Source(5, 2), FlowConfig(), seed=0)
    whole = list(load_batches(source, start_step=3, stop_step=5, batch_size=8))
    assert [batch.indices for batch in whole] == [source.at(range(8 * s, 8 * s + 8)).indices for s in (3, 4)]
    split = {"start_step": 3, "stop_step": 5, "batch_size": 8, "accumulation": 2, "world_size": 2}
    first, second = (list(load_batches(source, rank=rank, workers=workers, **split)) for rank in (0, 1))
    assert [len(batch.indices) for batch in first + second] == [2] * 8
    for step, batch in enumerate(whole):
        parts = [part for micro in (0, 1) for part in (first[2 * step + micro], second[2 * step + micro])]
        assert torch.equal(torch.cat([part.noise for part in parts]), batch.noise)
