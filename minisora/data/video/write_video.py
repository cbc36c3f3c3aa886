"""Write videos as mp4, gif and contact sheets; every file appears whole or not at all.

Videos are `C T H W` with 1 or 3 channels: uint8, or float32 in [-1, 1] (values outside are clamped). The same video
gives the same bytes on one machine.
"""

import os
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from minisora.data.clips import to_uint8
from minisora.data.video.frames import file_url
from minisora.errors import UserError
from minisora.files import whole
from minisora.screen import plain


def write_video(
    path: str | os.PathLike[str], video: Tensor, fps: float, crf: int = 12, comment: str | None = None
) -> None:
    """Write an mp4 that plays everywhere (H.264, yuv420p).

    yuv420p needs even sizes: an odd one gets its last row or column twice, so the file is one pixel larger.

    Args:
        path: of the file; its folder is made.
        video: C T H W.
        fps: frames per second.
        crf: quality of x264, 0 (lossless) to 51; 12 can hardly be told from the original.
        comment: text that the file carries (the tag of that name).

    Raises:
        UserError: the file cannot be written, or the tensor is no video.
    """
    pixels = _to_uint8(video)  # T H W 3
    height, width = pixels.shape[1:3]
    pixels = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with _whole(Path(path)) as partial, av.open(file_url(partial), "w", format="mp4") as container:
        if comment is not None:
            container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), **_REPEATABLE}
        # The bytes may depend on the number of threads.
        stream.codec_context.thread_count = 1
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_gif(path: str | os.PathLike[str], video: Tensor, fps: float) -> None:
    """Write a gif that loops for ever. Its clock counts 1/100 s, so 8 fps become 120 ms a frame.

    Raises:
        UserError: the file cannot be written, or the tensor is no video.
    """
    first, *rest = [Image.fromarray(frame) for frame in _to_uint8(video)]
    # Players slow down what is faster than 20 ms.
    milliseconds = max(20, round(100 / fps) * 10)
    with _whole(Path(path)) as partial:
        first.save(
            partial,
            format="GIF",
            save_all=True,
            append_images=rest,
            duration=milliseconds,
            loop=0,
            disposal=1,
        )


def write_contact_sheet(
    path: str | os.PathLike[str],
    videos: Tensor | Sequence[Tensor],
    captions: Sequence[str],
    max_frames: int = 9,
) -> None:
    """Write a PNG with one row a video: its caption above evenly spaced frames, first and last among them.

    Args:
        path: of the file; its folder is made.
        videos: C T H W each, of any sizes.
        captions: one for each video.
        max_frames: in a row.

    Raises:
        UserError: the file cannot be written, there is nothing to write, or a tensor is no video.
    """
    rows = [_row(_to_uint8(video), max_frames) for video in videos]
    if not rows or len(rows) != len(captions):
        raise UserError(f"{len(rows)} videos with {len(captions)} captions: give one caption for each video")
    font = ImageFont.load_default(size=_FONT_SIZE)
    width = max(row.width for row in rows)
    wrapped = [
        textwrap.wrap(plain(caption), max(8, int(width / (0.55 * _FONT_SIZE)))) or [""]
        for caption in captions
    ]
    heights = [_LINE * len(lines) + row.height + _GAP for row, lines in zip(rows, wrapped, strict=True)]
    sheet = Image.new("RGB", (width + 2 * _GAP, sum(heights) + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for row, lines, height in zip(rows, wrapped, heights, strict=True):
        draw.multiline_text(
            (_GAP, top), "\n".join(lines), fill="black", font=font, spacing=_LINE - _FONT_SIZE - 2
        )
        sheet.paste(row, (_GAP, top + _LINE * len(lines)))
        top += height
    with _whole(Path(path)) as partial:
        sheet.save(partial, format="PNG")


# The AVX-512 code of x264 decides differently from run to run, on one thread and from equal frames; its AVX2 code does
# not, and gives the bytes of x264 without any assembly. What the processor can do counts here, not what torch's own
# kernels are held to (ATEN_CPU_CAPABILITY).
_REPEATABLE = {"x264-params": "asm=AVX2"} if torch.cpu._is_avx512_supported() else {}

_FONT_SIZE, _LINE, _GAP = 12, 17, 6


def shown_frames(frames: int, max_frames: int = 9) -> np.ndarray:
    """Which frames of a video a contact sheet shows: evenly spaced, first and last among them."""
    return np.unique(np.linspace(0, frames - 1, min(max_frames, frames)).round().astype(int))


def _row(pixels: np.ndarray, max_frames: int) -> Image.Image:
    """Some frames of `T H W 3` side by side, two pixels apart."""
    shown = shown_frames(len(pixels), max_frames)
    height, width = pixels.shape[1:3]
    row = np.full((height, len(shown) * (width + 2) - 2, 3), 255, np.uint8)
    for place, index in enumerate(shown):
        row[:, place * (width + 2) : place * (width + 2) + width] = pixels[index]
    return Image.fromarray(row)


def _to_uint8(video: Tensor) -> np.ndarray:
    """`C T H W` as `write_video` takes it -> `T H W 3` uint8."""
    if video.ndim != 4 or video.shape[0] not in (1, 3) or video.shape[1] < 1:
        raise UserError(f"a video is C T H W with 1 or 3 channels, not {tuple(video.shape)}")
    pixels = video.cpu() if video.dtype == torch.uint8 else to_uint8(video.detach().float().cpu())
    return pixels.expand(3, -1, -1, -1).permute(1, 2, 3, 0).contiguous().numpy()


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A place to write that becomes `path` when all went well, and vanishes when not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            yield partial
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another place"
        ) from error
