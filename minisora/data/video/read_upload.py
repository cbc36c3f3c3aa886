"""Read a file that somebody sent, which may have been made to do harm: within bounds, or refused in one line."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from minisora.data.media_kind import MAGIC_BYTES, MOST_DECODED, MOST_PIXELS, kind_of
from minisora.data.video.frames import Frame, decode, size, upright
from minisora.data.video.read_video import Fit, fit_frame, nearest_frames, to_video
from minisora.errors import UserError
from minisora.memory import is_out_of_memory

# Pictures decoded between calls of `on_frames`.
_OFTEN = 16


def read_upload(
    path: str | os.PathLike[str],
    name: str,
    sizes: Sequence[tuple[int, int]],
    *,
    most_frames: int,
    fps: float,
    fit: Fit = "crop",
    on_frames: Callable[[], object] = lambda: None,
) -> Tensor:
    """The start of a video, or a picture, resampled in time and fitted to one of several sizes.

    Args:
        path: the file; its suffix is that of `kind_of` its first bytes.
        name: what the file is called in messages: of the person who sent it.
        sizes: (height, width) to choose from; that which is nearest in shape is taken.
        most_frames: of the result; what comes later is left out.
        fps: of the result. Frame k is the one nearest in time to k / fps.
        fit: as of `read_video`.
        on_frames: called now and then while it is decoded; what it raises ends that.

    Returns:
        `3 T H W` float32 in [-1, 1], of 1 to `most_frames` frames.

    Raises:
        UserError: it cannot be decoded, or is larger than the bounds of `media_kind`.
    """
    path, chosen = Path(path), list[Tensor]()
    with path.open("rb") as file:
        if kind_of(file.read(MAGIC_BYTES)) != path.suffix:
            raise UserError(f"{name} is not what its first bytes say")
    target: tuple[int, int] | None = None
    for count, (frame, repeats) in enumerate(
        nearest_frames(_bounded(path, name, on_frames), [k / fps for k in range(most_frames)], fps)
    ):
        with _one_line(path, name):
            if count == 0:
                target = _nearest(*size(frame), sizes)
            assert target is not None
            chosen += [fit_frame(*upright(frame), *target, fit)] * repeats
    if not chosen:
        raise UserError(f"{name} holds no picture that can be decoded: export it again")
    return to_video(chosen[:most_frames])


def _bounded(path: Path, name: str, on_frames: Callable[[], object]) -> Iterator[Frame]:
    """The frames of a file, as long as there are no more or larger ones than are taken."""
    frames = decode(path, most_pixels=MOST_PIXELS)
    for count in range(MOST_DECODED + 1):
        if count % _OFTEN == 0:
            on_frames()
        with _one_line(path, name):
            frame = next(frames, None)
        if frame is None:
            return
        if count == MOST_DECODED:
            raise UserError(f"{name} has more than {MOST_DECODED:,} pictures before its end: cut it")
        yield frame


@contextmanager
def _one_line(path: Path, name: str) -> Iterator[None]:
    """Whatever a decoder raises over bytes that may be anything, as one line."""
    try:
        yield
    except UserError as error:
        # Where it is kept here is nobody's concern, and no folder of clips is meant.
        why = str(error).removeprefix(f"{path}: ").partition(";")[0]
        if why != str(error):
            why = f"{name} cannot be decoded ({why}): export it again"
        raise UserError(why.replace(str(path), name).replace(path.name, name)) from error
    except Exception as error:
        if is_out_of_memory(error):
            raise
        why = " ".join(str(getattr(error, "strerror", None) or type(error).__name__).split())[:80]
        raise UserError(f"{name} cannot be decoded ({why}): export it again") from error


def _nearest(height: int, width: int, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size that has to be cut least to the shape of a picture; the first of several."""
    wide = width / max(height, 1)

    def kept(size: tuple[int, int]) -> float:
        own = size[1] / size[0]
        return min(own, wide) / max(own, wide, 1e-9)

    return max(sizes, key=kept)
