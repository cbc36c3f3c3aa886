"""Judge a folder of videos with `metadata.csv` (`file_name,text`), whatever model made them."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from minisora.data.folder.metadata import FileNames, read_metadata
from minisora.data.folder.scan import walk
from minisora.data.shapes_world.grammar import parse
from minisora.data.video.read_video import probe, read_video
from minisora.data.video.write_video import shown_frames
from minisora.errors import UserError
from minisora.evaluate.judge.verdict import Verdict, judge
from minisora.evaluate.sample_and_judge import (
    CHECKS,
    SHOWN,
    Evaluation,
    Failure,
    Judged,
    judge_accuracy,
    worst_of,
    wrong_attributes,
)

# A clip of 4 minutes at 25 frames a second of 128 x 128; the judge holds some ten copies of it in memory.
_MOST_PIXELS = 100_000_000
# Rendered clips judged at a time, where so many are no more than that.
_AT_ONCE = 16
# Pixels per side of what is kept of a video for the sheets.
_MOST_SHOWN = 256


def evaluate_videos(
    folder: Path,
    num_checks: int = CHECKS,
    on_progress: Callable[[float, int], None] | None = None,
) -> Evaluation:
    """Judge the videos that `metadata.csv` captions in the grammar of the shapes world.

    Others are named in `Evaluation.skipped` with the reason: captions outside the grammar, files that cannot
    be read, and mp4 files without a row.

    Args:
        folder: holds the videos and `metadata.csv`.
        num_checks: rendered clips, at least, that the judge's own accuracy is measured on.
        on_progress: called after every file with (files done, files in all).

    Raises:
        UserError: there is no folder or no `metadata.csv`, or no video is left to judge.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: pass one with mp4 files and metadata.csv")
    table = folder / "metadata.csv"
    if not table.is_file():
        raise UserError(f"{folder} has no metadata.csv: write one with the columns file_name,text")
    rows = read_metadata(table)
    files: list[str] = []
    captions: list[str] = []
    verdicts: list[Verdict] = []
    failures: list[Failure] = []
    worst: list[Judged] = []
    sizes: Counter[tuple[int, int, int]] = Counter()
    skipped = []
    videos, *_ = walk(folder)
    names = FileNames(folder, (video.relative_to(folder).as_posix() for video in videos))
    captioned = [(names.find(row.file_name), row.text) for row in rows]
    for number, (name, caption) in enumerate(captioned, start=1):
        try:
            prompt = parse(caption)
            video = _read(folder / name)
            verdict = judge(video)
        except UserError as error:
            skipped.append(f"{name}: {error}")
        else:
            files.append(name)
            captions.append(caption)
            verdicts.append(verdict)
            sizes[(video.shape[1], video.shape[2], video.shape[3])] += 1
            wrong = wrong_attributes(verdict, prompt)
            pictures = _pictures(video)
            worst = worst_of([*worst, Judged(f"{name}: {caption}", prompt, verdict, pictures)])
            if wrong and len(failures) < SHOWN:
                failures.append(Failure(f"{name}: {caption}", wrong, pictures))
        if on_progress:
            on_progress(number, len(rows))
    known = {name for name, _ in captioned}
    skipped += [
        f"{path.name}: it has no row in metadata.csv"
        for path in sorted(folder.glob("*.mp4"))
        if path.name not in known
    ]
    if not verdicts:
        raise UserError(
            f"no video of {folder} can be judged ({len(skipped)} skipped"
            + (f"; {skipped[0]})" if skipped else "; metadata.csv has no rows)")
        )
    size = sizes.most_common(1)[0][0]
    at_once = max(1, min(_AT_ONCE, _MOST_PIXELS // math.prod(size)))
    return Evaluation(
        captions=captions,
        verdicts=verdicts,
        rendered=judge_accuracy(captions, size, num_clips=num_checks, batch_size=at_once),
        reconstructed=None,
        failures=failures,
        worst=worst,
        files=files,
        skipped=skipped,
        settings={"size": list(size)},
    )


def _pictures(video: Tensor) -> Tensor:
    """Of a video 3 T H W the frames that a sheet shows, no larger than it needs them."""
    frames = video[:, torch.from_numpy(shown_frames(video.shape[1]))]
    shrink = _MOST_SHOWN / max(video.shape[2:])
    if shrink >= 1:
        return frames
    size = [max(1, round(shrink * side)) for side in video.shape[2:]]
    return F.interpolate(frames.movedim(1, 0), size, mode="area").movedim(0, 1)


def _read(path: Path) -> Tensor:
    """Every frame of a video at its own size and rate, 3 T H W in [-1, 1]."""
    info = probe(path)
    if info.frames * info.height * info.width > _MOST_PIXELS:
        raise UserError(
            f"{info.frames} frames of {info.height}x{info.width} are too much to judge: cut it or make it smaller"
        )
    return read_video(
        path, frames=info.frames, height=info.height, width=info.width, fps=info.fps or 1.0, short="pad"
    )
