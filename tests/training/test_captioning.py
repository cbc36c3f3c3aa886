"""Captioning end to end on a tiny run: only labelled clips are read, and every clip gets a caption."""

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from minisora.config import load
from minisora.data.latent_cache import LatentCache
from minisora.data.sources import open_dataset
from minisora.errors import UserError
from minisora.models.captioner import VideoCaptioner
from minisora.training.captioning import Labelled, train_captioner, write_captions
from minisora.training.stages import load_vae
from minisora.training.tasks import fingerprint


def test_a_captioner_is_trained_and_labels_every_clip(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    config = load(run / "config.yaml", ["train_caption.steps=3", "train_caption.batch_size=4"])
    train_captioner(config, run, Console(quiet=True), share=0.5)
    captioner = VideoCaptioner.from_pretrained(run / "captioner" / "model")
    key = fingerprint(load_vae(run / "vae" / "model"))
    latents = LatentCache.open(run / "cache", open_dataset(config, "train"), key)
    told = write_captions(captioner, latents)
    assert len(told) == len(latents)
    assert all(0 <= caption.confidence <= 1 for caption in told)
    known = set(captioner.tokenizer.ids)
    assert all(word in known for caption in told for word in caption.text.split())
    with pytest.raises(UserError, match=r"share = 0 must be above 0"):
        train_captioner(config, run, Console(quiet=True), share=0)


class Some:
    def __len__(self) -> int:
        return 4

    def latents(self, indices: list[int]) -> list[int]:
        return list(indices)

    def captions(self) -> list[str]:
        return ["one", "", "three", "four"]


def test_clips_without_a_caption_or_beyond_the_share_are_not_read() -> None:
    labelled = Labelled(Some(), 3)
    assert labelled.captions() == ["one", "three"]
    assert labelled.latents([0, 1]) == [0, 2]
