"""Captioning end to end on a tiny run: only labelled clips are read, and every clip gets a caption."""

import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from minisora.config import load
from minisora.data.dataset import open_dataset
from minisora.data.folder.scan import scan_folder
from minisora.data.latent_cache import LatentCache, fingerprint
from minisora.data.shapes_world.shapes_dataset import make_shapes
from minisora.errors import UserError
from minisora.models.captioner import VideoCaptioner
from minisora.run_metrics import read_metrics
from minisora.training.captioning import (
    CaptionTask,
    hold_out,
    label_folder,
    labelled,
    shift_cells,
    train_captioner,
    write_captions,
)
from minisora.training.checkpoint import checkpoints
from minisora.training.stages import load_vae


def test_a_captioner_is_trained_and_labels_every_clip(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_noise: Callable[[Path, int], None],
    damage: Callable[[Path], None],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    config = load(
        run / "config.yaml",
        ["train_caption.steps=3", "train_caption.batch_size=4", "train_caption.views_in_all=6"],
    )
    train_captioner(config, run, Console(quiet=True), share=0.5)
    captioner = VideoCaptioner.from_pretrained(run / "captioner" / "model")
    key = fingerprint(load_vae(run / "vae" / "model"))
    latents = LatentCache.open(run / "cache", open_dataset(config, "train"), key)
    told = write_captions(captioner, latents)
    assert len(told) == len(latents)
    assert all(0 <= caption.confidence <= 1 for caption in told)
    known = set(captioner.tokenizer.ids)
    assert all(word in known for caption in told for word in caption.text.split())
    clips = tmp_path / "clips"
    make_shapes(clips, 3, 0, config.clip, progress=False)
    rows = (clips / "metadata.csv").read_text().splitlines()
    (clips / "metadata.csv").write_text("\n".join(rows[:2]) + "\n")  # one caption is left
    quiet = Console(quiet=True)
    assert label_folder(run, clips, tmp_path / "filled.csv", quiet) == (2, 0)
    filled = (tmp_path / "filled.csv").read_text().splitlines()
    assert filled[1] == rows[1] + ","
    assert [line.split(",")[0] for line in filled[2:]] == ["clip_00001.mp4", "clip_00002.mp4"]
    assert label_folder(run, clips, tmp_path / "sure.csv", quiet, min_confidence=1.0) == (0, 2)
    monkeypatch.setattr("minisora.data.folder.folder_dataset.scan_folder", partial(scan_folder, verify=False))
    write_noise(clips / "z.mp4", 0)
    damage(clips / "z.mp4")
    shown = Console(record=True, width=300)
    assert label_folder(run, clips, tmp_path / "rest.csv", shown) == (2, 0)
    assert (tmp_path / "rest.csv").read_text() == (tmp_path / "filled.csv").read_text()
    assert "z.mp4: cannot be decoded" in shown.export_text()
    with pytest.raises(UserError, match="no captioner in"):
        label_folder(tiny_run, clips, tmp_path / "x.csv", quiet)
    with pytest.raises(UserError, match=r"share = 0 must be above 0"):
        train_captioner(config, run, Console(quiet=True), share=0)


@pytest.mark.slow
def test_a_resumed_captioner_is_the_uninterrupted_one(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [Path(shutil.copytree(tiny_run, tmp_path / name)) for name in ("whole", "interrupted")]
    settings = [
        f"train_caption.{key}" for key in ("steps=6", "batch_size=4", "views_in_all=6", "log_every=1")
    ]
    config = load(runs[0] / "config.yaml", [*settings, "train_caption.validate_every=3"])
    quiet = Console(quiet=True)
    train_captioner(config, runs[0], quiet)
    real = CaptionTask.validate

    def interrupted(*args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(CaptionTask, "validate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_captioner(config, runs[1], quiet)
    assert [p.name for p in checkpoints(runs[1] / "captioner" / "checkpoints")] == ["step-00000003"]
    train_captioner(config, runs[1], quiet)
    rows = [[r for r in read_metrics(run / "metrics.jsonl") if r["stage"] == "caption"] for run in runs]
    assert [[r["loss"] for r in each if "loss" in r] for each in rows] == [
        [r["loss"] for r in rows[0] if "loss" in r]
    ] * 2
    a, b = (VideoCaptioner.from_pretrained(run / "captioner" / "model").state_dict() for run in runs)
    assert all(a[key].equal(b[key]) for key in a)


def test_clips_without_a_caption_or_beyond_the_share_are_not_read() -> None:
    assert labelled(["one", "", "three", "four"], 3) == [0, 2]
    with pytest.raises(UserError, match="none of the first 2 clips has a caption"):
        labelled(["", " ", "three"], 2)


def test_labels_are_kept_for_validation_where_no_clip_held_out_has_one() -> None:
    assert hold_out(range(20)) == (list(range(18)), [18, 19])
    assert hold_out([3, 5]) == ([3], [5])
    assert hold_out([7]) == ([7], [7])


def test_clips_are_moved_by_whole_cells_with_their_border_repeated() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(64, 2, 3, 8, 8, generator=generator)
    moved = shift_cells(latents, torch.randn(latents.shape, generator=generator))
    found = set()
    for before, after in zip(latents, moved, strict=True):
        shifts = [
            (y, x)
            for y in range(-2, 3)
            for x in range(-2, 3)
            if torch.equal(
                after,
                before[
                    ..., (torch.arange(8) + y).clamp(0, 7)[:, None], (torch.arange(8) + x).clamp(0, 7)[None]
                ],
            )
        ]
        found |= set(shifts)
        assert shifts
    assert len(found) > 15  # of 25
