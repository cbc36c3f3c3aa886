"""Augmentation: a captioned set that trains, every clip under every prompt, and nothing else in the folder."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from minisora.config import ClipConfig
from minisora.data.folder.folder_dataset import FolderDataset
from minisora.data.folder.scan import scan_folder
from minisora.data.shapes_world.shapes_dataset import make_shapes
from minisora.errors import UserError
from minisora.flow.denoise import SampleSettings
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
        settings=SampleSettings(steps=2),
        progress=lambda a, b: done.append((a, b)),
    )
    assert count == 6
    assert done[-1] == (6, 6)
    made = FolderDataset(out, CLIP, "error")
    said = FolderDataset(data, CLIP, "error").captions()
    captions = dict(zip(made.names(), made.captions(), strict=True))
    assert [captions[f"0000{i}-0.mp4"] for i in range(3)] == [prompts[0]] * 3
    assert [captions[f"0000{i}-1.mp4"] for i in range(3)] == said


def test_a_damaged_clip_is_left_out_and_named(
    pipeline: MiniSoraPipeline,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    write_noise: Callable[[Path, int], None],
    damage: Callable[[Path], None],
) -> None:
    monkeypatch.setattr("minisora.data.folder.folder_dataset.scan_folder", partial(scan_folder, verify=False))
    mixed = tmp_path / "mixed"
    shutil.copytree(data, mixed)
    write_noise(mixed / "a.mp4", 0)
    damage(mixed / "a.mp4")
    prompts = ["a red circle moving left", "a blue square moving up"]
    done: list[int] = []
    count = augment(
        pipeline,
        mixed,
        prompts,
        tmp_path / "out",
        settings=SampleSettings(steps=1),
        progress=lambda a, _: done.append(a),
    )
    assert (count, done[-1]) == (6, 8)
    assert len(FolderDataset(tmp_path / "out", CLIP)) == 6
    told = [record.getMessage() for record in caplog.records if record.name.startswith("minisora")]
    assert [line.count("a.mp4") for line in told] == [1]
    for file in mixed.glob("clip*"):
        file.unlink()
    with pytest.raises(UserError, match="none of the 1 clips"):
        augment(pipeline, mixed, prompts, tmp_path / "none", settings=SampleSettings(steps=1))


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
