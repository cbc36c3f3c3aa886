import numpy as np
import pytest
import torch

from minisora.config import ClipConfig
from minisora.data.clips import to_float
from minisora.data.folder.folder_dataset import FolderDataset
from minisora.data.shapes_world.grammar import COLORS, SHAPES, ShapesPrompt, parse
from minisora.data.shapes_world.layout import REACH
from minisora.data.shapes_world.shapes_dataset import ShapesWorld, make_shapes
from minisora.errors import UserError


@pytest.fixture(scope="module")
def world():
    return ShapesWorld(300, seed=3)


@pytest.fixture(scope="module")
def clips(world):
    return world.clips(range(len(world)))


@pytest.fixture(scope="module")
def videos(clips):
    return to_float(clips)


@pytest.fixture(scope="module")
def truths(world):
    return [world.truth(index) for index in range(len(world))]


def object_share(video, prompt, background):
    """How much of the object each pixel shows, from colours alone: T H W in [0, 1]."""
    color = 2 * torch.tensor(COLORS[prompt.color]) - 1
    axis = color - background
    offset = video - background[:, None, None, None]
    return (offset * axis[:, None, None, None]).sum(0) / axis.square().sum()


def test_items_are_what_the_project_agreed_on(world, videos):
    assert videos.shape == (300, 3, 17, 64, 64)
    assert world.clips([7])[0].dtype == torch.uint8
    assert all(
        parse(caption) == prompt
        for caption, prompt in zip(world.captions(), world.prompts(range(300)), strict=True)
    )


def test_an_item_is_a_pure_function_of_seed_and_index(world, clips):
    assert torch.equal(world.clips([5])[0], clips[5])
    assert torch.equal(ShapesWorld(50, seed=3).clips([5])[0], clips[5])
    assert not torch.equal(ShapesWorld(300, seed=4).clips([5])[0], clips[5])
    shuffled = [212, 5, 17, 5, 299, 0, 101]
    assert torch.equal(world.clips(shuffled), clips[shuffled])


def test_more_clips_or_another_length_keep_the_caption(world):
    longer = ShapesWorld(300, seed=3, frames=33, height=32, width=96)
    assert longer.captions() == world.captions()
    assert longer.clips([0, 1]).shape == (2, 3, 33, 32, 96)


def test_centres_agree_with_pixels(world, videos, truths):
    rows = torch.arange(64.0)
    for index, truth in enumerate(truths[:80]):
        if truth.prompt.wall:
            continue
        background = videos[index, :, 0, 0, 0]
        share = object_share(videos[index], truth.prompt, background)
        area = share.sum((1, 2))
        y = (share.sum(2) * rows).sum(1) / area
        x = (share.sum(1) * rows).sum(1) / area
        measured = torch.stack([y, x], 1).numpy()
        assert np.abs(measured - truth.centers).max() < 0.5
        assert area.std() / area.mean() < 0.02  # never cut by the frame


def test_shapes_have_roughly_equal_area():
    world = ShapesWorld(1, height=128, width=128, frames=1)
    video = world.render([ShapesPrompt("white", shape, "still") for shape in SHAPES], seed=0)
    truths = world.render_truth([ShapesPrompt("white", shape, "still") for shape in SHAPES], seed=0)
    for clip, truth in zip(video, truths, strict=True):
        area = object_share(clip, truth.prompt, clip[:, 0, 0, 0]).sum()
        assert 0.85 < area / (np.pi * truth.radius**2) < 1.02


def test_motion_is_straight_and_as_the_caption_says(truths):
    step = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0), "still": (0, 0)}
    for truth in truths:
        moved = truth.centers[-1] - truth.centers[0]
        direction = np.array(step[truth.prompt.motion])
        assert np.allclose(np.diff(truth.centers, axis=0), moved / 16)
        assert np.allclose(moved * (1 - np.abs(direction)), 0)
        if truth.prompt.motion != "still":
            assert (moved * direction).sum() >= 0.35 * 64


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(17, 64, 64), (65, 64, 64), (9, 48, 96), (1, 32, 32), (5, 16, 8)]
)
def test_the_object_stays_inside_any_frame(frames, height, width):
    world = ShapesWorld(200, seed=1, frames=frames, height=height, width=width)
    for index in range(200):
        truth = world.truth(index)
        up, down, side = REACH[SHAPES.index(truth.prompt.shape)] * truth.radius
        y, x = truth.centers.T
        assert (y - up >= -0.5).all()
        assert (y + down <= height - 0.5).all()
        assert (x - side >= -0.5).all()
        assert (x + side <= width - 0.5).all()


def test_sizes_never_meet(truths):
    radii = {
        size: [t.radius for t in truths if t.prompt.size == size] for size in ("small", "medium", "large")
    }
    assert max(radii["small"]) < min(radii["medium"])
    assert max(radii["medium"]) < min(radii["large"])


def test_the_wall_hides_the_object_in_the_middle_only(truths):
    behind = [truth for truth in truths if truth.prompt.wall]
    assert len(behind) > 10
    for truth in behind:
        assert truth.prompt.motion in ("left", "right")
        assert (truth.visibility[5:12] == 0).any()
        assert truth.visibility[0] >= 0.4
        assert truth.visibility[-1] >= 0.4
    assert all((truth.visibility == 1).all() for truth in truths if not truth.prompt.wall)


def test_visibility_agrees_with_pixels():
    """Red by its excess over green, which neither a grey wall nor a night has."""
    world = ShapesWorld(1)
    prompts = [
        ShapesPrompt("red", shape, "right", size, wall=True)
        for shape in SHAPES
        for size in ("small", "medium")
    ]
    for seed in range(2):
        excess = (world.render(prompts, seed)[:, 0] - world.render(prompts, seed)[:, 1]) / (
            2 * 0.8
        )  # B T H W
        for clip, truth in zip(excess.sum((-1, -2)), world.render_truth(prompts, seed), strict=True):
            plain = ShapesPrompt("red", truth.prompt.shape, "still", truth.prompt.size)
            alone = world.render([plain] * 8, seed)
            whole = (alone[:, 0, 0] - alone[:, 1, 0]).sum((-1, -2)) / (2 * 0.8)
            scale = [whole[i] / t.radius**2 for i, t in enumerate(world.render_truth([plain] * 8, seed))]
            measured = clip.numpy() / (np.mean(scale) * truth.radius**2)
            assert np.abs(measured - truth.visibility).max() < 0.04


def test_the_default_wall_works_at_other_lengths():
    for frames in (5, 9, 33):
        world = ShapesWorld(1, frames=frames)
        prompts = [ShapesPrompt("red", shape, "left", "small", wall=True) for shape in SHAPES]
        for truth in world.render_truth(prompts, 0):
            assert truth.visibility.min() == 0
            assert truth.visibility[0] > 0.5
            assert truth.visibility[-1] > 0.5


def test_light_is_as_the_caption_says(videos, truths):
    for video, truth in zip(videos[:200], truths[:200], strict=True):
        corner = (video[:, 0, 0, 0] + 1) / 2
        if truth.prompt.light == "day":
            assert torch.allclose(corner, torch.tensor([0.55, 0.75, 0.95]), atol=0.031)
        else:
            assert 0 <= corner[0] <= 0.2
            assert (corner == corner[0]).all()


def test_training_lacks_the_held_out_triples_and_all_has_them():
    for split, found in (("train", False), ("validation", False), ("all", True)):
        prompts = ShapesWorld(3000, split=split).prompts(range(3000))
        assert any(prompt.held_out for prompt in prompts) is found


def test_shares_are_as_documented():
    prompts = ShapesWorld(3000).prompts(range(3000))
    moving = [prompt for prompt in prompts if prompt.motion != "still"]
    sideways = [prompt for prompt in moving if prompt.motion in ("left", "right")]
    assert len(moving) / len(prompts) == pytest.approx(0.8, abs=0.02)
    assert np.mean([prompt.wall for prompt in sideways]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([prompt.light == "day" for prompt in prompts]) == pytest.approx(0.35, abs=0.02)
    assert np.mean([prompt.size == "medium" for prompt in prompts]) == pytest.approx(0.5, abs=0.02)


def test_splits_share_no_clip():
    splits = ("train", "validation", "all")
    clips = [
        clip.numpy().tobytes() for split in splits for clip in ShapesWorld(50, split=split).clips(range(50))
    ]
    assert len(set(clips)) == 150


def test_fingerprint_changes_with_all_that_matters():
    base = {"num_clips": 10, "seed": 0, "frames": 17, "height": 64, "width": 64, "fps": 8.0, "split": "train"}
    worlds = [base] + [
        base | change
        for change in (
            {"num_clips": 11},
            {"seed": 1},
            {"frames": 9},
            {"height": 32},
            {"width": 32},
            {"fps": 4.0},
            {"split": "all"},
        )
    ]
    prints = [ShapesWorld(**kind).fingerprint() for kind in worlds]
    assert len(set(prints)) == len(prints)
    assert ShapesWorld(**base).fingerprint() == prints[0]


def test_indices_beyond_the_end_and_impossible_sizes(world):
    with pytest.raises(IndexError):
        world.clips([300])
    assert torch.equal(world.clips([-1])[0], world.clips([299])[0])
    with pytest.raises(UserError, match="4x64"):
        ShapesWorld(1, height=4)
    with pytest.raises(UserError, match="split 'test'"):
        ShapesWorld(1, split="test")


def test_a_made_set_reads_back_as_the_world(tmp_path):
    make_shapes(tmp_path / "set", 6, seed=2, clip=ClipConfig(), progress=False)
    data, world = FolderDataset(tmp_path / "set", ClipConfig()), ShapesWorld(6, seed=2)
    assert data.captions() == world.captions()
    error = (to_float(data.clips(range(6))) - to_float(world.clips(range(6)))).square().mean()
    assert error < 4 * 10**-3.0  # 30 dB PSNR


def test_making_again_changes_no_byte(tmp_path):
    for _ in range(2):
        make_shapes(tmp_path, 3, seed=0, clip=ClipConfig(frames=5), progress=False)
        files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    first = files
    make_shapes(tmp_path, 3, seed=0, clip=ClipConfig(frames=5), progress=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert sorted(first) == ["clip_00000.mp4", "clip_00001.mp4", "clip_00002.mp4", "metadata.csv"]


def test_other_files_are_not_mixed_in(tmp_path):
    (tmp_path / "holiday.mp4").write_text("")
    with pytest.raises(UserError, match=r"already holds 'holiday\.mp4'"):
        make_shapes(tmp_path, 1, 0, ClipConfig(), progress=False)
    (tmp_path / ".clip_00000.mp4.7.partial").write_text("")  # of a run that was cut off
    with pytest.raises(UserError, match=r"already holds 'holiday\.mp4'"):
        make_shapes(tmp_path, 1, 0, ClipConfig(), progress=False)
    with pytest.raises(UserError, match="is a file"):
        make_shapes(tmp_path / "holiday.mp4", 1, 0, ClipConfig(), progress=False)
    with pytest.raises(UserError, match="even sides"):
        make_shapes(tmp_path / "odd", 1, 0, ClipConfig(height=33), progress=False)
