"""Distillation: pairs that survive a kill, a student that starts as its teacher and samples in its few steps."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from minisora.data.batches import PairBatches
from minisora.errors import UserError
from minisora.pipelines.model_folder import load_pipeline
from minisora.training.distill import distill_model, make_pairs, teacher_of


def test_pairs_are_the_teachers_samples_of_their_noise_and_are_made_once(
    tiny_run: Path, tmp_path: Path
) -> None:
    teacher = load_pipeline(tiny_run / "model", device="cpu")
    captions = ["a red circle moving left"] * 5
    noise, latents = make_pairs(teacher, captions, tmp_path, steps=2, batch_size=2)
    assert noise.shape == latents.shape
    assert len(noise) == 5
    again = teacher(captions[3], seed=3, num_inference_steps=2, output_type="latent", progress=False).videos
    torch.testing.assert_close(latents[3:4], again, atol=1e-3, rtol=1e-3)
    written = next(tmp_path.glob("*.safetensors")).stat().st_mtime_ns
    torch.testing.assert_close(make_pairs(teacher, captions, tmp_path, steps=2)[1], latents)
    assert next(tmp_path.glob("*.safetensors")).stat().st_mtime_ns == written
    fewer = make_pairs(teacher, captions[:4], tmp_path, steps=2)[1]  # not the first four of another set
    assert len(fewer) == 4
    others = ["a blue square moving up", *captions[1:]]
    assert not torch.equal(make_pairs(teacher, others, tmp_path, steps=2)[1], latents)


def test_batches_of_pairs_keep_them_together_and_do_not_depend_on_the_split() -> None:
    noise = torch.arange(12.0).view(12, 1, 1, 1, 1)
    pairs = PairBatches(noise, 100 + noise, [str(i) for i in range(12)], seed=0)
    batch = pairs.at(range(12))
    assert torch.equal(batch.latents - batch.noise, torch.full_like(noise, 100))
    assert batch.captions == [str(int(n)) for n in batch.noise.flatten()]
    halves = [pairs.at(range(6)), pairs.at(range(6, 12))]
    assert torch.equal(torch.cat([half.normal for half in halves]), batch.normal)
    train, held_out = pairs.split(3)
    assert (len(train.noise), len(held_out.noise)) == (9, 3)


def test_a_student_is_trained_and_takes_its_few_steps_unguided(tiny_run: Path, tmp_path: Path) -> None:
    few = ["train_dit.steps=2", "train_dit.batch_size=4", "data.num_validation_clips=4"]
    quiet = Console(quiet=True)
    out = tmp_path / "student"
    distill_model(*teacher_of(tiny_run, out), out, quiet, num_pairs=12, student_steps=3, overrides=few)
    student = load_pipeline(tmp_path / "student" / "model", device="cpu")
    assert (student.config.default_steps, student.config.default_guidance) == (3, 1.0)
    calls: list[int] = []
    student.dit.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    student("a red circle moving left", progress=False)
    assert calls == [1, 1, 1]


def test_a_folder_without_a_run_and_the_teachers_own_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished run"):
        teacher_of(tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="the teacher's own run"):
        teacher_of(tiny_run, tiny_run)
