"""Modes on files: what was resized or repeated is said, and what a mode cannot use is refused by name."""

import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from minisora import cli
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.flow.denoise import SampleSettings
from minisora.flow.schedules import make_scheduler
from minisora.pipelines.edit_files import edit
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline

PROMPT = "a red circle moving left"
FEW = SampleSettings(steps=1, progress=False)


@pytest.fixture(scope="module")
def pipeline(tiny_run: Path) -> MiniSoraPipeline:
    return load_pipeline(tiny_run / "model", device="cpu")


@pytest.fixture
def clip(tmp_path: Path, pipeline: MiniSoraPipeline) -> Path:
    file = tmp_path / "clip.mp4"
    write_video(file, ShapesWorld(1, frames=9, height=32, width=32).clips([0])[0], pipeline.config.fps)
    return file


def test_every_mode_runs_on_files(pipeline: MiniSoraPipeline, clip: Path) -> None:
    said: list[str] = []
    sizes = {}
    for mode in ("animate", "extend", "prepend", "loop", "restyle"):
        sizes[mode] = edit(pipeline, mode, [clip], PROMPT, say=said.append, settings=FEW).shape[2]
    sizes["connect"] = edit(pipeline, "connect", [clip, clip], PROMPT, say=said.append, settings=FEW).shape[2]
    sizes["inpaint"] = edit(
        pipeline, "inpaint", [clip], PROMPT, region=(8, 8, 24, 24), say=said.append, settings=FEW
    ).shape[2]
    sizes["keyframes"] = edit(pipeline, "keyframes", [clip] * 2, PROMPT, say=said.append, settings=FEW).shape[
        2
    ]
    assert sizes == {
        "keyframes": 9,
        "animate": 9,
        "extend": 9 + 4,
        "prepend": 1 + 9,
        "loop": 9 + 4 + 3,
        "restyle": 9,
        "connect": 9 + 4 + 9,
        "inpaint": 9,
    }
    assert said == []


def test_a_file_of_another_shape_is_fitted_as_wanted(pipeline: MiniSoraPipeline, tmp_path: Path) -> None:
    file = tmp_path / "wide.png"
    picture = Image.new("RGB", (80, 40), (255, 255, 255))
    picture.paste((0, 0, 200), (0, 0, 30, 40))
    picture.save(file)
    given = {}
    for fit, words in (("crop", "cut at the centre"), ("pad", "black beside it"), ("squash", "stretched")):
        said: list[str] = []
        given[fit] = edit(pipeline, "animate", [file], PROMPT, say=said.append, settings=FEW, fit=fit)[
            0, :, 0
        ]
        assert said == [f"wide.png is 40x80: resized to 32x32, {words}"]
    for one, other in (("crop", "pad"), ("pad", "squash"), ("squash", "crop")):
        assert (given[one] - given[other]).abs().max() > 0.1


def test_what_was_changed_on_the_way_is_said(pipeline: MiniSoraPipeline, tmp_path: Path) -> None:
    file = tmp_path / "wide.mp4"
    write_video(file, torch.zeros(3, 3, 48, 80), pipeline.config.fps)
    said: list[str] = []
    edit(pipeline, "restyle", [file], PROMPT, say=said.append, settings=FEW)
    assert said == [
        "wide.mp4 is 48x80: resized to 32x32, cut at the centre",
        f"wide.mp4 is shorter than 9 frames at {pipeline.config.fps:g} fps: its last frame is repeated",
    ]
    said.clear()
    write_video(file, torch.zeros(3, 60, 32, 32), 3 * pipeline.config.fps)
    edit(pipeline, "restyle", [file], PROMPT, say=said.append, settings=FEW)
    assert said == [
        "wide.mp4 has 24 fps: resampled to the model's 8",
        "wide.mp4 is longer than 9 frames at 8 fps: cut after them",
    ]


def test_what_a_mode_cannot_use_is_refused(pipeline: MiniSoraPipeline, clip: Path) -> None:
    with pytest.raises(UserError, match="connect takes 2 files, got 1"):
        edit(pipeline, "connect", [clip], PROMPT)
    with pytest.raises(UserError, match="no such file"):
        edit(pipeline, "extend", [clip.with_name("none.mp4")], PROMPT)
    with pytest.raises(UserError, match="inpaint needs --region"):
        edit(pipeline, "inpaint", [clip], PROMPT)
    with pytest.raises(UserError, match="does not lie in the 32x32 frame"):
        edit(pipeline, "inpaint", [clip], PROMPT, region=(0, 0, 64, 8))
    with pytest.raises(UserError, match="--strength belongs to restyle, not to loop"):
        edit(pipeline, "loop", [clip], PROMPT, settings=SampleSettings(strength=0.5))
    with pytest.raises(UserError, match="unknown mode 'melt': use one of animate"):
        edit(pipeline, "melt", [clip], PROMPT)


def test_a_size_of_nothing_is_refused_and_is_not_the_default(pipeline: MiniSoraPipeline) -> None:
    with pytest.raises(UserError, match="0 frames do not fit"):
        pipeline(PROMPT, num_frames=0)
    with pytest.raises(UserError, match="height 0 does not fit"):
        pipeline(PROMPT, height=0)
    with pytest.raises(UserError, match="width 0 does not fit"):
        pipeline(PROMPT, width=0)


def test_a_mode_that_the_models_scheduler_cannot_do_names_the_remedy_and_it_works(
    tiny_run: Path,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SDEdit starts between noise and data, where Heun's scheduler of diffusers cannot."""
    model, out = tmp_path / "heun", tmp_path / "night.mp4"
    heun = load_pipeline(tiny_run / "model", device="cpu")
    heun.scheduler = make_scheduler("heun")
    heun.save_pretrained(model)
    command = ["minisora", "edit", "restyle", "-m", str(model), "-v", str(clip), "-p", PROMPT, "-o", str(out)]
    command += ["--steps", "2", "--strength", "0.5"]

    def exit_code(*more: str) -> object:
        monkeypatch.setattr(sys, "argv", [*command, *more])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code

    assert exit_code() == 2
    assert "needs the euler scheduler: pass --scheduler euler" in capsys.readouterr().err
    assert not out.exists()
    assert not exit_code("--scheduler", "euler")
    assert out.is_file()


def test_transparency_shows_the_background_and_what_is_not_read_as_it_is_is_said(
    pipeline: MiniSoraPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, height, width = pipeline.config.default_size
    pixels = np.zeros((height, width, 4), np.uint8)
    # Red that full transparency hides.
    pixels[..., 0] = 255
    Image.fromarray(pixels).save(tmp_path / "cutout.png")
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(
        "minisora.pipelines.modes.image_to_video", lambda pipe, prompt, image, **_: seen.append(image)
    )
    said: list[str] = []
    edit(pipeline, "animate", [tmp_path / "cutout.png"], PROMPT, say=said.append, settings=FEW)
    assert torch.equal(seen[0], torch.ones(1, 3, height, width))
    assert said == []
    with av.open(str(tmp_path / "hlg.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"flags": "+ildct+ilme"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.color_trc = 18
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels[..., :3].copy(), format="rgb24")))
        container.mux(stream.encode(None))
    edit(pipeline, "animate", [tmp_path / "hlg.mp4"], PROMPT, say=said.append, settings=FEW)
    assert said == [
        "hlg.mp4 is of high dynamic range (HLG): its colours are read too pale",
        "hlg.mp4 is interlaced: every other line is read",
    ]
