"""A clip size, a rate and a fit that suit what is in a folder, as a config with a reason above every line."""

import math
from collections import Counter
from collections.abc import Iterable
from functools import partial
from statistics import median_low

from minisora.config import Config
from minisora.data.folder.scan import FolderScan, ScannedFile, shape_distance, some_of
from minisora.errors import UserError

# Frames per second; more hardly shows more movement, and costs as much as larger pictures.
MOST_FPS = 15.0
# Share of a picture that may be cut without a word.
LITTLE = 1 / 8
# Share of the videos that must fill a clip, and of the files that make a size of their own worth while.
_ALMOST_ALL, _WORTH_A_SIZE = 0.9, 0.1
# How much more a picture's shape counts than the number of its pixels.
_SHAPE_WEIGHT = 1.5
_WORDS = {
    1 / 8: "an eighth",
    1 / 4: "a quarter",
    1 / 3: "a third",
    1 / 2: "half",
    2 / 3: "two thirds",
    3 / 4: "three quarters",
}


def best_size(shown: tuple[int, int], area: int, unit: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) nearest in shape and in area to a picture's.

    Args:
        shown: (height, width) of the picture.
        area: wanted, in pixels; no more than the picture has.
        unit: what (height, width) must be multiples of.
    """
    wanted = min(area, shown[0] * shown[1])
    longest = 4 * math.isqrt(area)

    def cost(size: tuple[int, int]) -> float:
        return _SHAPE_WEIGHT * shape_distance(shown, size) + abs(math.log(size[0] * size[1] / wanted))

    heights, widths = (range(each, max(longest, each) + 1, each) for each in unit)
    return min(((height, width) for height in heights for width in widths), key=cost)


def size_unit(config: Config) -> tuple[int, int]:
    """What the (height, width) of a clip must be multiples of: a patch of the VAE's cells."""
    return config.vae.spatial_factor * config.dit.patch[1], config.vae.spatial_factor * config.dit.patch[2]


def cut_share(shown: tuple[int, int], size: tuple[int, int]) -> float:
    """Share of a picture, (height, width), that is lost when it is cut to the shape of a size."""
    scale = max(size[0] / shown[0], size[1] / shown[1])
    return 1 - size[0] * size[1] / (shown[0] * shown[1] * scale**2)


def share_in_words(share: float) -> str:
    """'a third' of 0.35, '41 %' of 0.41."""
    near = min(_WORDS, key=lambda known: abs(known - share))
    return _WORDS[near] if abs(near - share) < 0.025 else f"{share:.0%}".replace("%", " %")


def suggest(scan: FolderScan, config: Config) -> str:
    """YAML of `clip` and of what `data` needs for a folder, each value below the reason for it.

    Args:
        scan: of the folder; which clip it was made for does not matter.
        config: its `clip` is taken for the area of pictures and the most frames; its VAE and patches divide sizes.

    Raises:
        UserError: no file of the folder could be used.
    """
    files = [file for file in scan.files if file.info and (file.dropped is None or file.too_short)]
    if not files:
        raise UserError(
            f"{scan.folder}: no file can be used, so nothing can be suggested; "
            f"`minisora data check {scan.folder}` says why"
        )
    fps, frames, lines = _length(files, config)
    sizes, size_lines, more = _sizes(files, config, frames)
    return "\n".join(
        [
            f"# For {_files(len(files))}. Use: minisora train --data FOLDER --config THIS_FILE",
            "clip:",
            *lines,
            f"  frames: {frames}",
            *size_lines,
            f"  height: {sizes[0]}",
            f"  width: {sizes[1]}",
            *_rate(files, fps),
            f"  fps: {fps:g}",
            "data:",
            *more,
            "",
        ]
    )


def _length(files: list[ScannedFile], config: Config) -> tuple[float, int, list[str]]:
    """Rate, frames of a clip, and why so many."""
    videos = [file.info for file in files if file.info and not file.still]
    if 2 * len(videos) < len(files):
        reason = f"  # {_of(len(files) - len(videos), len(files), 'files')} are single pictures"
        return round(min(config.clip.fps, MOST_FPS), 3), 1, [reason]
    own = median_low(video.fps for video in videos)
    fps = max(0.01, round(own / math.ceil(own / MOST_FPS - 1e-3), 3))
    lengths = [video.frames_at(fps) for video in videos]
    step = config.vae.temporal_factor
    shortest = 1 + step
    choices = [n for n in range(config.clip.frames, shortest - 1, -1) if (n - 1) % step == 0] or [shortest]
    filled = {n: sum(length >= n for length in lengths) for n in choices}
    frames = next((n for n in choices if filled[n] >= _ALMOST_ALL * len(videos)), choices[-1])
    long_enough = _of(filled[frames], len(videos), "videos")
    rest = "" if filled[frames] == len(videos) else "; the last frame of the others is repeated"
    reason = f"  # {frames / fps:.2g} s, 1 more than a multiple of {step}: {long_enough} are as long{rest}"
    return fps, frames, [reason]


def _rate(files: list[ScannedFile], fps: float) -> list[str]:
    """Why this rate."""
    rates = sorted(file.info.fps for file in files if file.info and not file.still)
    if not rates:
        return ["  # of single pictures, without meaning"]
    own = median_low(rates)
    every = round(own / fps)
    each = f"the videos' own {own:.4g}" if every == 1 else f"one frame in {every} of videos of {own:.4g}"
    others = sum(abs(rate - own) > 0.02 * own for rate in rates)
    more = f"; {others} of {len(rates)} have another rate" if others else ""
    return [f"  # {each}, at most {MOST_FPS:g}{more}"]


def _sizes(
    files: list[ScannedFile], config: Config, frames: int
) -> tuple[tuple[int, int], list[str], list[str]]:
    """(height, width) of the clip, why, and the lines of `data`: fit and further sizes."""
    area, unit = config.clip.height * config.clip.width, size_unit(config)
    shown = [(file.info.height, file.info.width) for file in files if file.info]
    fitting = Counter(best_size(each, area, unit) for each in shown)
    common = [size for size, count in fitting.most_common() if count >= _WORTH_A_SIZE * len(files)]
    sizes = common or [fitting.most_common(1)[0][0]]
    nearest_of = {each: min(sizes, key=partial(shape_distance, each)) for each in set(shown)}
    counts = Counter(nearest_of[each] for each in shown)
    first = sizes[0]
    reason = (
        f"  # multiples of {_sides(unit)}, about {area:,} pixels, for {_of(counts[first], len(files), 'files')}: "
        f"{_most_common(each for each in shown if nearest_of[each] == first)}"
    )
    cut = [cut_share(each, nearest_of[each]) for each in shown]
    much = sum(share > LITTLE for share in cut)
    if much > 0.05 * len(files):
        fit, why = (
            "pad",
            (
                f"a crop would cut more than {share_in_words(LITTLE)} off {_of(much, len(files), 'files')}, "
                f"{share_in_words(max(cut))} off one; squash shows all of a picture too, without a border"
            ),
        )
    else:
        most = f"{max(cut):.0%} of a picture at most" if max(cut) > 0.005 else "nothing"
        fit, why = "crop", f"cuts {most}"
        if much:
            why += f", more than {share_in_words(LITTLE)} of {_files(much)} only"
    lines = [f"  # {why}", f"  fit: {fit}"]
    if len(sizes) > 1:
        lines += [
            "  # pictures of several shapes: each file is used at the nearest one",
            "  buckets_by_shape: true",
        ]
        lines.append("  buckets:")
        for size in sizes[1:]:
            share = max(0.01, round(counts[size] / counts[first], 2))
            seen = _most_common(each for each in shown if nearest_of[each] == size)
            lines.append(f"    # {_of(counts[size], len(files), 'files')}: {seen}")
            lines.append(f"    - {{frames: {frames}, height: {size[0]}, width: {size[1]}, share: {share:g}}}")
    return first, [reason], lines


def _most_common(shown: Iterable[tuple[int, int]]) -> str:
    """The sizes of pictures in words, those of most files first."""
    return some_of((_sides(size) for size, _ in Counter(shown).most_common()), 3)


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _of(count: int, total: int, things: str) -> str:
    return f"all {total} {things}" if count == total else f"{count} of {total} {things}"


def _files(count: int) -> str:
    return f"{count} file{'s' * (count != 1)}"
