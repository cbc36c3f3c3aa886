import pytest
import yaml
from PIL import Image

from minisora.config import ClipConfig, Config, load
from minisora.data.dataset import open_dataset
from minisora.data.folder.doctor import check
from minisora.data.folder.scan import scan_folder
from minisora.data.folder.suggest import best_size, cut_share, share_in_words, suggest
from minisora.errors import UserError
from minisora.training.dit_task import check_dit


def suggested(folder, config=None, fps=8.0):
    """The text, what it sets, and the config it is when loaded."""
    config = config or Config()
    text = suggest(scan_folder(folder, ClipConfig(fps=fps), require_captions=False), config)
    file = folder.parent / "suggested.yaml"
    file.write_text(text)
    loaded = load(
        file, changes={"data.source": "folder", "data.path": folder, "data.require_captions": False}
    )
    check_dit(loaded)
    return text, yaml.safe_load(text), loaded


@pytest.mark.parametrize(
    ("shown", "size"),
    [
        ((64, 64), (64, 64)),
        ((1080, 1920), (48, 80)),
        ((1920, 1080), (80, 48)),
        ((480, 640), (48, 64)),
        ((210, 160), (80, 64)),
        ((28, 28), (32, 32)),
        ((8, 8), (16, 16)),
    ],
)
def test_a_size_is_near_in_shape_and_area_in_multiples_and_never_much_larger_than_the_picture(shown, size):
    assert best_size(shown, 4096, (16, 16)) == size


def test_how_much_a_crop_cuts():
    assert cut_share((96, 54), (64, 64)) == pytest.approx(1 - 54 / 96)
    assert cut_share((54, 96), (64, 64)) == pytest.approx(1 - 54 / 96)
    assert cut_share((90, 160), (9, 16)) == pytest.approx(0)
    assert [share_in_words(share) for share in (0.34, 0.25, 0.4375, 0.5)] == [
        "a third",
        "a quarter",
        "44 %",
        "half",
    ]


def test_a_folder_of_portraits_gets_a_portrait_clip_at_half_its_rate(tmp_path, ramp):
    for name in "abc":
        ramp(tmp_path / "set" / f"{name}.mp4", 60, 30, 160, 90)
    text, tree, config = suggested(tmp_path / "set")
    assert tree == {"clip": {"frames": 17, "height": 80, "width": 48, "fps": 15}, "data": {"fit": "crop"}}
    assert "one frame in 2 of videos of 30" in text
    assert len(open_dataset(config, "train").clips([0])[0, 0]) == 17
    lines = text.splitlines()
    keys = ("frames:", "height:", "fps:", "fit:")
    assert all(
        lines[i - 1].strip().startswith("# ") for i, line in enumerate(lines) if line.strip().startswith(keys)
    )


def test_short_videos_get_fewer_frames_at_their_own_rate_and_the_padded_ones_are_counted(tmp_path, ramp):
    for number in range(12):
        ramp(tmp_path / "set" / f"{number}.mp4", 5 if number == 0 else 11, 10, 64, 64)
    text, tree, _ = suggested(tmp_path / "set")
    assert tree["clip"] == {"frames": 9, "height": 64, "width": 64, "fps": 10}
    assert "11 of 12 videos are as long; the last frame of the others is repeated" in text
    _, tree, _ = suggested(tmp_path / "set", Config(clip=ClipConfig(frames=5, height=32, width=32)))
    assert tree["clip"] == {"frames": 5, "height": 32, "width": 32, "fps": 10}


def test_a_video_of_two_frames_and_pictures_give_what_can_be_trained(tmp_path, ramp):
    ramp(tmp_path / "set" / "a.mp4", 2, 4, 32, 32)
    assert suggested(tmp_path / "set")[1]["clip"] == {"frames": 5, "height": 32, "width": 32, "fps": 4}
    for number in range(3):
        Image.new("RGB", (90, 160)).save(tmp_path / "set" / f"{number}.png")
    text, tree, _ = suggested(tmp_path / "set")
    assert tree["clip"]["frames"] == 1
    assert "3 of 4 files are single pictures" in text


def test_a_mixed_folder_gets_sizes_with_their_shares_and_each_file_the_nearest(tmp_path, ramp):
    for number in range(8):
        ramp(tmp_path / "set" / f"wide{number}.mp4", 20, 8, 90, 160)
    for number in range(4):
        ramp(tmp_path / "set" / f"tall{number}.mp4", 20, 8, 160, 90)
    text, tree, config = suggested(tmp_path / "set")
    assert (tree["clip"]["height"], tree["clip"]["width"]) == (48, 80)
    assert tree["data"] == {
        "fit": "crop",
        "buckets_by_shape": True,
        "buckets": [{"frames": 17, "height": 80, "width": 48, "share": 0.5}],
    }
    assert "4 of 12 files: 160x90" in text
    assert check(tmp_path / "set", config).cropped == {}


def test_shapes_that_no_size_suits_are_padded(tmp_path, ramp):
    for number in range(24):
        ramp(tmp_path / "set" / f"{number}.mp4", 20, 8, 64, 64)
    ramp(tmp_path / "set" / "thin0.mp4", 20, 8, 32, 160)
    text, tree, _ = suggested(tmp_path / "set")
    assert tree["data"] == {"fit": "crop"}
    assert "more than an eighth of 1 file only" in text
    ramp(tmp_path / "set" / "thin1.mp4", 20, 8, 32, 160)
    text, tree, _ = suggested(tmp_path / "set")
    assert tree["data"] == {"fit": "pad"}
    assert "more than an eighth off 2 of 26 files, 80 % off one" in text


def test_of_nothing_usable_nothing_is_suggested(tmp_path, ramp):
    ramp(tmp_path / "a.mp4", 20, 8)
    with pytest.raises(UserError, match="nothing can be suggested; `minisora data check"):
        suggest(scan_folder(tmp_path, ClipConfig()), Config())
