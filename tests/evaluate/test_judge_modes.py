"""The measures of the modes, on clips whose truth is known: a perfect model passes, a broken one does not."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from minisora.data.shapes_world.grammar import parse
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.evaluate.judge_modes import (
    Trial,
    path_distance,
    same_object,
    score_extension,
    step_sizes,
    velocity_jump,
)
from minisora.flow.denoise import SampleSettings
from minisora.pipelines.pipeline import MiniSoraPipeline

PROMPT = parse("a large red circle moving right")


def test_a_real_clip_goes_on_smoothly_and_a_cut_one_jumps() -> None:
    clip = ShapesWorld(1).render([PROMPT], 0)[0]
    assert velocity_jump(clip, 9) < 0.3
    cut = torch.cat([clip[:, :9], clip[:, 12:], clip[:, -3:]], dim=1)
    assert velocity_jump(cut, 9) > 1
    speed = float(np.median(step_sizes(clip)))
    halted = torch.cat([clip[:, :9], clip[:, 8:9].expand(-1, 8, -1, -1)], dim=1)
    assert velocity_jump(halted, 9) == pytest.approx(speed, rel=0.2)  # a lasting change counts whole


class Perfect:
    """A pipeline whose VAE changes nothing."""

    config = SimpleNamespace(default_size=(17, 64, 64), fps=8.0, temporal_factor=4)
    device = torch.device("cpu")

    @property
    def vae(self) -> "Perfect":
        return self

    def to_latents(self, video: Tensor) -> Tensor:
        return video

    def to_video(self, latents: Tensor) -> Tensor:
        return latents


@pytest.mark.parametrize("backward", [False, True])
def test_an_extension_is_judged_apart_from_the_known_frames(
    backward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [parse(f"a {color} circle moving right") for color in ("red", "blue", "green", "yellow")]
    trial = Trial.of(cast(MiniSoraPipeline, Perfect()), prompts, 4, 0, SampleSettings())
    clips = trial.clips

    def truly(_: object, __: object, part: Tensor, **options: object) -> Tensor:
        return clips

    def frozen(_: object, __: object, part: Tensor, **options: object) -> Tensor:
        new = clips.shape[2] - part.shape[2]
        edge = part[:, :, :1] if backward else part[:, :, -1:]
        still = edge.expand(-1, -1, new, -1, -1)
        return torch.cat([still, part] if backward else [part, still], dim=2)

    monkeypatch.setattr("minisora.evaluate.judge_modes.extend", truly)
    right = score_extension(trial, backward=backward)
    assert right.rates["motion"].right == right.rates["identity"].right == 4
    assert right.rates["smooth"].right >= 3  # within the 95th percentile of themselves
    monkeypatch.setattr("minisora.evaluate.judge_modes.extend", frozen)
    wrong = score_extension(trial, backward=backward)
    assert wrong.rates["motion"].right == wrong.rates["smooth"].right == 0
    assert wrong.rates["identity"].right == 4


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
    gone = torch.where(torch.arange(17)[:, None, None] < 12, clip, -torch.ones_like(clip))
    assert path_distance(gone, clip) == np.inf  # the object must be seen to the end
    wall = world.render([parse("a small red circle moving right behind a gray wall")], 0)[0]
    assert path_distance(wall, wall) == 0  # but where the real one is hidden
    assert step_sizes(clip).shape == (16,)
