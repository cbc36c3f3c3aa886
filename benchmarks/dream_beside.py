"""A dream beside the clips of a recording that it was not trained on, under the codes found in them: a video.

    python benchmarks/dream_beside.py WORLD RECORDING OUT.mp4

Above the first clips of the recording, none chosen, below the dream: it sees four frames, and dreams the others.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from minisora.data.clips import to_float
from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.worlds.dream import Dream, load_dream
from minisora.worlds.labels import labelled_clips

SEEN, COLUMNS, TIMES, GAP = 4, 6, 2, 4


def beside(dream: Dream, clips: Tensor) -> Tensor:
    """Clips N 3 T H W uint8, and below each what is dreamed under its codes, 3 T 2H' N W' uint8; larger, with gaps."""
    codes = torch.stack([dream.actions.codes_of(to_float(clip)) for clip in clips]).numpy()  # N T-1
    dream.start(clips[:, :, :SEEN])
    after = [dream.step(codes[:, at]) for at in range(SEEN - 1, codes.shape[1])]
    dreamed = torch.cat([clips[:, :, :SEEN], torch.stack(after, dim=2)], dim=2)
    rows = []
    for videos in (clips, dreamed):
        larger = videos.repeat_interleave(TIMES, 3).repeat_interleave(TIMES, 4)
        framed = torch.nn.functional.pad(larger, (GAP, GAP, GAP, GAP), value=255)
        rows.append(torch.cat(list(framed), dim=-1))
    return torch.cat(rows, dim=-2)


def main() -> int:
    """Write the video; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("world", type=Path, help="folder of a world, or a shipped one")
    parser.add_argument("recording", type=Path, help="with its truth, of that kind of world")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    try:
        dream = load_dream(arguments.world, "cpu")
        found = [clip.video for clip in labelled_clips(arguments.recording, dream.size, dream.fps)][:COLUMNS]
        frames = min(video.shape[1] for video in found)
        picture = beside(dream, torch.stack([video[:, :frames] for video in found]))
        write_video(arguments.out, to_float(picture), dream.fps)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
