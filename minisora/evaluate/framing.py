"""Composition: how much of a video shows its whole object, rather than one that the edge cuts off.

OpenAI's report on Sora (2024) says that a model trained on square crops cuts subjects off, and one trained on native
sizes frames them. In the shapes world, no clip lets its object touch the edge, so the truth is known.
"""

import numpy as np
from torch import Tensor

from minisora.evaluate.judge.motion import observe
from minisora.evaluate.judge.shapes import reach_of

_TOLERANCE = 1.0  # pixels that a fitted edge may lie outside: after a VAE at 30 dB it is off by half of one


def whole_share(video: Tensor) -> float:
    """The share of a video's frames, 0 to 1, that show its object whole; frames without one show none.

    Walls hide objects too, which says nothing of the frame: judge videos of prompts without one.

    Args:
        video: `3 T H W` in [-1, 1].

    Raises:
        UserError: the tensor is no such clip.
    """
    found = observe(video).object
    if found is None:
        return 0.0
    up, down, aside = reach_of(found.shape) * found.fit.radius
    low = np.array([up, aside]) - 0.5 - _TOLERANCE  # (y, x): where a centre may be
    high = np.array(video.shape[2:]) - 0.5 - np.array([down, aside]) + _TOLERANCE
    inside = (found.centers >= low) & (found.centers <= high)  # T 2; NaN is not inside
    return float(inside.all(axis=1).mean())
