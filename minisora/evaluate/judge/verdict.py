"""The judge: what a clip of the shapes world shows, from its frames alone, without a learned network.

    verdict = judge(video)                    # 3 T H W in [-1, 1]
    verdict.matches(parse("a red circle moving left"))  # {"color": True, "shape": True, ...}

`minisora.evaluate.sample_and_judge.judge_accuracy` measures how often it is right where the truth is known.
"""

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
from torch import Tensor

from minisora.data.shapes_world.grammar import Light, Motion, ShapesPrompt, Size
from minisora.data.shapes_world.layout import RADIUS
from minisora.errors import UserError
from minisora.evaluate.judge.follow import Observation, observe
from minisora.evaluate.judge.motion import measure_passage, measure_track
from minisora.evaluate.judge.outline import find_second, measure_overlap

ATTRIBUTES = ("color", "shape", "motion", "size", "light", "wall")
# A fit that leaves more than this share of the coverage's energy unexplained is no shape of the world: VAE
# reconstructions at 30 dB stay below 0.08, formless blobs of a half-trained model are between 0.1 and 0.4.
_WORST_FIT = 0.2
_OF_OBJECT = (
    *("color", "shape", "motion", "size", "path_error", "path_error_share", "speed_error"),
    *("permanence", "reappearance_error", "size_variation", "fit_error", "overlap"),
)
# Areas of the object that make a second blob.
_SECOND = 0.1
# Of a clip that is whole: frames that may show a second object, one of 17, and the overlap that it needs. Every clip
# of the world has 0.9 or more.
MOST_SECOND = 0.06
LEAST_OVERLAP = 0.85
# Raise it with any change of what a verdict holds or says: verdicts that are kept are then judged anew.
VERSION = 2


@dataclass(frozen=True)
class Verdict:
    """What a clip shows; None where that cannot be told, as in a clip without an object."""

    color: str | None
    shape: str | None
    motion: Motion | None
    size: Size | None
    light: Light | None
    wall: bool
    path_error: float | None  # pixels, RMS distance of the centre from a straight line (still: from a point)
    path_error_share: float | None  # the same as a share of the short side
    speed_error: float | None  # RMS distance along the line from constant speed, share of the path
    permanence: bool | None  # the same object in the right place after the wall hid it; None without a wall
    reappearance_error: float | None  # pixels between that place and where it came out
    flicker: float  # mean change of the background between frames, of the range from black to white
    leftovers: float  # share of the frames that show a second blob, well away from the object
    second: float  # share of the frames that show a second object; see `minisora.evaluate.judge.outline`
    presence: float  # share of the frames that show the object, of those in which the wall does not hide it
    size_variation: float | None  # standard deviation of the object's area over its mean, where wholly seen
    fit_error: float | None  # what the shape leaves unexplained of the object's mask: 0 is a perfect shape
    overlap: float | None  # of the object's mask with the ideal shape around it: 1 is a perfect outline

    @property
    def one_whole_object(self) -> bool:
        """At most `MOST_SECOND` of the frames show a second object, and the overlap is at least `LEAST_OVERLAP`."""
        return self.second <= MOST_SECOND and self.overlap is not None and self.overlap >= LEAST_OVERLAP

    def all_right(self, prompt: ShapesPrompt) -> bool:
        """Whether colour, shape and motion are as the prompt wants."""
        matches = self.matches(prompt)
        return matches["color"] and matches["shape"] and matches["motion"]

    def whole(self, prompt: ShapesPrompt) -> bool:
        """The stricter measure: colour, shape and motion are right, and it is one whole object."""
        return self.all_right(prompt) and self.one_whole_object

    def matches(self, prompt: ShapesPrompt) -> dict[str, bool]:
        """Which attributes are as the prompt wants; unsaid means medium, at night, without a wall."""
        return {name: getattr(self, name) == getattr(prompt, name) for name in ATTRIBUTES}


def judge(video: Tensor) -> Verdict:
    """The verdict on one clip, `3 T H W` float in [-1, 1].

    Raises:
        UserError: the tensor is no such clip, or not finite.
    """
    return _verdict(observe(video))


def judge_all(videos: Tensor) -> list[Verdict]:
    """The verdicts on clips `B 3 T H W` in [-1, 1].

    Raises:
        UserError: the tensor holds no such clips, or they are not finite.
    """
    if videos.ndim != 5:
        raise UserError(f"clips to judge must be B 3 T H W; got {tuple(videos.shape)}")
    return [judge(video) for video in videos]


def _verdict(observation: Observation) -> Verdict:
    frames, scenery, tracked = observation.frames, observation.scenery, observation.object
    height, width = frames.shape[1:3]
    side = min(height, width)
    if tracked is None:
        nothing = np.zeros(frames.shape[:3], dtype=bool)
        return Verdict(
            **dict.fromkeys(_OF_OBJECT),
            light=scenery.light,
            wall=scenery.wall is not None,
            flicker=_flicker(frames, nothing),
            leftovers=0.0,
            second=0.0,
            presence=0.0,
        )
    track = measure_track(tracked.centers, height, width)
    passage = measure_passage(observation)
    whole = tracked.areas[tracked.shown][tracked.fit.seen(tracked.patches) > 0.95]
    return Verdict(
        color=tracked.segmentation.color,
        shape=tracked.shape if tracked.fit.error < _WORST_FIT else None,
        motion=track.motion,
        size=_size(tracked.fit.radius / side),
        light=scenery.light,
        wall=scenery.wall is not None,
        path_error=track.path_error,
        path_error_share=None if track.path_error is None else track.path_error / side,
        speed_error=track.speed_error,
        permanence=passage.permanence if passage else None,
        reappearance_error=passage.error if passage else None,
        flicker=_flicker(frames, tracked.near),
        leftovers=float((tracked.second > _SECOND).mean()),
        second=float(find_second(observation).mean()),
        presence=_presence(observation),
        size_variation=float(whole.std() / whole.mean()) if len(whole) > 1 else None,
        fit_error=tracked.fit.error,
        overlap=measure_overlap(observation),
    )


def _size(share: float) -> Size:
    """The size whose radius is nearest in proportion; `share` is of the short side."""
    sizes: tuple[Size, ...] = get_args(Size)
    return min(sizes, key=lambda name: abs(math.log(share / RADIUS[name])))


def _flicker(frames: np.ndarray, object_there: np.ndarray) -> float:
    """Mean change between consecutive frames (T H W 3), where neither shows the object (flags T H W)."""
    if len(frames) < 2:
        return 0.0
    change = np.abs(np.diff(frames, axis=0)).mean(axis=3)
    quiet = ~(object_there[1:] | object_there[:-1])
    return float((change * quiet).sum() / max(quiet.sum(), 1))


def _presence(observation: Observation) -> float:
    """Frames in which a wall hides the object count for neither side: those between two sightings."""
    tracked = observation.object
    assert tracked is not None
    seen = tracked.seen
    if observation.scenery.wall is None:
        return float(seen.mean())
    first, last = tracked.shown[0], tracked.shown[-1]
    excused = np.zeros_like(seen)
    excused[first : last + 1] = ~seen[first : last + 1]
    return float(seen.sum() / max((~excused).sum(), 1))
