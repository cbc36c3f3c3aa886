"""Restyling by FlowEdit: equal prompts move nothing, unequal ones do, and strength bounds where it starts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from minisora.data.clips import to_float
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.errors import UserError
from minisora.flow.denoise import SampleSettings
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.restyle import flow_edit, restyle

NIGHT, DAY = "a red circle moving left at night", "a red circle moving left by day"


@pytest.fixture(scope="module")
def pipeline(tiny_run: Path) -> MiniSoraPipeline:
    return load_pipeline(tiny_run / "model", device="cpu")


@pytest.fixture(scope="module")
def video() -> Tensor:
    return to_float(ShapesWorld(2, frames=9, height=32, width=32).clips([0, 1]))


def test_equal_prompts_and_guidance_leave_the_video_as_the_vae_codes_it(
    pipeline: MiniSoraPipeline, video: Tensor
) -> None:
    same = flow_edit(
        pipeline,
        NIGHT,
        NIGHT,
        video,
        settings=SampleSettings(guidance=2.0, steps=4, progress=False),
    )
    coded = pipeline.vae.to_video(pipeline.vae.to_latents(video))
    torch.testing.assert_close(same, coded, atol=0.02, rtol=0)


def test_other_prompts_move_it_and_the_seed_repeats_it(pipeline: MiniSoraPipeline, video: Tensor) -> None:
    first = SampleSettings(steps=4, seed=1, progress=False)
    moved = flow_edit(pipeline, NIGHT, DAY, video, settings=first)
    coded = pipeline.vae.to_video(pipeline.vae.to_latents(video))
    assert (moved - coded).abs().mean() > 1e-3
    assert torch.equal(moved, flow_edit(pipeline, [NIGHT] * 2, [DAY] * 2, video, settings=first))
    assert torch.equal(moved, restyle(pipeline, DAY, video, source=NIGHT, settings=first))
    second = flow_edit(pipeline, NIGHT, DAY, video[1:], settings=replace(first, seed=2))
    torch.testing.assert_close(moved[1:], second, atol=1e-4, rtol=0)  # it does not hang on those beside it


def test_only_noise_levels_below_the_strength_are_asked(pipeline: MiniSoraPipeline, video: Tensor) -> None:
    levels: list[float] = []
    hook = pipeline.dit.register_forward_pre_hook(lambda _, given: levels.append(float(given[1].max())))
    flow_edit(pipeline, NIGHT, DAY, video, settings=SampleSettings(strength=0.5, steps=10, progress=False))
    hook.remove()
    assert levels
    assert max(levels) <= 0.5


def test_bad_arguments_are_refused(pipeline: MiniSoraPipeline, video: Tensor) -> None:
    with pytest.raises(UserError, match=r"no step of 2 lies below strength = 0\.01: take more steps"):
        flow_edit(pipeline, NIGHT, DAY, video, settings=SampleSettings(strength=0.01, steps=2))
    with pytest.raises(UserError, match="3 target prompts for 2 videos"):
        flow_edit(pipeline, NIGHT, [DAY] * 3, video)
