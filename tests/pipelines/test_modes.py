"""Modes: what is known stays known, what was passed in comes back, and what does not fit is refused by name."""

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
from minisora.pipelines.modes import (
    connect,
    extend,
    image_to_video,
    keyframes,
    long_video_pieces,
    loop,
)
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.restyle import inpaint, restyle

PROMPT = "a red circle moving left"
FEW = SampleSettings(steps=2, progress=False)


@pytest.fixture(scope="module")
def pipeline(tiny_run: Path) -> MiniSoraPipeline:
    return load_pipeline(tiny_run / "model", device="cpu")


@pytest.fixture(scope="module")
def video() -> Tensor:
    return to_float(ShapesWorld(1, frames=9, height=32, width=32).clips([0]))


def levels_seen(pipeline: MiniSoraPipeline) -> tuple[list[Tensor], list[Tensor]]:
    """Lists that fill with the latents and noise levels of every pass."""
    latents: list[Tensor] = []
    sigmas: list[Tensor] = []

    def look(_: object, args: tuple[Tensor, ...]) -> None:
        latents.append(args[0])
        sigmas.append(args[1])

    pipeline.dit.register_forward_pre_hook(look)
    return latents, sigmas


def test_the_model_sees_the_image_clean_at_every_step(pipeline: MiniSoraPipeline, video: Tensor) -> None:
    latents, sigmas = levels_seen(pipeline)
    made = image_to_video(pipeline, PROMPT, video[:, :, 0], settings=FEW)
    pipeline.dit._forward_pre_hooks.clear()
    assert made.shape == (1, 3, 9, 32, 32)
    image = pipeline.vae.to_latents(video[:, :, :1])
    for x, sigma in zip(latents, sigmas, strict=True):
        torch.testing.assert_close(x[:1, :, :1], image, atol=1e-4, rtol=1e-4)
        assert sigma.shape == (2, 3)  # guided: two passes in one, three latent frames
        assert (sigma[:, 0] == 0).all()
        assert (sigma[:, 1:] > 0).all()


@pytest.mark.parametrize("backward", [False, True])
def test_extension_returns_the_video_itself_with_new_frames_beside_it(
    pipeline: MiniSoraPipeline, video: Tensor, backward: bool
) -> None:
    _, sigmas = levels_seen(pipeline)
    longer = extend(pipeline, PROMPT, video, backward=backward, context=1, settings=FEW)
    pipeline.dit._forward_pre_hooks.clear()
    new = (
        5 if backward else 8
    )  # a context of one latent frame is 4 frames of a past to come, or 1 of one gone
    assert longer.shape[2] == 9 + new
    assert torch.equal(longer[:, :, new:] if backward else longer[:, :, :9], video)
    assert (sigmas[0][0] == 0).tolist() == ([False, False, True] if backward else [True, False, False])


@pytest.mark.parametrize("backward", [False, True])
def test_an_extension_sees_half_a_clip_or_as_much_as_there_is(
    pipeline: MiniSoraPipeline, video: Tensor, backward: bool
) -> None:
    _, sigmas = levels_seen(pipeline)
    for frames in (9, 4):  # of 9, coded in 3 latent frames
        extend(pipeline, PROMPT, video[:, :, :frames], backward=backward, settings=FEW)
        known = int((sigmas[-1][0] == 0).sum())
        assert known == (2 if frames == 9 else 1)
    pipeline.dit._forward_pre_hooks.clear()


def test_connection_keeps_both_and_a_loop_comes_back(pipeline: MiniSoraPipeline, video: Tensor) -> None:
    joined = connect(pipeline, PROMPT, video, video.flip(2), settings=FEW)
    assert joined.shape[2] == 9 + (9 - 1 - 4) + 9
    assert torch.equal(joined[:, :, :9], video)
    assert torch.equal(joined[:, :, -9:], video.flip(2))
    circle = loop(pipeline, PROMPT, video, settings=FEW)
    assert circle.shape[2] == 9 + 4 + 3  # the start run backwards, but for the first frame
    assert torch.equal(circle[:, :, -3:], video[:, :, [3, 2, 1]])
    assert torch.equal(circle[:, :, :9], video)


def test_a_long_video_begins_as_the_short_one_and_goes_on_piece_by_piece(pipeline: MiniSoraPipeline) -> None:
    short = pipeline(PROMPT, seed=5, num_inference_steps=2, progress=False).videos
    pieces = long_video_pieces(pipeline, PROMPT, context=1, settings=replace(FEW, seed=5))
    first, *rest = (next(pieces) for _ in range(5))
    assert torch.equal(first, short)
    assert [piece.shape[2] for piece in rest] == [8] * 4
    wide = long_video_pieces(pipeline, PROMPT, context=1, height=16, width=48, settings=FEW)
    assert [next(wide).shape for _ in range(2)] == [(1, 3, 9, 16, 48), (1, 3, 8, 16, 48)]


def test_keyframes_are_shown_to_the_model_where_they_belong(
    pipeline: MiniSoraPipeline, video: Tensor
) -> None:
    latents, sigmas = levels_seen(pipeline)
    images = video[:, :, [0, 8]].transpose(1, 2)
    made = keyframes(pipeline, PROMPT, images, settings=FEW)
    pipeline.dit._forward_pre_hooks.clear()
    assert made.shape == (1, 3, 9, 32, 32)
    assert (sigmas[0][0] == 0).tolist() == [True, False, True]
    held = torch.cat(
        [video[:, :, :1].expand(-1, -1, 5, -1, -1), video[:, :, 8:].expand(-1, -1, 4, -1, -1)], 2
    )
    torch.testing.assert_close(
        latents[0][0, :, 2], pipeline.vae.to_latents(held)[0, :, 2], atol=1e-4, rtol=1e-4
    )
    for places in ([0, 9], [0, 0], [1, 3], [0]):
        with pytest.raises(UserError, match="keyframes at"):
            keyframes(pipeline, PROMPT, images, places)


def test_frames_cannot_be_known_where_patches_span_several(
    pipeline: MiniSoraPipeline, video: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.dit, "patch", (2, 2, 2))
    with pytest.raises(UserError, match="span 2 latent frames"):
        image_to_video(pipeline, PROMPT, video[:, :, 0], 5, settings=FEW)


def test_inpainting_leaves_the_rest_untouched(pipeline: MiniSoraPipeline, video: Tensor) -> None:
    mask = torch.zeros(1, 9, 32, 32, dtype=torch.bool)
    mask[:, :, 8:16, 8:16] = True
    made = inpaint(pipeline, PROMPT, video, mask, settings=FEW)
    again = inpaint(pipeline, PROMPT, video, mask, settings=FEW)
    once = inpaint(pipeline, PROMPT, video, mask, settings=replace(FEW, resample=1))
    assert torch.equal(made, again)
    assert not torch.equal(made, once)
    assert torch.equal(once[:, :, ~mask[0]], video[:, :, ~mask[0]])
    two = inpaint(pipeline, [PROMPT] * 2, video.expand(2, -1, -1, -1, -1), mask, settings=FEW)
    torch.testing.assert_close(two[:1], made, atol=1e-4, rtol=0)  # a video does not hang on those beside it
    with pytest.raises(UserError, match="resample = 0 must be at least 1"):
        replace(FEW, resample=0)
    untouched = ~mask[:, None].expand_as(video)
    assert torch.equal(made[untouched], video[untouched])
    assert not torch.equal(made, video)


def test_restyling_starts_at_its_strength_and_a_weak_one_changes_little(
    pipeline: MiniSoraPipeline, video: Tensor
) -> None:
    _, sigmas = levels_seen(pipeline)
    weak = restyle(pipeline, PROMPT, video, settings=SampleSettings(steps=8, strength=0.02, progress=False))
    pipeline.dit._forward_pre_hooks.clear()
    assert sigmas[0].max() == pytest.approx(0.02)
    assert len(sigmas) == 1
    coded = pipeline.vae.to_video(pipeline.vae.to_latents(video))
    assert (weak - coded).abs().mean() < 0.1


def test_what_does_not_fit_is_refused_by_name(pipeline: MiniSoraPipeline, video: Tensor) -> None:
    with pytest.raises(UserError, match="at least 5 frames; got .* use a longer one"):
        extend(pipeline, PROMPT, video[:, :, :4], context=2)
    with pytest.raises(UserError, match="32x32 and 16x32 .*resize one"):
        connect(pipeline, PROMPT, video, video[:, :, :, :16])
    with pytest.raises(UserError, match="1 prompts for 2 videos: give one each"):
        extend(pipeline, PROMPT, video.expand(2, -1, -1, -1, -1))
    with pytest.raises(UserError, match=r"num_frames|0 frames|frames"):
        image_to_video(pipeline, PROMPT, video[:, :, 0], num_frames=0)
    with pytest.raises(UserError, match="keyframes must be B K 3 H W"):
        keyframes(pipeline, PROMPT, video[:, None, :, 0][:, :0])
    with pytest.raises(UserError, match="width 20 does not fit"):
        image_to_video(pipeline, PROMPT, video[:, :, 0, :, :20])
    with pytest.raises(UserError, match="context = 3 latent frames must be 1 to 2"):
        extend(pipeline, PROMPT, video, context=3)
    with pytest.raises(UserError, match="the mask is empty"):
        inpaint(pipeline, PROMPT, video, torch.zeros(1, 9, 32, 32))
