"""The measures of the modes, on clips whose truth is known: a perfect model passes, a broken one does not."""

import numpy as np
import torch

from minisora.data.captions import parse
from minisora.data.shapes import ShapesWorld
from minisora.evaluate.trial import path_distance, same_object, step_sizes, velocity_jump

PROMPT = parse("a large red circle moving right")


def test_a_real_clip_goes_on_smoothly_and_a_cut_one_jumps() -> None:
    clip = ShapesWorld(1).render([PROMPT], 0)[0]
    assert velocity_jump(clip, 9) < 0.3
    cut = torch.cat([clip[:, :9], clip[:, 12:], clip[:, -3:]], dim=1)
    assert velocity_jump(cut, 9) > 1


def test_identity_is_lost_where_the_object_changes() -> None:
    world = ShapesWorld(1)
    clip, other = world.render([PROMPT, parse("a large blue circle moving right")], 0)
    assert same_object(clip, 9, PROMPT)
    assert not same_object(torch.cat([clip[:, :9], other[:, 9:]], dim=1), 9, PROMPT)


def test_paths_are_compared_frame_by_frame() -> None:
    world = ShapesWorld(1)
    clip = world.render([PROMPT], 0)[0]
    assert path_distance(clip, clip) == 0
    assert path_distance(clip, clip.flip(1)) > 0.1
    assert path_distance(clip, torch.full_like(clip, -1)) == np.inf
    assert step_sizes(clip).shape == (16,)
