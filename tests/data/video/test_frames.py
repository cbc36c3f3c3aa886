"""Videos as phones, cameras and editors write them: turned, cut, interlaced, with a cover before them; and pictures."""

from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from PIL import Image, ImageOps

from minisora.config import ClipConfig
from minisora.data.folder.scan import scan_folder
from minisora.data.video.frames import BACKGROUND, count_pictures, decode, open_image, open_pictures, upright
from minisora.data.video.read_video import probe, read_clips, read_video
from minisora.data.video.write_video import write_video
from minisora.errors import UserError

ONE, W = 1 << 16, 1 << 30


def corners(height: int, width: int) -> np.ndarray:
    """Grey with three corners in red, green and blue: no two of its eight orientations are alike."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[: height // 3, : width // 3] = (220, 30, 30)
    pixels[: height // 3, -width // 3 :] = (30, 220, 30)
    pixels[-height // 3 :, : width // 3] = (30, 30, 220)
    return pixels


def oriented(stored: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """What a display matrix shows, pixel by pixel: (x, y) goes to (a x + c y, b x + d y), moved into sight."""
    ys, xs = np.mgrid[: stored.shape[0], : stored.shape[1]]
    x, y = a * xs + c * ys, b * xs + d * ys
    x, y = x - x.min(), y - y.min()
    shown = np.zeros((y.max() + 1, x.max() + 1, 3), np.uint8)
    shown[y, x] = stored
    return shown


ORIENTATIONS = [
    (0, y, x, 0) if transposed else (x, 0, 0, y) for x, y, transposed in product((1, -1), (1, -1), (0, 1))
]


def patch(path: Path, box: bytes, offset: int, values: list[int]) -> None:
    """Overwrite 32-bit numbers in a box of an mp4."""
    data = bytearray(path.read_bytes())
    at = data.index(box) + offset
    data[at : at + 4 * len(values)] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(data)


@pytest.mark.parametrize("matrix", ORIENTATIONS)
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_every_turn_and_mirror_of_a_display_matrix_is_followed(tmp_path, matrix, suffix):
    stored = corners(48, 96)
    write_video(tmp_path / "x.mp4", torch.from_numpy(stored).permute(2, 0, 1)[:, None] / 127.5 - 1, 8)
    a, b, c, d = matrix
    patch(tmp_path / "x.mp4", b"tkhd", 44, [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, W])
    path = (tmp_path / "x.mp4").rename(tmp_path / f"y.{suffix}")
    want = oriented(stored, *matrix)
    for verify in (True, False):
        info = probe(path, verify)
        assert (info.height, info.width) == want.shape[:2]
    image = read_video(path, frames=1, height=info.height, width=info.width, fps=8)[:, 0]
    found = (image.permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(found - want).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_every_orientation_of_exif_is_followed(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(corners(48, 96))
    stored.save(tmp_path / f"x.{suffix}", exif=exif, quality=95)
    stored.getexif()[0x0112] = orientation
    want = np.asarray(ImageOps.exif_transpose(stored))
    info = probe(tmp_path / f"x.{suffix}")
    assert (info.height, info.width) == want.shape[:2] == ((48, 96) if orientation < 5 else (96, 48))
    image = read_video(tmp_path / f"x.{suffix}", frames=1, height=info.height, width=info.width, fps=8)[:, 0]
    assert np.abs((image.permute(1, 2, 0).numpy() + 1) * 127.5 - want).mean() < 4


def cut(source: Path, target: Path, seconds: float, faststart: bool = False) -> Path:
    """What `ffmpeg -ss SECONDS -c copy` does: keep all from the key frame before, and hide what is before the cut."""
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(source)) as whole, av.open(str(target), "w", options=options) as part:
        stream = whole.streams.video[0]
        copy = part.add_stream_from_template(stream)
        whole.seek(int(seconds / stream.time_base), stream=stream)
        for packet in whole.demux(stream):
            if packet.dts is not None:
                packet.pts -= int(seconds / stream.time_base)
                packet.dts -= int(seconds / stream.time_base)
                packet.stream = copy
                part.mux(packet)
    return target


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_cut_without_encoding_is_whole_and_shows_what_it_keeps(tmp_path, ramp, suffix, verify):
    path = cut(ramp(tmp_path / "whole.mp4", 57, 24), tmp_path / f"cut{suffix}", 1.25)
    info = probe(path, verify)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > info.frames + 20, "no frame is hidden"
    assert info.damage is None
    assert info.frames == pytest.approx(57 - 30, abs=1)
    first = read_video(path, frames=1, height=24, width=32, fps=8, short="error")
    assert (first.mean().item() + 1) * 127.5 == pytest.approx(20 + 125, abs=8)


@pytest.mark.parametrize("verify", [True, False])
def test_a_cut_that_is_truncated_as_well_is_found(tmp_path, ramp, verify):
    path = cut(ramp(tmp_path / "whole.mp4", 57, 24, 96, 128), tmp_path / "cut.mp4", 1.25, faststart=True)
    assert probe(path, verify).damage is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5])
    assert probe(path, verify).damage


def test_frames_lost_to_damage_are_no_edit_list(tmp_path):
    """The packets are all there, but zeros lie where some of them were."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 60, 12, 16), np.uint8).repeat(8, 2).repeat(8, 3)
    write_video(tmp_path / "x.mp4", torch.from_numpy(noise) / 127.5 - 1, 24)
    assert probe(tmp_path / "x.mp4").damage is None
    data = bytearray((tmp_path / "x.mp4").read_bytes())
    middle = data.index(b"mdat") + len(data) // 2
    data[middle : middle + len(data) // 10] = bytes(len(data) // 10)
    (tmp_path / "x.mp4").write_bytes(data)
    assert probe(tmp_path / "x.mp4").damage


def add_frames(container, stream, frames, fps):
    for index, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, fps)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def add_video(container, codec, pix_fmt, fps, height, width, **options):
    stream = container.add_stream(codec, rate=fps, options=options)
    stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
    return stream


def test_the_video_is_read_not_the_cover_before_it(tmp_path):
    with av.open(str(tmp_path / "x.mkv"), "w") as container:
        cover = add_video(container, "mjpeg", "yuvj420p", 8, 64, 64)
        video = add_video(container, "libx264", "yuv420p", 8, 48, 96)
        add_frames(container, cover, [np.zeros((64, 64, 3), np.uint8)], 8)
        add_frames(container, video, [np.full((48, 96, 3), 200, np.uint8)] * 12, 8)
    for verify in (True, False):
        info = probe(tmp_path / "x.mkv", verify)
        assert (info.height, info.width, info.frames, info.codec) == (48, 96, 12, "h264")
    clip = read_video(tmp_path / "x.mkv", frames=12, height=48, width=96, fps=8, short="error")
    assert (clip.min().item() + 1) * 127.5 > 190


def test_a_cover_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        cover = add_video(container, "mjpeg", "yuvj420p", 8, 64, 64)
        cover.disposition = Disposition.attached_pic.value
        sound = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44100
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
        add_frames(container, cover, [np.zeros((64, 64, 3), np.uint8)], 8)
    with pytest.raises(UserError, match="no video stream but a cover picture"):
        probe(tmp_path / "song.mp4")


def test_of_interlaced_frames_one_moment_is_read(tmp_path):
    """A bar moves between the odd and the even lines: read together they are a comb of two bars."""
    combs = []
    for index in range(12):
        comb = np.zeros((96, 128, 3), np.uint8)
        comb[0::2, 4 * index : 4 * index + 24] = 255
        comb[1::2, 4 * index + 12 : 4 * index + 36] = 255
        combs.append(comb)
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        options = {"flags": "+ildct+ilme", "x264-params": "tff=1", "crf": "4"}
        stream = add_video(container, "libx264", "yuv420p", 25, 96, 128, **options)
        add_frames(container, stream, combs, 25)
    info = probe(tmp_path / "x.mp4")
    assert info.interlaced
    assert (info.height, info.width) == (96, 128)
    frame = read_video(tmp_path / "x.mp4", frames=1, height=96, width=128, fps=25)[0, 0]
    assert (frame[:, 2:22] > 0.5).all()
    assert (frame[:, 26:34] < -0.5).all()
    write_video(tmp_path / "y.mp4", torch.from_numpy(combs[0]).permute(2, 0, 1)[:, None] / 127.5 - 1, 25)
    assert not probe(tmp_path / "y.mp4").interlaced


@pytest.mark.parametrize(("code", "name"), [(18, "HLG"), (16, "PQ"), (1, None)])
def test_high_dynamic_range_is_recognised(tmp_path, code, name):
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = add_video(container, "libx264", "yuv420p", 8, 48, 64)
        stream.codec_context.color_trc = code
        add_frames(container, stream, [np.full((48, 64, 3), 150, np.uint8)] * 3, 8)
    assert probe(tmp_path / "x.mp4").transfer == name
    assert probe(tmp_path / "x.mp4", verify=False).transfer == name


@pytest.mark.parametrize("name", ["12:30", "http:x", "-", "data:,x", "concat:a|b", "x%03d", "a*b?", "pipe:0"])
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_no_name_is_read_as_an_address_or_a_pattern(tmp_path, monkeypatch, ramp, name, suffix):
    ramp(tmp_path / f"plain{suffix}", 5, 8).rename(tmp_path / f"{name}{suffix}")
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}{suffix}")
    assert probe(path).frames == probe(path, verify=False).frames == 5
    assert scan_folder(Path(), ClipConfig(frames=5), require_captions=False).num_clips == 1
    assert read_video(path, frames=5, height=24, width=32, fps=8, short="error").shape[1] == 5
    if suffix == ".mp4":
        write_video(path, torch.zeros(3, 2, 32, 32), 8)
        assert probe(path).frames == 2
        assert list(tmp_path.iterdir()) == [tmp_path / path]


def test_a_file_that_names_others_does_not_open_them(tmp_path, ramp):
    other = ramp(tmp_path / "other.mp4", 5, 8)
    (tmp_path / "list.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "script.mp4").write_text(f"ffconcat version 1.0\nfile {other}\n")
    for name in ("list.mp4", "script.mp4"):
        with pytest.raises(UserError, match=f"{name}: cannot be decoded"):
            probe(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mov", ".gif"])
def test_transparency_of_a_video_shows_the_background(tmp_path, suffix):
    pixels = np.zeros((32, 48, 4), np.uint8)
    pixels[..., 0] = 255  # red, hidden
    pixels[8:24, 12:36] = (0, 200, 0, 255)
    if suffix == ".gif":
        first, second = Image.fromarray(pixels), Image.fromarray(np.roll(pixels, 4, 1))
        first.save(tmp_path / "x.gif", save_all=True, append_images=[second], duration=100, disposal=2)
    else:
        with av.open(str(tmp_path / "x.mov"), "w") as container:
            stream = add_video(container, "png", "rgba", 8, 32, 48)
            for index in range(2):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgba")
                frame.pts, frame.time_base = index, Fraction(1, 8)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    image = read_video(tmp_path / f"x{suffix}", frames=1, height=32, width=48, fps=8)[:, 0]
    assert image[:, 0, 0].tolist() == [1, 1, 1]
    assert ((image[:, 16, 24] + 1) * 127.5).tolist() == pytest.approx([0, 200, 0], abs=12)


def keyed(path, frames, every):
    """24 frames a second, each brighter than the last, with a key frame every so many."""
    with av.open(str(path), "w") as container:
        options = {"x264-params": f"keyint={every}:min-keyint={every}:scenecut=0"}
        stream = add_video(container, "libx264", "yuv420p", 24, 48, 64, **options)
        add_frames(container, stream, [np.full((48, 64, 3), 2 * k, np.uint8) for k in range(frames)], 24)
    return path


@pytest.mark.parametrize("every", [7, 1000])
def test_clips_read_in_one_pass_equal_those_read_alone(tmp_path, every):
    path = keyed(tmp_path / "x.mp4", 100, every)
    size = {"frames": 5, "height": 24, "width": 32}
    starts = [0.0, 0.625, 1.875, 2.5, 3.75]
    together = list(read_clips(path, starts, **size, fps=8))
    assert len(together) == len(starts)
    for start, clip in zip(starts, together, strict=True):
        assert torch.equal(clip, read_video(path, **size, fps=8, start=start))


def test_the_distance_of_key_frames_is_measured(tmp_path):
    for verify in (True, False):
        rare = probe(keyed(tmp_path / "rare.mp4", 96, 1000), verify)
        often = probe(keyed(tmp_path / "often.mp4", 96, 12), verify)
        assert rare.key_gap == pytest.approx(4.0)
        assert often.key_gap == pytest.approx(0.5)


def test_frames_carry_their_time(tmp_path, ramp):
    shown = list(decode(ramp(tmp_path / "x.mp4", 5, 10)))
    assert [frame.time for frame in shown] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert upright(shown[0])[0].shape == (48, 64, 3)


LEVELS = (20, 80, 140, 200)
LASTING = (100, 300, 60, 540)  # milliseconds


def animate(path, durations=LASTING, **options):
    pictures = [Image.new("RGB", (48, 32), (level,) * 3) for level in LEVELS]
    extra = {"lossless": True} if path.suffix == ".webp" else {}
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=list(durations), loop=0, **extra, **options
    )
    return path


def levels(video):
    return ((video[0, :, 0, 0] + 1) * 127.5).round().int().tolist()


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif"])
def test_an_animation_gives_all_its_pictures_at_their_times(tmp_path, suffix):
    path = animate(tmp_path / f"x{suffix}")
    for verify in (True, False):
        info = probe(path, verify)
        assert (info.height, info.width, info.frames, info.damage) == (32, 48, 4, None)
        assert info.duration == pytest.approx(1.0)
        assert not info.still
        assert info.frames_at(30) == 30
    clip = read_video(path, frames=30, height=32, width=48, fps=30, short="error")
    # Frame k is the one that begins nearest to k / 30 s; they begin at 0, 0.1, 0.4 and 0.46 s.
    assert levels(clip) == [20] * 2 + [80] * 6 + [140] * 5 + [200] * 17
    later = read_video(path, frames=3, height=32, width=48, fps=30, start=0.5)
    assert levels(later) == [200] * 3


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_pictures_without_a_duration_last_a_tenth_of_a_second_as_in_browsers(tmp_path, suffix):
    path = animate(tmp_path / f"x{suffix}", (0, 0, 0, 0))
    assert probe(path).duration == pytest.approx(0.4)


def test_a_picture_for_programs_without_animation_is_no_part_of_it(tmp_path):
    path = animate(tmp_path / "x.png", LASTING[1:], default_image=True)
    assert count_pictures(path) == 3
    assert [picture[0, 0, 0].item() for picture, _ in open_pictures(path)] == list(LEVELS[1:])


def test_pages_are_no_animation(tmp_path):
    pages = [Image.new("RGB", (48, 32), (level,) * 3) for level in LEVELS]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=pages[1:])
    for name in ("x.tif", "x.jpg"):
        info = probe(tmp_path / name)
        assert (info.frames, info.fps, info.still) == (1, 0, True)


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_an_animation_that_is_cut_off_is_found(tmp_path, suffix):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (32, 48, 3), np.uint8)) for _ in range(6)]
    path = tmp_path / f"x{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    try:
        fault = probe(path).damage or ""
    except UserError as error:
        fault = str(error)
    assert "decoding stops" in fault or "truncated" in fault or "cannot be decoded" in fault


def see_through(mode):
    """Half transparent at the left edge, wholly so in the corner, with red under it."""
    pixels = np.zeros((16, 24, 4), np.uint8)
    pixels[..., 0] = 255
    pixels[4:12, 4:20] = (0, 200, 0, 255)
    pixels[4:12, 0] = (0, 0, 0, 128)
    image = Image.fromarray(pixels)
    return image.quantize(16) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGBA", "png"), ("LA", "png"), ("P", "png"), ("RGBA", "webp"), ("RGBA", "tif")]
)
def test_what_is_transparent_shows_the_background(tmp_path, mode, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    see_through(mode).save(tmp_path / f"x.{suffix}", **options)
    pixels = open_image(tmp_path / f"x.{suffix}")
    assert tuple(pixels[0, 0].tolist()) == BACKGROUND
    green = [117] * 3 if mode == "LA" else [0, 200, 0]
    assert pixels[8, 10].tolist() == pytest.approx(green, abs=1)
    assert pixels[8, 0].tolist() == pytest.approx([127] * 3, abs=2)


def test_a_colour_declared_transparent_shows_the_background(tmp_path):
    image = np.full((8, 8, 3), 90, np.uint8)
    image[0] = (255, 0, 0)
    Image.fromarray(image).save(tmp_path / "rgb.png", transparency=(255, 0, 0))
    grey = np.full((8, 8), 30_000, np.uint16)
    grey[0] = 1000
    Image.fromarray(grey).save(tmp_path / "grey.png", transparency=1000)
    for name in ("rgb.png", "grey.png"):
        pixels = open_image(tmp_path / name)
        assert tuple(pixels[0, 3].tolist()) == BACKGROUND
        assert pixels[4, 4].max() < 120


def test_an_opaque_picture_is_untouched(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert torch.equal(open_image(tmp_path / "x.png"), torch.from_numpy(pixels[..., :3].copy()))
