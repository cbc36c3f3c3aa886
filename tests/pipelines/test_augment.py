"""Augmentation: a captioned set that trains, every clip under every prompt, and nothing else in the folder."""

from pathlib import Path

import pytest

from minisora.config import ClipConfig
from minisora.data.folder import FolderDataset
from minisora.data.make import make_shapes
from minisora.errors import UserError
from minisora.pipelines.augment import augment
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline

CLIP = ClipConfig(frames=9, height=32, width=32)


@pytest.fixture(scope="module")
def pipeline(tiny_run: Path) -> MiniSoraPipeline:
    return load_pipeline(tiny_run / "model", device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "set"
    make_shapes(folder, 3, 0, CLIP, progress=False)
    return folder


def test_every_clip_appears_under_every_prompt(
    pipeline: MiniSoraPipeline, data: Path, tmp_path: Path
) -> None:
    out, done = tmp_path / "more", []
    prompts = ["a red circle moving left", "{caption}"]
    count = augment(
        pipeline,
        data,
        prompts,
        out,
        batch_size=2,
        num_inference_steps=2,
        progress=lambda a, b: done.append((a, b)),
    )
    assert count == 6
    assert done[-1] == (6, 6)
    made = FolderDataset(out, CLIP, "error")
    said = FolderDataset(data, CLIP, "error").captions()
    captions = dict(zip(made.names(), made.captions(), strict=True))
    assert [captions[f"0000{i}-0.mp4"] for i in range(3)] == [prompts[0]] * 3
    assert [captions[f"0000{i}-1.mp4"] for i in range(3)] == said


def test_what_cannot_be_done_is_refused_before_a_clip_is_made(
    pipeline: MiniSoraPipeline, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="augment needs a prompt"):
        augment(pipeline, data, [], tmp_path)
    with pytest.raises(UserError, match="xyzzy"):
        augment(pipeline, data, ["xyzzy plugh"], tmp_path / "a")
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.mp4").write_text("")
    with pytest.raises(UserError, match="already holds 'mine.mp4'"):
        augment(pipeline, data, ["a red circle moving left"], tmp_path / "b")
