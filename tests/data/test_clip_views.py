"""Views of clips: pure functions of their indices, altered only as far as captions stay true, and read from files."""

import hashlib
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from minisora.config import AugmentConfig, ClipConfig, Config, DataConfig
from minisora.data import dataset
from minisora.data.clip_views import ClipViews, move, num_unaltered, recolor
from minisora.data.clips import to_float
from minisora.data.dataset import bucket_configs, open_dataset
from minisora.data.folder.folder_dataset import FolderDataset
from minisora.data.folder.pack import pack_folder
from minisora.data.folder.record import DataRecord
from minisora.data.folder.scan import scan_folder
from minisora.data.latent_cache import LatentCache, Processes
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.errors import UserError

SHIFTED = AugmentConfig(views=2, shift=2)
ALL = {"views": 3, "shift": 2, "color": 0.2, "mirror": True, "speed": 2.0}
CLIP = ClipConfig(frames=5, height=32, width=32, fps=8)


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
    shifted = ClipViews(world, [4, 1], AugmentConfig(views=3, shift=2))
    assert len(shifted) == 6
    captions = world.captions()
    assert shifted.captions() == [captions[4]] * 3 + [captions[1]] * 3
    assert shifted.captions_of([5]) == [captions[1]]
    videos = shifted.clips(range(6))
    clips = world.clips(range(5))
    assert torch.equal(videos[0], clips[4])
    assert torch.equal(videos[3], clips[1])
    for index, video in enumerate(videos):
        assert torch.equal(video, shifted.clips([index])[0])  # whatever was asked for before
        own = clips[[4, 1][index // 3]][None]
        shifts = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
        assert any(torch.equal(move(own, torch.tensor([shift]))[0], video) for shift in shifts)
    assert not torch.equal(videos[1], videos[2])


def test_another_choice_is_another_set() -> None:
    world = ShapesWorld(5, frames=1, height=16, width=16)
    sets = [
        ClipViews(world, [0, 1], SHIFTED),
        ClipViews(world, [0, 2], SHIFTED),
        ClipViews(world, [0, 1], SHIFTED.replace(views=3)),
        ClipViews(world, [0, 1], SHIFTED.replace(shift=3)),
        ClipViews(world, [0, 1], SHIFTED, seed=1),
        ClipViews(world, [0, 1], SHIFTED, spread=True),
        ClipViews(world, [0, 1], SHIFTED.replace(color=0.1)),
        ClipViews(world, [0, 1], SHIFTED.replace(mirror=True)),
        ClipViews(ShapesWorld(5, seed=1, frames=1, height=16, width=16), [0, 1], SHIFTED),
    ]
    assert len({each.fingerprint() for each in sets}) == len(sets)


def test_the_views_of_a_captioner_are_those_of_older_versions() -> None:
    world = ShapesWorld(5, frames=1, height=16, width=16)
    facts = [world.fingerprint(), [0, 2], 2, 2, 7]
    then = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    assert ClipViews(world, [0, 2], SHIFTED, 7).fingerprint() == then


def test_spread_all_clips_as_they_are_come_first() -> None:
    world = ShapesWorld(4, frames=3, height=32, width=32)
    views = ClipViews(world, range(4), AugmentConfig(views=3, shift=2, color=0.2, mirror=True), spread=True)
    assert (len(views), num_unaltered(views), num_unaltered(world)) == (12, 4, 4)
    assert views.captions() == world.captions() * 3
    videos = views.clips(range(12))
    assert torch.equal(videos[:4], world.clips(range(4)))
    assert torch.equal(views.clips([7, 2, 11]), videos[[7, 2, 11]])
    assert len({video.numpy().tobytes() for video in videos}) == 12
    with pytest.raises(IndexError):
        views.clips([12])


def test_brightness_and_contrast_keep_black_and_order_and_stay_within_their_share() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(recolor(levels, 0, 0), levels)
    for brightness in (-0.5, 0.0, 0.5):
        for contrast in (-0.5, 0.0, 0.5):
            changed = recolor(levels, brightness, contrast).int()
            assert changed[0] == 0
            assert (changed.diff() >= 0).all()
    assert recolor(levels, 0.2, 0)[100] == 120
    assert recolor(levels, 0, 0.5)[255] == 255
    assert recolor(levels, 0, 0.5)[64] < 64 < recolor(levels, 0, -0.5)[64]


class Captioned(ShapesWorld):
    """A world under one caption."""

    def __init__(self, caption: str):
        super().__init__(16, frames=2, height=16, width=16)
        self.caption = caption

    def captions(self) -> list[str]:
        return [self.caption] * len(self)


def test_only_clips_whose_caption_names_no_side_are_mirrored() -> None:
    augment = AugmentConfig(views=2, mirror=True)
    for caption, mirrored in (("a ball rising", True), ("a ball going left", False), ("a seven", False)):
        world = Captioned(caption)
        clips = world.clips(range(16))
        seen = ClipViews(world, range(16), augment, spread=True).clips(range(16, 32))
        flipped = [torch.equal(one, other.flip(-1)) for one, other in zip(seen, clips, strict=True)]
        kept = [torch.equal(one, other) for one, other in zip(seen, clips, strict=True)]
        assert all(a or b for a, b in zip(flipped, kept, strict=True))
        assert any(flipped) == mirrored
        assert any(kept)


def test_a_caption_that_names_brightness_keeps_it() -> None:
    augment = AugmentConfig(views=2, color=0.3)
    for caption, changed in (("a ball", True), ("a dark ball", False)):
        world = Captioned(caption)
        seen = ClipViews(world, [3], augment).clips([0, 1])
        assert torch.equal(seen[0], seen[1]) != changed


def write_frames(path: Path, count: int, fps: int) -> None:
    """Frame k is of grey 4 k + 8: a pixel names its frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "0"}
        for number in range(count):
            pixels = np.full((32, 32, 3), 4 * number + 8, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def frames_of(video: torch.Tensor) -> list[int]:
    """The numbers of the frames of a clip `3 T H W`."""
    return ((video[0, :, 16, 16].float() - 8) / 4).round().int().tolist()


def faster(folder: Path, draw: float, most: float = 2.0, index: int = 0) -> list[int] | None:
    data = FolderDataset(folder, CLIP, require_captions=False)
    data.clips([index])
    video = data.at_speed(index, most, draw)
    return None if video is None else frames_of(video)


def test_another_speed_takes_every_nth_frame_and_never_ends_beyond_the_file(tmp_path: Path) -> None:
    write_frames(tmp_path / "x.mp4", 40, 24)
    # Every third frame is the clip as it is.
    assert [faster(tmp_path, draw, 1.5) for draw in (0.1, 0.5, 0.9)] == [
        [0, 2, 4, 6, 8],
        None,
        [0, 4, 8, 12, 16],
    ]
    assert faster(tmp_path, 0.99, 4.0) == [0, 9, 18, 27, 36]
    assert faster(tmp_path, 0.0, 4.0) == [0, 1, 2, 3, 4]
    # The second clip begins at frame 15: six frames at a time would end at 39, seven beyond it.
    assert faster(tmp_path, 0.99, 4.0, index=1) == [15, 21, 27, 33, 39]


def test_what_a_file_has_no_frames_for_is_as_it_is(tmp_path: Path) -> None:
    write_frames(tmp_path / "few" / "x.mp4", 20, 8)
    assert faster(tmp_path / "few", 0.0) is None
    assert faster(tmp_path / "few", 0.99) == [0, 2, 4, 6, 8]
    # Slower than the clip's own rate: each frame of it would come twice.
    write_frames(tmp_path / "slow" / "x.mp4", 5, 4)
    assert {str(faster(tmp_path / "slow", draw)) for draw in (0.0, 0.5, 0.99)} == {"[0, 1, 2, 3, 4]"}
    write_frames(tmp_path / "short" / "x.mp4", 3, 24)
    assert faster(tmp_path / "short", 0.0) is None


def test_a_caption_that_names_a_speed_keeps_it(tmp_path: Path) -> None:
    write_frames(tmp_path / "x.mp4", 20, 8)
    seen = {}
    for caption in ("a grey square", "a grey square that grows slowly"):
        (tmp_path / "x.txt").write_text(caption)
        views = ClipViews(FolderDataset(tmp_path, CLIP), [0], AugmentConfig(views=9, speed=2.0))
        seen[caption] = {tuple(frames_of(video)) for video in views.clips(range(9))}
    still, even = (0, 1, 2, 3, 4), (0, 2, 4, 6, 8)
    assert list(seen.values()) == [{still, even}, {still}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "clips"
    for number in range(6):
        write_frames(place / f"{number}.mp4", 30, 24)
        (place / f"{number}.txt").write_text(f"clip {'abcdef'[number]}")
    return place


def config(folder: Path, **augment: object) -> Config:
    data = DataConfig(source="folder", path=folder, num_validation_clips=1, augment=AugmentConfig(**augment))
    return Config(clip=CLIP, data=data)


def test_training_has_views_and_validation_none(folder: Path) -> None:
    plain, more = config(folder), config(folder, **ALL)
    train, views = open_dataset(plain, "train"), open_dataset(more, "train")
    assert isinstance(train, FolderDataset)
    assert isinstance(views, ClipViews)
    count = len(train)
    assert len(views) == 3 * count
    assert views.names() == train.names() * 3
    assert views.captions() == train.captions() * 3
    assert torch.equal(views.clips(range(count)), train.clips(range(count)))
    assert views.fingerprint() == open_dataset(more, "train").fingerprint() != train.fingerprint()
    sides = [open_dataset(each, "validation") for each in (plain, more)]
    assert sides[0].fingerprint() == sides[1].fingerprint()
    assert len(sides[1]) == 1
    # Of every size, too.
    sized = more.replace(**{"data.buckets": ({"frames": 5, "height": 16, "width": 16},)})
    assert len(open_dataset(bucket_configs(sized)[0], "train")) == 3 * count


def test_views_are_the_same_from_shards_and_latents_of_two_processes(folder: Path, tmp_path: Path) -> None:
    pack_folder(scan_folder(folder, CLIP), tmp_path / "shards", 1)
    views, packed = (open_dataset(config(place, **ALL), "train") for place in (folder, tmp_path / "shards"))
    videos = views.clips(range(len(views)))
    assert packed.fingerprint() == views.fingerprint()
    assert torch.equal(packed.clips(range(len(views))[::-1]), videos.flip(0))
    for index in (1, 0):
        built = open_dataset(config(folder, **ALL), "train")
        process = Processes(index, 2)
        with pytest.raises(UserError) if index else torch.no_grad():
            LatentCache.build(tmp_path / "cache", built, to_float, "vae", 2, processes=process)
    cache = LatentCache.open(tmp_path / "cache", views, "vae")
    assert torch.equal(cache.latents(range(len(views))), to_float(videos))


def test_views_of_a_damaged_clip_are_of_the_one_that_stands_in_under_its_caption(
    tmp_path: Path, noise_clips, damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a scan of a large folder does.
    monkeypatch.setattr(dataset, "scan_folder", partial(scan_folder, verify=False))
    place = noise_clips(["going left", "going up"] * 3)
    settings = config(place, views=3, mirror=True, speed=2.0)
    whole = open_dataset(settings, "train")
    count = num_unaltered(whole)
    # The caption of the damaged one allows what that of the one that stands in does not.
    lost = next(
        index
        for index, pair in enumerate(zip(whole.captions(), whole.captions()[1:count], strict=False))
        if pair == ("going up", "going left")
    )
    damage(place / whole.names()[lost])
    orders = (range(3 * count), range(3 * count)[::-1])
    seen = []
    for number, order in enumerate(orders):
        views = open_dataset(settings, "train", DataRecord(tmp_path / f"stage {number}"))
        videos = dict(zip(order, views.clips(order), strict=True))
        captions = dict(zip(order, views.captions_of(order), strict=True))
        seen.append((videos, captions))
    for index in orders[0]:
        assert torch.equal(seen[0][0][index], seen[1][0][index])
        assert seen[0][1][index] == seen[1][1][index]
    for view in range(3):
        assert seen[0][1][view * count + lost] == "going left"
        assert torch.equal(seen[0][0][view * count + lost], seen[0][0][lost + 1])


def test_clips_of_no_file_refuse_another_speed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.augment\.speed=1\.5 reads frames anew from files"):
        open_dataset(Config(data=DataConfig(augment=AugmentConfig(views=2, speed=1.5))), "train")
    (tmp_path / "MovingMNIST").mkdir()
    np.save(tmp_path / "MovingMNIST" / "mnist_test_seq.npy", np.zeros((20, 10, 64, 64), np.uint8))
    digits = DataConfig(source="torchvision", path=tmp_path, augment=AugmentConfig(views=2, shift=1))
    views = open_dataset(Config(clip=CLIP, data=digits), "train")
    assert len(views) == 2 * 9
    assert views.names() == []
    with pytest.raises(UserError, match="have none"):
        open_dataset(Config(clip=CLIP).replace(data=digits.replace(**{"augment.speed": 2.0})), "train")


def test_that_nothing_can_be_mirrored_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_dataset(config(folder, views=2, mirror=True), "train")
    assert "none is mirrored" in caplog.text
