import numpy as np
import pytest
import torch
from PIL import Image

from minisora.data.clips import to_float, to_uint8
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.data.video.read_video import ClipTooShort, probe, read_clips, read_video
from minisora.data.video.write_video import write_contact_sheet, write_gif, write_video
from minisora.errors import UserError


def levels(video):
    """Brightness of each frame in 0..255."""
    return ((video.mean((0, 2, 3)) + 1) * 127.5).numpy()


def psnr(a, b):
    return -10 * torch.log10((a - b).div(2).square().mean()).item()


@pytest.fixture(scope="module")
def video():
    return to_float(ShapesWorld(1).clips([0])[0])


def test_a_written_video_reads_back(tmp_path, video):
    write_video(tmp_path / "new" / "x.mp4", video, 8)
    back = read_video(tmp_path / "new" / "x.mp4", frames=17, height=64, width=64, fps=8)
    assert back.shape == video.shape
    assert back.dtype == torch.float32
    assert psnr(back, video) > 33
    info = probe(tmp_path / "new" / "x.mp4")
    assert (info.height, info.width, info.fps, info.frames, info.damage) == (64, 64, 8, 17, None)
    assert info.duration == pytest.approx(17 / 8)


def test_the_same_video_gives_the_same_bytes(tmp_path, video):
    for write, name in ((write_video, "x.mp4"), (write_gif, "x.gif")):
        seen = set()
        for _ in range(50):  # x264 differed in one of eight
            write(tmp_path / name, video, 8)
            seen.add((tmp_path / name).read_bytes())
        assert len(seen) == 1


def test_bytes_and_the_floats_they_are_of_give_the_same_file(tmp_path, video):
    for name, pixels in (("floats", video), ("bytes", to_uint8(video))):
        write_video(tmp_path / f"{name}.mp4", pixels, 8)
    assert (tmp_path / "floats.mp4").read_bytes() == (tmp_path / "bytes.mp4").read_bytes()


def test_odd_sizes_and_one_frame_and_grey(tmp_path):
    write_video(tmp_path / "odd.mp4", torch.rand(1, 1, 33, 47) * 2 - 1, 8)
    info = probe(tmp_path / "odd.mp4")
    assert (info.height, info.width, info.frames) == (34, 48, 1)
    assert info.frames_at(8) == 1


def test_gif_reads_back(tmp_path, video):
    write_gif(tmp_path / "x.gif", video, 8)
    assert psnr(read_video(tmp_path / "x.gif", frames=17, height=64, width=64, fps=8), video) > 28
    assert probe(tmp_path / "x.gif").frames == 17


def test_contact_sheet_has_a_row_for_each_video(tmp_path, video):
    write_contact_sheet(
        tmp_path / "sheet.png", [video, video[:, :1], video[:, :, :32]], ["one", "two " * 60, "three"]
    )
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.width == 9 * 66 - 2 + 12
    assert sheet.height > 64 + 64 + 32
    with pytest.raises(UserError, match="1 videos with 2 captions"):
        write_contact_sheet(tmp_path / "sheet.png", [video], ["one", "two"])


def test_failed_writes_are_one_line_and_leave_nothing(tmp_path, video):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_video(tmp_path / "file" / "x.mp4", video, 8)
    (tmp_path / "x.mp4").mkdir()  # cannot be replaced by a file
    with pytest.raises(UserError, match="cannot write"):
        write_video(tmp_path / "x.mp4", video, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x.mp4"]
    with pytest.raises(UserError, match="C T H W"):
        write_video(tmp_path / "y.mp4", video[None], 8)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi", ".mkv", ".webm", ".gif"])
@pytest.mark.parametrize("fps", [30, 24, 12.5, 4])
def test_frames_are_taken_by_time_not_by_number(tmp_path, ramp, suffix, fps):
    path = ramp(tmp_path / f"x{suffix}", round(2 * fps) + 1, fps)
    clip = read_video(path, frames=9, height=24, width=32, fps=8)
    expected = 20 + 100 * np.arange(9) / 8
    nearest = 100 * 0.5 / fps  # half a frame of the source
    coarse = 20 if suffix == ".gif" else 4  # what the codec leaves of the brightness
    assert np.abs(levels(clip) - expected).max() <= nearest + coarse


def test_start_seeks(tmp_path, ramp):
    path = ramp(tmp_path / "x.mp4", 60, 30, g="8")
    whole = read_video(path, frames=13, height=24, width=32, fps=8)
    part = read_video(path, frames=5, height=24, width=32, fps=8, start=1.0)
    assert torch.equal(part, whole[:, 8:])
    with pytest.raises(ClipTooShort, match="no frame at 5 s"):
        read_video(path, frames=5, height=24, width=32, fps=8, start=5.0)


@pytest.mark.parametrize(
    ("frames", "source", "found"),
    [
        (16, 8, 16),
        (17, 8, 17),
        (50, 25, 17),
        (48, 24, 17),
        (60, 30, 17),
        (4, 4, 8),
        (3, 8, 3),
        (1, 8, 1),
        (24, 12, 16),
    ],
)
def test_probe_counts_the_frames_that_read_finds(tmp_path, ramp, frames, source, found):
    path = ramp(tmp_path / "x.mp4", frames, source)
    assert probe(path).frames_at(8) == probe(path, verify=False).frames_at(8) == found
    read_video(path, frames=found, height=24, width=32, fps=8, short="error")
    with pytest.raises(ClipTooShort, match=f"x.mp4: {found} frames at 8 fps, {found + 1} wanted"):
        read_video(path, frames=found + 1, height=24, width=32, fps=8, short="skip")


def test_a_short_clip_is_padded_with_its_last_frame(tmp_path, ramp):
    clip = read_video(ramp(tmp_path / "x.mp4", 3, 8), frames=6, height=24, width=32, fps=8)
    assert torch.equal(clip[:, 3:], clip[:, 2:3].expand(-1, 3, -1, -1))
    assert not torch.equal(clip[:, 1], clip[:, 2])


def bars(height, width):
    """Left half red, right half blue, with a green band across the top quarter."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    pixels[: height // 4] = (0, 255, 0)
    return pixels


@pytest.mark.parametrize(("height", "width"), [(40, 200), (200, 40), (64, 64), (10, 10), (333, 77)])
def test_aspect_is_kept_and_the_centre_cut(tmp_path, height, width):
    Image.fromarray(bars(height, width)).save(tmp_path / "x.png")
    image = read_video(tmp_path / "x.png", frames=1, height=32, width=48, fps=8)[:, 0]
    assert image.shape == (3, 32, 48)
    assert image[0, -2, :22].min() > 0.9  # red to the middle, whatever the aspect
    assert image[2, -2, 26:].min() > 0.9
    assert image.abs().max() <= 1


@pytest.mark.parametrize(
    ("height", "width", "shown"), [(40, 200, (10, 48)), (200, 40, (32, 6)), (20, 30, (32, 48))]
)
def test_padded_the_whole_picture_is_there_in_the_middle_of_black(tmp_path, height, width, shown):
    Image.new("RGB", (width, height), (200, 200, 200)).save(tmp_path / "x.png")
    image = read_video(tmp_path / "x.png", frames=1, height=32, width=48, fps=8, fit="pad")[:, 0]
    assert image.shape == (3, 32, 48)
    light = image[0] > 0
    assert (light.any(1).sum(), light.any(0).sum()) == shown
    assert (image[:, ~light] == -1).all()
    assert torch.equal(light, light.flip(0))
    assert torch.equal(light, light.flip(1))


@pytest.mark.parametrize(("height", "width"), [(40, 200), (200, 40), (3, 700)])
def test_squashed_the_whole_picture_fills_the_size(tmp_path, height, width):
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[:, : width // 4] = pixels[: height // 3] = 0
    Image.fromarray(pixels).save(tmp_path / "x.png")
    image = read_video(tmp_path / "x.png", frames=1, height=48, width=64, fps=8, fit="squash")[0, 0]
    dark = image < 0
    assert dark[:, :16].all()
    assert dark[:16].all()
    assert not dark[17:, 17:].any()


def test_a_thin_picture_leaves_a_line_when_padded(tmp_path):
    Image.new("RGB", (1000, 2), (255, 255, 255)).save(tmp_path / "x.png")
    image = read_video(tmp_path / "x.png", frames=1, height=16, width=16, fps=8, fit="pad")[0, 0]
    assert (image > 0).any(1).sum() == 1


def test_clips_that_overlap_are_in_one_pass_what_each_is_alone(tmp_path, ramp):
    ramp(tmp_path / "x.mp4", 50, 25)
    way = {"frames": 5, "height": 16, "width": 24, "fps": 10.0, "fit": "pad"}
    starts = [0.0, 0.1, 0.3, 0.6, 1.3, 1.7, 1.9]
    together = list(read_clips(tmp_path / "x.mp4", starts, **way))
    assert len(together) == len(starts)
    for start, clip in zip(starts, together, strict=True):
        assert torch.equal(clip, read_video(tmp_path / "x.mp4", start=start, **way))


def test_a_round_thing_stays_round(tmp_path):
    """Height and width are not swapped: a square in a wide picture has equal sides after resizing."""
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[30:70, 130:170] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    image = read_video(tmp_path / "x.png", frames=1, height=50, width=80, fps=8)[0, 0] > 0
    assert image.any(1).sum() == image.any(0).sum() == 20


def test_images_are_still_videos(tmp_path):
    Image.fromarray(bars(32, 32)).save(tmp_path / "x.jpg")
    clip = read_video(tmp_path / "x.jpg", frames=5, height=32, width=32, fps=60)
    assert torch.equal(clip, clip[:, :1].expand(-1, 5, -1, -1))
    assert probe(tmp_path / "x.jpg").frames_at(60) == 1
    with pytest.raises(ClipTooShort, match="1 frames"):
        read_video(tmp_path / "x.jpg", frames=5, height=32, width=32, fps=60, short="error")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_sixteen_bits_keeps_its_brightness(tmp_path, suffix):
    levels = np.repeat(np.array([0, 16384, 32768, 65535], np.uint16), 8)[None].repeat(32, 0)
    Image.fromarray(levels).save(tmp_path / f"x.{suffix}")
    image = read_video(tmp_path / f"x.{suffix}", frames=1, height=32, width=32, fps=8)[:, 0]
    assert (
        image[:, 0, ::8].tolist() == [pytest.approx([-1, 64 / 127.5 - 1, 128 / 127.5 - 1, 1], abs=1e-5)] * 3
    )


def test_exif_rotation_of_a_photo_is_undone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned 90 degrees clockwise
    Image.fromarray(np.rot90(bars(40, 60)).copy()).save(tmp_path / "x.png", exif=exif)
    assert (probe(tmp_path / "x.png").height, probe(tmp_path / "x.png").width) == (40, 60)
    image = read_video(tmp_path / "x.png", frames=1, height=40, width=60, fps=8)[:, 0]
    assert image[1, :8].min() > 0.9
    assert image[0, 20:, :25].min() > 0.9


def test_rotation_of_a_phone_video_is_undone(tmp_path):
    """A phone writes landscape frames and a matrix in the track header that turns them."""
    upright = torch.from_numpy(bars(96, 64)).permute(2, 0, 1)[:, None] / 127.5 - 1
    write_video(tmp_path / "x.mp4", upright.rot90(1, (2, 3)), 8)  # as the sensor sees it
    data = bytearray((tmp_path / "x.mp4").read_bytes())
    matrix = data.index(b"tkhd") + 44
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30]  # clockwise
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in quarter)
    (tmp_path / "x.mp4").write_bytes(data)
    info = probe(tmp_path / "x.mp4")
    assert (info.height, info.width) == (96, 64)
    back = read_video(tmp_path / "x.mp4", frames=1, height=96, width=64, fps=8)
    assert psnr(back, upright) > 25


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm", ".mkv"])
def test_a_cut_off_file_is_named(tmp_path, ramp, suffix, verify):
    path = ramp(tmp_path / f"cut{suffix}", 120, 24, 96, 128)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if suffix == ".mp4":  # its index stood at the end
        with pytest.raises(UserError, match=r"cut.mp4: cannot be decoded"):
            probe(path, verify)
    else:
        damage = probe(path, verify).damage
        assert damage is not None
        assert "truncated" in damage or "decoding stops" in damage


def test_a_cut_off_streaming_mp4_is_named(tmp_path, ramp):
    path = ramp(tmp_path / "cut.mp4", 120, 24, 96, 128, movflags="faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    for verify in (True, False):
        assert probe(path, verify).damage


def test_files_that_are_no_videos_are_named(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"not a video at all" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG no")
    for name in ("x.mp4", "empty.mp4", "x.png", "missing.mp4"):
        with pytest.raises(UserError, match=name):
            probe(tmp_path / name)
        with pytest.raises(UserError, match=name):
            read_video(tmp_path / name, frames=1, height=8, width=8, fps=8)
