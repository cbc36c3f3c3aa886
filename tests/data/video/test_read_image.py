"""Stills and animations: every picture for as long as its file says, and no hidden colour."""

import numpy as np
import pytest
import torch
from PIL import Image

from minisora.data.video.read_image import BACKGROUND, count_pictures, open_image, open_pictures
from minisora.data.video.read_video import probe, read_video
from minisora.errors import UserError

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
