"""Read videos and images of any size, length and rate as tensors.

Videos are `C T H W` float32 in [-1, 1] and sizes (height, width), as a player shows them (see
`minisora.data.video.frames`); still images are videos of one frame.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import av
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from minisora.data.shards import exists, state
from minisora.data.video.frames import (
    Frame,
    Header,
    Transfer,
    count_packets,
    count_pictures,
    decode,
    demux,
    is_image,
    open_image,
    packets,
    read_header,
    size,
    upright,
)
from minisora.errors import UserError

ShortClips = Literal["pad", "skip", "error"]
Fit = Literal["crop", "pad", "squash"]


class ClipTooShort(UserError):
    """The video has fewer frames than were asked for, and padding was not wanted."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a file holds."""

    height: int  # as shown
    width: int
    fps: float  # mean; 0 for an image
    frames: int  # that are really there
    duration: float  # seconds, until the last frame ends; 0 for an image
    codec: str
    damage: str | None = None  # what is wrong with a file that can be read only in part
    last: float = 0.0  # seconds the last frame lasts
    key_gap: float = 0.0  # the longest stretch without a key frame, seconds; all of it is decoded for its end
    transfer: Transfer | None = None  # of a high dynamic range, which is not mapped to what a screen shows
    interlaced: bool = False  # in lines of two moments, of which one is read

    @property
    def still(self) -> bool:
        """Whether nothing can move in it."""
        return self.frames == 1

    def frames_at(self, fps: float) -> int:
        """How many frames `read_video` finds at this rate."""
        if self.still:
            return 1
        return _frames_until(self.duration, self.last, fps)


def read_video(
    path: str | os.PathLike[str],
    *,
    frames: int,
    height: int,
    width: int,
    fps: float,
    short: ShortClips = "pad",
    start: float = 0.0,
    fit: Fit = "crop",
    distinct: bool = False,
) -> Tensor:
    """A clip of a video, resampled in time and fitted to a size.

    Frame k is the one nearest in time to `start + k / fps`. Each is resized to (height, width) as `fit_pictures` does.

    Args:
        path: a video or an image.
        frames, height, width, fps: length, size in pixels and rate of the clip.
        short: what to do when the video ends too early: "pad" repeats its last frame, "skip" and "error"
            raise `ClipTooShort` (whoever skips catches it).
        start: seconds into the video.
        fit: what becomes of pictures of another shape; see `fit_pictures`.
        distinct: refuse to take a frame twice.

    Returns:
        `3 T H W` float32 in [-1, 1].

    Raises:
        ClipTooShort: see `short` and `distinct`.
        UserError: the file cannot be decoded.
    """
    path = Path(path)
    chosen: list[Tensor] = []
    with _named_errors(path):
        if _is_still(path):
            chosen.append(fit_frame(open_image(path), 1.0, height, width, fit))
        else:
            wanted = [start + k / fps for k in range(frames)]
            for frame, repeats in nearest_frames(decode(path, start), wanted, fps):
                if distinct and repeats > 1:
                    raise ClipTooShort(
                        f"{path}: a frame would come twice at {fps:g} fps; choose a lower rate"
                    )
                chosen += [fit_frame(*upright(frame), height, width, fit)] * repeats
    if not chosen:
        raise ClipTooShort(f"{path}: there is no frame at {start:g} s; choose an earlier start")
    if len(chosen) < frames:
        if short != "pad":
            raise ClipTooShort(
                f"{path}: {len(chosen)} frames at {fps:g} fps, {frames} wanted: "
                "ask for fewer frames or a higher rate, or set short_clips to 'pad'"
            )
        chosen += chosen[-1:] * (frames - len(chosen))
    return to_video(chosen[:frames])


def read_clips(
    path: str | os.PathLike[str],
    starts: Sequence[float],
    *,
    frames: int,
    height: int,
    width: int,
    fps: float,
    fit: Fit = "crop",
) -> Iterator[Tensor]:
    """Clips of one video, each as `read_video` gives it, in a single pass.

    Where key frames are rare, that is the time of one clip: each alone would decode all that lies before it.

    Args:
        path: a video.
        starts: seconds into the video, rising; clips may overlap.
        frames, height, width, fps: length, size in pixels and rate of a clip; the last ones may be padded.
        fit: what becomes of pictures of another shape; see `fit_pictures`.

    Yields:
        `3 T H W` float32 in [-1, 1], one for each start that lies within the video.

    Raises:
        UserError: the file cannot be decoded so far.
    """
    path = Path(path)
    # Times in order, and the number of the clip that each is of.
    wanted = sorted((start + k / fps, number) for number, start in enumerate(starts) for k in range(frames))
    chosen: list[list[Tensor]] = [[] for _ in starts]
    done = first = 0
    with _named_errors(path):
        times = [time for time, _ in wanted]
        for frame, repeats in nearest_frames(decode(path, times[0]), times, fps):
            picture = fit_frame(*upright(frame), height, width, fit)
            for _, number in wanted[done : done + repeats]:
                chosen[number].append(picture)
            done += repeats
            while first < len(chosen) and len(chosen[first]) == frames:
                yield to_video(chosen[first])
                chosen[first] = []
                first += 1
    for pictures in filter(None, chosen[first:]):
        yield to_video(pictures + pictures[-1:] * (frames - len(pictures)))


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
        about = state(path)
        return _probe(os.fspath(path), verify, about.changed, about.size)


@lru_cache(maxsize=1 << 17)
def _probe(name: str, verify: bool, changed: int, size: int) -> VideoInfo:
    """`probe`, once for a file as it is: both parts of a set and all its sizes look at every file.

    Of a hundred thousand files a string takes a fraction of the memory of a `Path`.
    """
    path = Path(name)
    if _is_still(path):
        height, width = open_image(path).shape[:2]
        return VideoInfo(height, width, 0.0, 1, 0.0, path.suffix.lower().lstrip("."))
    return _probe_video(path, verify)


def _is_still(path: Path) -> bool:
    return is_image(path) and count_pictures(path) == 1


def _probe_video(path: Path, verify: bool) -> VideoInfo:
    header = read_header(path)
    damage = None
    first_size: tuple[int, int] | None = None
    interlaced = False
    times: list[tuple[float, float]] = []  # and how long the frame lasts
    keys: list[float] = []
    try:
        for frame in decode(path) if verify else demux(path):
            if frame.picture is not None and first_size is None:
                first_size = size(frame)
            if isinstance(frame.picture, av.VideoFrame) and frame.picture.is_corrupt:
                damage = f"frame {len(times)} is corrupt"
            interlaced = interlaced or frame.interlaced
            times.append((frame.time, frame.length))
            if frame.key:
                keys.append(frame.time)
    except (av.error.FFmpegError, OSError, SyntaxError) as error:
        if first_size is None:
            raise
        damage = f"decoding stops after {len(times)} frames ({getattr(error, 'strerror', None) or error})"
    if first_size is None:
        raise UserError(f"{path}: holds no frame that can be decoded; copy or export it again")
    times.sort()
    (first, _), (end, last) = times[0], times[-1]
    count, span = len(times), end - first
    last = last or (end - times[-2][0] if count > 1 else 0.0)
    duration = end + last
    damage = _truncation(path, header, [time for time, _ in times], duration, last, verify) or damage
    fps = (count - 1) / span if span > 0 else 1 / last if last > 0 else 0.0
    marks = sorted([first, *keys, duration])
    gap = max(later - earlier for earlier, later in pairwise(marks))
    return VideoInfo(
        *first_size, fps, count, duration, header.codec, damage, last, gap, header.transfer, interlaced
    )


def _truncation(
    path: Path, header: Header, times: Sequence[float], duration: float, last: float, verify: bool
) -> str | None:
    """What the header promises and the file lacks."""
    # + 1: some writers count a frame that an edit list hides
    if header.frames > len(times) + 1:
        there = len(times) if is_image(path) else count_packets(path)
        if there < header.frames:
            return f"truncated: {there} of {header.frames} frames are there"
        # A cut may leave frames at the start that refer to what was cut off: no player shows them.
        promised = sum(frame.time >= times[0] for frame in packets(path)) if verify else len(times)
        if promised > len(times) + 1:
            return f"damaged: {len(times)} of {promised} frames can be decoded"
    if header.seconds - duration > max(0.1 * header.seconds, 2 * last):
        return f"truncated: {duration:.2f} of {header.seconds:.2f} seconds are there"
    return None


def nearest_frames(frames: Iterable[Frame], wanted: list[float], fps: float) -> Iterator[tuple[Frame, int]]:
    """(frame, how many of the wanted times it is the nearest to); ends where the frames do."""
    done, held, gap = 0, None, 0.0
    for frame in frames:
        if held is not None:
            before = done
            while done < len(wanted) and wanted[done] <= (held.time + frame.time) / 2:
                done += 1
            if done > before:
                yield held, done - before
            if done == len(wanted):
                return
            gap = frame.time - held.time
        held = frame
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


def to_video(chosen: Sequence[Tensor]) -> Tensor:
    """Frames `3 H W` in [0, 255] -> `3 T H W` in [-1, 1]."""
    return torch.stack(list(chosen), dim=1) / 127.5 - 1


def fit_frame(pixels: Tensor, stretch: float, height: int, width: int, fit: Fit) -> Tensor:
    """`h w 3` uint8 -> `3 height width` float32 in [0, 255]; see `fit_pictures`."""
    return fit_pictures(pixels.permute(2, 0, 1)[None].float(), height, width, fit, stretch)[0]


def fit_pictures(images: Tensor, height: int, width: int, fit: Fit, stretch: float = 1.0) -> Tensor:
    """Pictures in another size, resized with antialiasing.

    "crop" keeps their shape, covers the size and cuts to it at the centre; "pad" keeps it too and shows all of a
    picture in the middle of black; "squash" shows all of it in the shape of the size. Black, not the colour of the
    picture's edge: it is the same in every frame, so that no border moves where nothing does.

    Args:
        images: `B C h w` float32 in [0, 255].
        height, width: pixels to come.
        fit: how.
        stretch: how much wider than high a pixel is.

    Returns:
        `B C height width` float32 in [0, 255].
    """
    visible = (images.shape[2], images.shape[3] * stretch)
    scales = (height / visible[0], width / visible[1])
    if fit == "squash":
        size = (height, width)
    elif fit == "pad":
        scale = min(scales)
        size = (
            min(height, max(1, round(visible[0] * scale))),
            min(width, max(1, round(visible[1] * scale))),
        )
    else:
        scale = max(scales)
        size = (max(height, round(visible[0] * scale)), max(width, round(visible[1] * scale)))
    if size != tuple(images.shape[2:]):
        images = functional.interpolate(images, size, mode="bilinear", antialias=True).clamp_(0, 255)
    if fit == "pad":
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        return functional.pad(images, (left, width - size[1] - left, top, height - size[0] - top))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return images[:, :, top : top + height, left : left + width]


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn what decoders raise into one line that names the file."""
    if not exists(path):
        raise UserError(f"{path}: no such file")
    try:
        yield
    except (av.error.FFmpegError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot be decoded ({why}); copy or export it again") from error
