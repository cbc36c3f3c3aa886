"""`ShapesWorld`: endless captioned clips of one object, an item a pure function of (seed, index); and a folder of them.

Shares, chosen so that a small model meets every word of the grammar often: 80 % of the clips move; of those
moving left or right a fifth (or `wall_share`) pass behind a wall; half are medium, a quarter small, a quarter
large (behind a wall half small, half medium: a large object would not come out of it); 35 % are by day; of the
rest half say "at night". Colours, shapes and directions are equally frequent, but for the triples held out.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.progress import track
from torch import Tensor

from minisora.config import ClipConfig
from minisora.data.clips import Split, to_uint8
from minisora.data.draws import uniforms
from minisora.data.folder.metadata import only_ours, write_metadata
from minisora.data.shapes_world.grammar import COLORS, DIRECTIONS, SHAPES, ShapesPrompt, held_out
from minisora.data.shapes_world.layout import NUM_DRAWS, Scene, layout, rasterize
from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.limits import check_seed

# Raise it with any change of what is drawn: latent caches are keyed by it.
VERSION = 1

MOVING = 0.8
WALL_SHARE = 0.2
DAY = 0.35
SAY_NIGHT = 0.5

# Each split draws from indices of its own, so no clip of one is ever in another.
_FIRST_INDEX: dict[str, int] = {"train": 0, "validation": 1 << 40, "all": 2 << 40}
_NUM_PROMPT_DRAWS = 6
# And so do the clips that `render` draws of its prompts.
_RENDER_STREAM = 3 << 40
_SMALLEST_SIDE = 8
# Clips that `make_shapes` draws at a time.
_BATCH = 32


@dataclass(frozen=True)
class ShapesTruth:
    """What is exactly where in one clip.

    Args:
        prompt: what the clip shows.
        centers: T 2, (y, x) pixels, pixel centres at integers.
        radius: pixels; `minisora.data.shapes_world.layout` says what it is of a square and a triangle.
        visibility: T, share of the object's area that is visible, in [0, 1].
    """

    prompt: ShapesPrompt
    centers: np.ndarray
    radius: float
    visibility: np.ndarray


class ShapesWorld:
    """A `ClipDataset` of procedural clips.

    Args:
        num_clips: length of the data set.
        seed: another seed is another data set.
        frames, height, width, fps: length, size in pixels and rate of every clip; sides of 8 pixels or more.
        split: "train" and "validation" never share a clip and both lack the held-out triples of
            `grammar.held_out`; "all" has them too.
        wall_share: share of the clips moving left or right that pass behind a wall.

    Raises:
        UserError: a size that cannot be drawn.
    """

    def __init__(
        self,
        num_clips: int,
        seed: int = 0,
        frames: int = 17,
        height: int = 64,
        width: int = 64,
        fps: float = 8.0,
        split: Split | Literal["all"] = "train",
        wall_share: float = WALL_SHARE,
    ) -> None:
        if split not in _FIRST_INDEX:
            raise UserError(f"split '{split}' is unknown; known: {', '.join(_FIRST_INDEX)}")
        if num_clips < 1 or frames < 1 or fps <= 0:
            raise UserError(f"num_clips={num_clips}, frames={frames}, fps={fps}: each must be above 0")
        check_seed(seed)
        if not 0 <= wall_share <= 1:
            raise UserError(f"wall_share={wall_share} must be between 0 and 1")
        if min(height, width) < _SMALLEST_SIDE:
            raise UserError(
                f"shapes of {height}x{width} pixels cannot be told apart: use sides >= {_SMALLEST_SIDE}"
            )
        self.num_clips = num_clips
        self.seed = seed
        self.frames, self.height, self.width, self.fps = frames, height, width, fps
        self.split, self.wall_share = split, wall_share
        self._triples = [
            (color, shape, direction)
            for color in COLORS
            for shape in SHAPES
            for direction in DIRECTIONS
            if split == "all" or not held_out(color, shape, direction)
        ]

    def __len__(self) -> int:
        return self.num_clips

    def clips(self, indices: Sequence[int]) -> Tensor:
        """The videos of these clips, `B 3 T H W` uint8; raises IndexError beyond the end."""
        prompts, _, draws = self._items(indices)
        return to_uint8(self._draw(prompts, draws))

    def captions(self) -> list[str]:
        """The caption of every clip."""
        prompts, say_night, _ = self._items(range(self.num_clips))
        return [prompt.caption(say) for prompt, say in zip(prompts, say_night, strict=True)]

    def prompts(self, indices: Sequence[int]) -> list[ShapesPrompt]:
        """What these clips show."""
        return self._items(indices)[0]

    def truth(self, index: int) -> ShapesTruth:
        """Exactly what is where in clip number `index`."""
        prompts, _, draws = self._items([index])
        return _truths(prompts, self._layout(prompts, draws))[0]

    def fingerprint(self) -> str:
        """Hex digits of everything the clips depend on."""
        facts = ["shapes", VERSION, self.seed, self.split, self.num_clips]
        facts += [self.frames, self.height, self.width, float(self.fps)]
        facts += [] if self.wall_share == WALL_SHARE else [self.wall_share]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def render(self, prompts: Sequence[ShapesPrompt], seed: int) -> Tensor:
        """One clip of each prompt, `B 3 T H W` float32 in [-1, 1]; the seed draws what they leave open."""
        return self._draw(prompts, self._render_draws(len(prompts), seed))

    def render_truth(self, prompts: Sequence[ShapesPrompt], seed: int) -> list[ShapesTruth]:
        """The truth of the clips that `render` draws of the same prompts and seed."""
        return _truths(prompts, self._layout(prompts, self._render_draws(len(prompts), seed)))

    def _items(self, indices: Sequence[int]) -> tuple[list[ShapesPrompt], list[bool], np.ndarray]:
        """Prompts, whether to say "at night", and the draws left for the layout (B NUM_DRAWS)."""
        items = np.asarray(indices, dtype=np.int64)
        items = np.where(items < 0, items + self.num_clips, items)
        if items.size and (items.min() < 0 or items.max() >= self.num_clips):
            raise IndexError(f"clip index out of range: the data set has {self.num_clips} clips")
        draws = uniforms(self.seed, items + _FIRST_INDEX[self.split], _NUM_PROMPT_DRAWS + NUM_DRAWS)
        rows = draws[:, :_NUM_PROMPT_DRAWS].tolist()
        return (
            [self._prompt(*row[:5]) for row in rows],
            [row[5] < SAY_NIGHT for row in rows],
            draws[:, _NUM_PROMPT_DRAWS:],
        )

    def _prompt(self, moving: float, triple: float, size: float, wall: float, light: float) -> ShapesPrompt:
        """What a clip shows, from five uniform numbers.

        Drawing from the triples that are left is the same as drawing again while one is held out. A clip that
        stands still takes its colour and shape from all eighteen pairs.
        """
        if moving >= MOVING:
            pair = int(triple * len(COLORS) * len(SHAPES))
            color, shape, direction = list(COLORS)[pair // len(SHAPES)], SHAPES[pair % len(SHAPES)], "still"
        else:
            color, shape, direction = self._triples[int(triple * len(self._triples))]
        behind = direction in ("left", "right") and wall < self.wall_share
        if behind:
            word = "small" if size < 0.5 else "medium"
        else:
            word = "medium" if size < 0.5 else "small" if size < 0.75 else "large"
        return ShapesPrompt(
            color,
            shape,
            # Words of this module's own tables.
            motion=direction,  # type: ignore[arg-type]
            size=word,  # type: ignore[arg-type]
            wall=behind,
            light="day" if light < DAY else "night",
        )

    def _render_draws(self, num_clips: int, seed: int) -> np.ndarray:
        return uniforms(seed, np.arange(num_clips) + _RENDER_STREAM, NUM_DRAWS)

    def _layout(self, prompts: Sequence[ShapesPrompt], draws: np.ndarray) -> Scene:
        return layout(prompts, draws, self.frames, self.height, self.width, self.fps)

    def _draw(self, prompts: Sequence[ShapesPrompt], draws: np.ndarray) -> Tensor:
        return rasterize(self._layout(prompts, draws), self.height, self.width)


def _truths(prompts: Sequence[ShapesPrompt], scene: Scene) -> list[ShapesTruth]:
    visibility = scene.visibility()
    return [
        ShapesTruth(prompt, scene.centers[i], float(scene.radius[i]), visibility[i])
        for i, prompt in enumerate(prompts)
    ]


def make_shapes(out: Path, num_clips: int, seed: int, clip: ClipConfig, progress: bool = True) -> None:
    """Write training clips of the shapes world as a folder that `FolderDataset` reads: mp4 files and `metadata.csv`.

    A run that was cut off can be repeated; the same arguments give the same bytes.

    Args:
        out: the folder; made if need be. It may hold files of an earlier run and nothing else.
        num_clips: number of clips.
        seed: seed of the `ShapesWorld`.
        clip: size, length and rate. Even sides, since that is what the mp4 can hold exactly.
        progress: show a bar.

    Raises:
        UserError: the folder holds other things or cannot be written, or a side is odd.
    """
    if clip.height % 2 or clip.width % 2:
        raise UserError(
            f"an mp4 needs even sides, not {clip.height}x{clip.width}: choose clip.height and clip.width so"
        )
    world = ShapesWorld(num_clips, seed, clip.frames, clip.height, clip.width, clip.fps)
    digits = max(5, len(str(num_clips - 1)))
    names = [f"clip_{index:0{digits}d}.mp4" for index in range(num_clips)]
    only_ours(out, {*names, "metadata.csv"})
    starts = range(0, num_clips, _BATCH)
    for start in track(starts, description="writing clips", disable=not progress, transient=True):
        indices = range(start, min(start + _BATCH, num_clips))
        for index, video in zip(indices, world.clips(indices), strict=True):
            write_video(out / names[index], video, clip.fps)
    write_metadata(out / "metadata.csv", ("file_name", "text"), zip(names, world.captions(), strict=True))
