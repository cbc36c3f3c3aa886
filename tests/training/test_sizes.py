"""Training on clips of several sizes: one size a step, or all of them packed in common rows."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from minisora.config import load
from minisora.data.batches import DiTBatch, PackedBatch
from minisora.errors import UserError
from minisora.pipelines.model_folder import load_pipeline
from minisora.run_metrics import read_metrics
from minisora.training.stages import train_dit

BUCKETS = "data.buckets=[{frames: 5, height: 16, width: 32, share: 1}, {frames: 1, height: 48, width: 32}]"


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["null", "40"])
def test_one_model_learns_from_several_sizes(
    packing: str, tiny_config_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    overrides = [BUCKETS, f"data.packing={packing}", "flow.known_share=0.5", "flow.image_share=0.2"]
    config = load(tiny_config_file, [*overrides, "train_dit.steps=30", "train_dit.accumulation=2"])
    train_dit(config, tmp_path, Console(quiet=True), tiny_run / "vae" / "model")
    losses = [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl") if "loss" in row]
    assert len(losses) == 30
    assert sum(losses[-10:]) < sum(losses[:10])
    pipeline = load_pipeline(tmp_path / "model")
    video = pipeline("a red circle moving left", num_frames=5, height=16, width=32, progress=False).videos
    assert video.shape == (1, 3, 5, 16, 32)
    assert torch.isfinite(video).all()


def test_parts_of_one_shape_are_counted_together() -> None:
    images = torch.zeros(3, 4, 1, 2, 2)  # of two sizes of clips may have one shape
    parts = tuple(
        DiTBatch(list(range(n)), images[:n], images[:n], images[:n, 0, 0, 0, 0], [""] * n) for n in (3, 2)
    )
    assert PackedBatch(list(range(5)), parts).clips_by_shape() == {(4, 1, 2, 2): 5}


def test_a_row_too_short_for_a_size_is_refused_before_training(
    tiny_config_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    config = load(tiny_config_file, [BUCKETS, "data.packing=8"])
    with pytest.raises(UserError, match=r"does not fit a packed row of 8.*data\.packing to 12"):
        train_dit(config, tmp_path, Console(quiet=True), tiny_run / "vae" / "model")
