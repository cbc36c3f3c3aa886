"""Read videos and images of any size, length and rate as tensors (and write, by `video_write`).

Stands alone: nothing else of minisora is needed but its error. Videos are `C T H W` float32 in [-1, 1] and
sizes (height, width). Decoding is PyAV's for videos and gifs, Pillow's for still images (which are one-frame
videos); a phone's rotation and non-square pixels are undone, so sizes are those a player shows.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import av
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from minisora.data.image_io import IMAGE_SUFFIXES, is_image, open_image
from minisora.data.video_write import write_contact_sheet, write_gif, write_video
from minisora.errors import UserError

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "ClipTooShort",
    "VideoInfo",
    "is_image",
    "probe",
    "read_video",
    "write_contact_sheet",
    "write_gif",
    "write_video",
]

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".webm", ".mkv", ".m4v", ".gif")

ShortClips = Literal["pad", "skip", "error"]


class ClipTooShort(UserError):
    """The video has fewer frames than were asked for, and padding was not wanted."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds."""

    height: int  # as shown
    width: int
    fps: float  # mean; 0 for an image
    frames: int  # that are really there
    duration: float  # seconds, until the last frame ends; 0 for an image
    codec: str
    damage: str | None = None  # what is wrong with a file that can be read only in part

    def frames_at(self, fps: float) -> int:
        """How many frames `read_video` finds at this rate."""
        if self.fps == 0 or self.frames == 1:
            return 1
        return _frames_until(self.duration, 1 / self.fps, fps)


def read_video(
    path: str | os.PathLike[str],
    *,
    frames: int,
    height: int,
    width: int,
    fps: float,
    short: ShortClips = "pad",
    start: float = 0.0,
) -> Tensor:
    """A clip of a video, resampled in time and fitted to a size.

    Frame k is the one nearest in time to `start + k / fps`. Each is resized with antialiasing, aspect kept,
    to cover (height, width), and cut to it at the centre.

    Args:
        path: a video or an image.
        frames, height, width, fps: of the clip.
        short: what to do when the video ends too early: "pad" repeats its last frame, "skip" and "error"
            raise `ClipTooShort` (whoever skips catches it).
        start: seconds into the video.

    Returns:
        `3 T H W` float32 in [-1, 1].

    Raises:
        ClipTooShort: see `short`.
        UserError: the file cannot be decoded.
    """
    path = Path(path)
    chosen: list[Tensor] = []
    with _named_errors(path):
        if is_image(path):
            chosen.append(_fit(open_image(path), 1.0, height, width))
        else:
            for shown, repeats in _frames_at(path, [start + k / fps for k in range(frames)], fps):
                chosen += [_fit(*_upright(shown), height, width)] * repeats
    if not chosen:
        raise ClipTooShort(f"{path}: there is no frame at {start:g} s; choose an earlier start")
    if len(chosen) < frames:
        if short != "pad":
            raise ClipTooShort(
                f"{path}: {len(chosen)} frames at {fps:g} fps, {frames} wanted: "
                "ask for fewer frames or a higher rate, or set short_clips to 'pad'"
            )
        chosen += chosen[-1:] * (frames - len(chosen))
    return torch.stack(chosen[:frames], dim=1) / 127.5 - 1


def probe(path: str | os.PathLike[str], verify: bool = True) -> VideoInfo:
    """What a file holds, and whether all of it is there.

    Args:
        path: a video or an image.
        verify: decode every frame; False decodes the first and counts the rest by their packets, which is
            many times faster and still finds a file that was cut off.

    Raises:
        UserError: nothing of the file can be decoded; the message names it.
    """
    path = Path(path)
    with _named_errors(path):
        about = path.stat()
        return _probe(path, verify, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1 << 17)
def _probe(path: Path, verify: bool, changed: int, size: int) -> VideoInfo:
    """`probe`, once for a file as it is: both parts of a set and all its sizes look at every file."""
    if is_image(path):
        height, width = open_image(path).shape[:2]
        return VideoInfo(height, width, 0.0, 1, 0.0, path.suffix.lower().lstrip("."))
    return _probe_video(path, verify)


def _probe_video(path: Path, verify: bool) -> VideoInfo:
    with av.open(str(path)) as container:
        stream = _video_stream(container)
        promised = stream.frames  # 0 where the container does not say
        header_seconds = _header_seconds(container, stream)
        codec = stream.codec_context.name
    damage = None
    size: tuple[int, int] | None = None
    times: list[float] = []
    period = 0.0
    try:
        for shown in _decode(path) if verify else _demux(path):
            if shown.frame is not None and size is None:
                pixels, stretch = _upright(shown)
                size = (pixels.shape[0], round(pixels.shape[1] * stretch))
            if shown.frame is not None and shown.frame.is_corrupt:
                damage = f"frame {len(times)} is corrupt"
            times.append(shown.time)
            period = shown.length or period
    except av.error.FFmpegError as error:
        if size is None:
            raise
        damage = f"decoding stops after {len(times)} frames ({error.strerror})"
    if size is None:
        raise UserError(f"{path}: holds no frame that can be decoded; copy or export it again")
    times.sort()
    count, span = len(times), times[-1] - times[0]
    period = period or (span / (count - 1) if count > 1 else 0.0)
    duration = times[-1] + period
    if promised > count + 1:  # + 1: some writers count a frame that an edit list hides
        damage = f"truncated: {count} of {promised} frames are there"
    elif damage is None and header_seconds - duration > max(0.1 * header_seconds, 2 * period):
        damage = f"truncated: {duration:.2f} of {header_seconds:.2f} seconds are there"
    fps = (count - 1) / span if span > 0 else 1 / period if period > 0 else 0.0
    return VideoInfo(*size, fps, count, duration, codec, damage)


def _video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    if not container.streams.video:
        raise UserError(f"{container.name}: has no video stream; remove it from the folder")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise UserError(f"{container.name}: there is no decoder for its codec; export it as H.264")
    return stream


def _header_seconds(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> float:
    """Length of the video as the header promises it, 0 if it does not; other streams may be longer."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    alone = len(container.streams) == 1 and container.duration
    return container.duration / av.time_base if alone else 0.0


@dataclass(frozen=True)
class _Shown:
    """A frame and when it is shown."""

    time: float  # seconds since the first frame
    length: float  # seconds it lasts; 0 where the file does not say
    frame: av.VideoFrame | None  # None: counted, not decoded
    pixel_aspect: float  # how much wider than high a pixel is, before any rotation


def _decode(path: Path, start: float = 0.0) -> Iterator[_Shown]:
    """Every frame from the last key frame before `start`, in the order of time."""
    with av.open(str(path)) as container:
        stream = _video_stream(container)
        tick = float(stream.time_base or 0)
        origin = stream.start_time or 0
        if start > 0 and tick:
            container.seek(origin + int(start / tick), stream=stream, backward=True)
        rate = float(stream.average_rate or 25)
        aspect = float(stream.sample_aspect_ratio or 1)
        for count, frame in enumerate(container.decode(stream)):
            time = (frame.pts - origin) * tick if frame.pts is not None else count / rate
            yield _Shown(time, (frame.duration or 0) * tick, frame, aspect)


def _demux(path: Path) -> Iterator[_Shown]:
    """The first frame, decoded, and the rest as packets in the order of the file."""
    for shown in _decode(path):
        yield shown
        break
    with av.open(str(path)) as container:
        stream = _video_stream(container)
        tick = float(stream.time_base or 0)
        origin = stream.start_time or 0
        rate = float(stream.average_rate or 25)
        packets = (packet for packet in container.demux(stream) if packet.size and not packet.is_discard)
        for count, packet in enumerate(packets):
            stamp = packet.pts if packet.pts is not None else packet.dts
            time = (stamp - origin) * tick if stamp is not None else count / rate
            if count:  # the first came with its frame
                yield _Shown(time, (packet.duration or 0) * tick, None, 1.0)


def _frames_at(path: Path, wanted: list[float], fps: float) -> Iterator[tuple[_Shown, int]]:
    """(frame, how many of the wanted times it is the nearest to); ends where the video does."""
    done, held, gap = 0, None, 0.0
    for shown in _decode(path, wanted[0]):
        if held is not None:
            before = done
            while done < len(wanted) and wanted[done] <= (held.time + shown.time) / 2:
                done += 1
            if done > before:
                yield held, done - before
            if done == len(wanted):
                return
            gap = shown.time - held.time
        held = shown
    if held is not None:
        end = held.time + _tail(held.length or gap, fps)
        left = sum(time < end for time in wanted[done:])
        if left:
            yield held, left


def _tail(period: float, fps: float) -> float:
    """How long the last frame counts: while it is shown, or half a wanted frame if that is longer.

    So 2.0 s at 25 fps give 17 frames at 8 fps (the last is 0.04 s off), and 16 frames at 8 fps stay 16.
    """
    return max(period, 0.5 / fps) - 1e-4


def _frames_until(duration: float, period: float, fps: float) -> int:
    """How many times k / fps lie before the end of a video."""
    return max(1, math.ceil((duration - period + _tail(period, fps)) * fps))


def _upright(shown: _Shown) -> tuple[Tensor, float]:
    """The frame as shown: `H W 3` uint8 turned upright, and how much wider than high its pixels are."""
    assert shown.frame is not None
    pixels = torch.from_numpy(shown.frame.to_ndarray(format="rgb24"))
    quarter_turns = round(shown.frame.rotation / 90) % 4  # counterclockwise, as torch turns
    aspect = 1 / shown.pixel_aspect if quarter_turns % 2 else shown.pixel_aspect
    return torch.rot90(pixels, quarter_turns, (0, 1)), aspect


def _fit(pixels: Tensor, stretch: float, height: int, width: int) -> Tensor:
    """`h w 3` uint8 -> `3 height width` float32 in [0, 255]: cover the size, cut the centre."""
    image = pixels.permute(2, 0, 1).float()  # 3 h w
    shown = (image.shape[1], image.shape[2] * stretch)
    scale = max(height / shown[0], width / shown[1])
    size = (max(height, round(shown[0] * scale)), max(width, round(shown[1] * scale)))
    if size != tuple(image.shape[1:]):
        image = functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp_(0, 255)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return image[:, top : top + height, left : left + width]


class _named_errors:  # used as a function
    """Turn what decoders raise into one line that names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such file")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, av.error.FFmpegError | OSError | SyntaxError | Image.DecompressionBombError):
            why = getattr(error, "strerror", None) or str(error)
            raise UserError(f"{self.path}: cannot be decoded ({why}); copy or export it again") from error
