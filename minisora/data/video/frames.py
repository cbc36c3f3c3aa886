"""The frames of one video, animation or still, one after another, as a player shows them, and when.

Decoding is PyAV's for videos and gifs, Pillow's for pictures: a still is a clip of one frame, an animated PNG or WebP
one of many. Undone here, because no decoder does it: a phone's turned or mirrored picture, the stream that is only a
cover, transparency, and the two moments of interlaced frames.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from PIL import Image, ImageOps
from torch import Tensor

from minisora.data.media_suffixes import IMAGE_SUFFIXES
from minisora.data.shards import open_file
from minisora.errors import UserError

# White, as on a page: what shows through wherever a picture or a video does.
BACKGROUND = (255, 255, 255)

# Formats whose pictures follow each other in time; pages of a TIFF and views of an MPO do not.
_ANIMATED = ("PNG", "WEBP", "GIF")
# Seconds; browsers show for `_INSTEAD` what asks for no more than `_SHORTEST`.
_SHORTEST, _INSTEAD = 0.01, 0.1

Transfer = Literal["HLG", "PQ"]

# Codes of ITU-T H.273, table 3: how light was coded where the picture is of high dynamic range.
_TRANSFERS: dict[int, Transfer] = {16: "PQ", 18: "HLG"}

# Kinds of files in which the video itself lies. FFmpeg would guess others from the content or the name, such as
# playlists and patterns, and go on to open what they name.
_CONTAINERS = (
    "mov,matroska,avi,gif,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,dv,ivf,h264,hevc,m4v,av1,obu,rm,wtv"
)

_NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails


@dataclass(frozen=True)
class Header:
    """What a file says of its video before a frame of it is decoded.

    Args:
        frames, seconds: how long it is; 0 where the file does not say.
        codec: FFmpeg's name of it; of a picture its suffix.
        transfer: how light is coded where the range is high; None where it is not.
    """

    frames: int
    seconds: float
    codec: str
    transfer: Transfer | None = None


@dataclass(frozen=True)
class Frame:
    """A frame and when it is shown.

    Args:
        time: seconds since the first frame.
        length: seconds it lasts; 0 where the file does not say.
        key: whether decoding can begin here.
        picture: a Tensor (`H W 3` uint8) of a picture; None: counted, not decoded.
        pixel_aspect: width of a pixel over its height, as stored.
        transposed: whether rows and columns change places before it is shown.
        flips: dimensions (0 height, 1 width) that are flipped after that.
    """

    time: float
    length: float
    key: bool
    picture: av.VideoFrame | Tensor | None
    pixel_aspect: float = 1.0
    transposed: bool = False
    flips: tuple[int, ...] = ()

    @property
    def interlaced(self) -> bool:
        """Whether its odd and even lines are of two moments."""
        return isinstance(self.picture, av.VideoFrame) and bool(self.picture.interlaced_frame)


def read_header(path: Path) -> Header:
    """The header of a video or a picture.

    Raises:
        UserError: it has no video stream, or there is no decoder for it.
    """
    if is_image(path):
        return Header(count_pictures(path), 0.0, path.suffix.lower().lstrip("."))
    with _open(path) as container:
        stream = _video_stream(container, path)
        # Other streams may be longer than the video.
        alone = len(container.streams) == 1 and container.duration
        seconds = container.duration / av.time_base if alone else 0.0
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        context = stream.codec_context
        return Header(stream.frames, seconds, context.name, _TRANSFERS.get(int(context.color_trc or 0)))


def decode(path: Path, start: float = 0.0, most_pixels: int | None = None) -> Iterator[Frame]:
    """Every frame from the last key frame before `start` (seconds), in the order of time.

    Raises:
        UserError: a picture has more than `most_pixels`, as the file says before it is decoded.
    """
    if is_image(path):
        if most_pixels is not None:
            with _open_image(path) as image:
                _check_pixels(path, image.height, image.width, most_pixels)
        yield from _decode_pictures(path)
        return
    with _open(path) as container:
        stream = _video_stream(container, path)
        tick = float(stream.time_base or 0)
        origin = stream.start_time or 0
        if start > 0 and tick:
            container.seek(origin + int(start / tick), stream=stream, backward=True)
        rate = float(stream.average_rate or 25)
        aspect = float(stream.sample_aspect_ratio or 1)
        transposed = False
        flips: tuple[int, ...] = ()
        if most_pixels is not None:
            _check_pixels(path, stream.codec_context.height, stream.codec_context.width, most_pixels)
            # For those that say another size further on.
            stream.codec_context.options = {"max_pixels": str(most_pixels)}
        for count, frame in enumerate(container.decode(stream)):
            time = (frame.pts - origin) * tick if frame.pts is not None else count / rate
            # Every frame carries the matrix of the whole track; to look it up takes as long as to decode a frame.
            if count == 0:
                transposed, flips = _orientation(frame)
            length, key = (frame.duration or 0) * tick, bool(frame.key_frame)
            yield Frame(time, length, key, frame, aspect, transposed, flips)


def _check_pixels(path: Path, height: int, width: int, most: int) -> None:
    if height * width > most:
        raise UserError(f"{path.name} is of {height}x{width} pixels, more than {most:,}: make it smaller")


def demux(path: Path) -> Iterator[Frame]:
    """The first frame, decoded, and the rest as packets in the order of the file; pictures are all decoded."""
    if is_image(path):
        yield from _decode_pictures(path)
        return
    for frame in decode(path):
        yield frame
        break
    for count, frame in enumerate(packets(path)):
        # The first came with its frame.
        if count:
            yield frame


def packets(path: Path) -> Iterator[Frame]:
    """Every packet of a video that is to be shown, in the order of the file; `picture` is None."""
    with _open(path) as container:
        stream = _video_stream(container, path)
        tick = float(stream.time_base or 0)
        origin = stream.start_time or 0
        rate = float(stream.average_rate or 25)
        visible = (packet for packet in container.demux(stream) if packet.size and not packet.is_discard)
        for count, packet in enumerate(visible):
            stamp = packet.pts if packet.pts is not None else packet.dts
            time = (stamp - origin) * tick if stamp is not None else count / rate
            yield Frame(time, (packet.duration or 0) * tick, bool(packet.is_keyframe), None)


def count_packets(path: Path) -> int:
    """How many whole packets of a video are there, those included that an edit list hides.

    Editors cut an mp4 or mov without encoding it anew: they keep the packets from the last key frame on, and
    write an edit list that says from where to show them.
    """
    count = 0
    with _open(path, ignore_editlist="1") as container:
        try:
            for packet in container.demux(_video_stream(container, path)):
                count += bool(packet.size and not packet.is_corrupt)
        except av.error.FFmpegError:
            # Whoever counts wants to know how many there are before that.
            pass
    return count


def size(frame: Frame) -> tuple[int, int]:
    """(height, width) as a player shows the frame, its pixels made square."""
    if isinstance(frame.picture, Tensor):
        return frame.picture.shape[0], frame.picture.shape[1]
    assert frame.picture is not None
    if frame.transposed:
        return frame.picture.width, round(frame.picture.height / frame.pixel_aspect)
    return frame.picture.height, round(frame.picture.width * frame.pixel_aspect)


def upright(frame: Frame) -> tuple[Tensor, float]:
    """The frame as shown: `H W 3` uint8, and how much wider than high its pixels are.

    Of an interlaced frame only every other line: the lines between are half a frame later.
    """
    if isinstance(frame.picture, Tensor):
        return frame.picture, frame.pixel_aspect
    assert frame.picture is not None
    pixels, aspect = _pixels(frame.picture), frame.pixel_aspect
    if frame.interlaced:
        pixels, aspect = pixels[::2], aspect / 2
    if frame.transposed:
        pixels, aspect = pixels.transpose(0, 1), 1 / aspect
    return pixels.flip(frame.flips) if frame.flips else pixels, aspect


@contextmanager
def _open(path: Path, **options: str) -> Iterator[av.container.InputContainer]:
    """The file of that name: nothing in the name or in the file makes FFmpeg open another, or the network."""
    # FFmpeg would take `x%03d.gif` for a row of pictures.
    gif = path.suffix.lower() == ".gif" and _begins(path, b"GIF8")
    options |= {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    kind = "gif" if gif else None
    if path.is_file():
        with av.open(file_url(path), format=kind, options=options) as container:
            yield container
        return
    # In a shard.
    with open_file(path) as file, av.open(file, format=kind, options=options) as container:
        yield container


def file_url(path: str | os.PathLike[str]) -> str:
    """What FFmpeg reads as a path whatever it holds: it takes `12:30.mp4` for a protocol, and `-` for a pipe."""
    return f"file:{os.fspath(path)}"


def _begins(path: Path, magic: bytes) -> bool:
    with open_file(path) as file:
        return file.read(len(magic)) == magic


def _video_stream(container: av.container.InputContainer, path: Path) -> av.video.stream.VideoStream:
    """The video of a file; covers and thumbnails are streams as well, and may come first."""
    videos = [stream for stream in container.streams.video if not stream.disposition & _NO_VIDEO]
    if not videos:
        only = " but a cover picture" if container.streams.video else ""
        raise UserError(f"{path}: has no video stream{only}; remove it from the folder")
    best = container.streams.best("video")
    stream = best if best in videos else videos[0]
    if stream.codec_context is None:
        raise UserError(f"{path}: there is no decoder for its codec; export it as H.264")
    return stream


def _decode_pictures(path: Path) -> Iterator[Frame]:
    time = 0.0
    for count, (pixels, seconds) in enumerate(open_pictures(path)):
        yield Frame(time, seconds, count == 0, pixels)
        time += seconds


def _pixels(frame: av.VideoFrame) -> Tensor:
    """`H W 3` uint8 as stored."""
    if frame.format.has_palette or any(part.is_alpha for part in frame.format.components):
        return flatten(Image.fromarray(frame.to_ndarray(format="rgba")))
    return torch.from_numpy(frame.to_ndarray(format="rgb24"))


def _orientation(frame: av.VideoFrame) -> tuple[bool, tuple[int, ...]]:
    """`Frame.transposed` and `Frame.flips`.

    The display matrix (ISO/IEC 14496-12, 6.2.2) shows the pixel (x, y) at (a x + c y, b x + d y), up to a shift.
    """
    matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    if matrix is None:
        return False, ()
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if transposed else (a, d)
    return transposed, (0,) * (down < 0) + (1,) * (across < 0)


def is_image(path: Path) -> bool:
    """Whether the name is that of a picture."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def count_pictures(path: str | os.PathLike[str]) -> int:
    """How many pictures an animated PNG or WebP promises to show one after another; 1 of a still."""
    with _open_image(Path(path)) as image:
        return _last(image) - _first(image) + 1


@contextmanager
def _open_image(path: Path) -> Iterator[Image.Image]:
    if path.is_file():
        with Image.open(path) as image:
            yield image
        return
    # In a shard.
    with open_file(path) as file, Image.open(file) as image:
        yield image


def open_image(path: str | os.PathLike[str]) -> Tensor:
    """The first picture of a file: `H W 3` uint8, turned as its EXIF says, on `BACKGROUND`."""
    return next(open_pictures(path))[0]


def open_pictures(path: str | os.PathLike[str]) -> Iterator[tuple[Tensor, float]]:
    """Every picture of a file as `open_image` gives it, and how many seconds it is shown; 0 of a still.

    Raises:
        OSError: the file ends before the pictures that it promises.
    """
    with _open_image(Path(path)) as image:
        first, last = _first(image), _last(image)
        for index in range(first, last + 1):
            try:
                image.seek(index)
                image.load()
            except EOFError as error:
                raise OSError(f"it ends after {index - first} of {last - first + 1} pictures") from error
            seconds = float(image.info.get("duration") or 0) / 1000
            yield _rgb(image), 0.0 if first == last else seconds if seconds > _SHORTEST else _INSTEAD


def flatten(image: Image.Image) -> Tensor:
    """Any colour picture -> `H W 3` uint8; what is transparent shows `BACKGROUND`, not the colour hidden there."""
    if image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, (*BACKGROUND, 255)), above)
    return torch.from_numpy(np.array(image.convert("RGB")))


def _first(image: Image.Image) -> int:
    """An animated PNG may begin with a picture for programs that cannot show the others."""
    return 1 if image.info.get("default_image") and _last(image) else 0


def _last(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1) - 1 if image.format in _ANIMATED else 0


def _rgb(image: Image.Image) -> Tensor:
    """`H W 3` uint8 of what is loaded."""
    upright = ImageOps.exif_transpose(image)
    if not upright.mode.startswith("I"):
        return flatten(upright)
    # Grey of 16 bits; `convert` would cut it off at 255.
    levels = np.asarray(upright)
    grey = np.clip(levels // 256, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    if "transparency" in image.info:
        grey[levels == image.info["transparency"]] = BACKGROUND
    return torch.from_numpy(grey)
