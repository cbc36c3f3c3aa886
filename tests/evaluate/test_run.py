"""The command's work on a real tiny run: files, curves, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from minisora.data.shapes_world.grammar import ShapesPrompt
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.evaluate import run_curves
from minisora.evaluate.run import run_evaluation
from minisora.evaluate.run_curves import measure_curves
from minisora.pipelines.model_folder import load_pipeline
from minisora.training.latents import cache_keys

QUIET = Console(quiet=True)


def test_a_model_and_its_run_are_evaluated_and_written_down(tiny_run: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle moving left\na blue square moving right behind a gray wall\n")
    console = Console(width=110, record=True, quiet=False, file=(tmp_path / "log").open("w"))
    found = run_evaluation(
        tmp_path / "out",
        console,
        model=tiny_run / "model",
        run=tiny_run,
        prompts=str(prompts),
        cache_keys=cache_keys,
        samples_per_prompt=2,
        steps=2,
        batch_size=3,
    )
    told = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert len(told["clips"]) == 4
    assert told["settings"]["num_inference_steps"] == 2
    assert told["judge"]["reconstructed"]["color"]["total"] == 144
    assert told["curves"]["finding"]["state"] == "stuck at predicting the mean"  # twelve steps of training
    assert len(told["curves"]["loss_by_sigma"]["loss"]) == 8
    assert len(told["curves"]["nearest_training_clip"]["samples"]) == 8
    assert found.num_failures == 4
    assert (tmp_path / "out" / "failures.png").is_file()
    assert not list((tmp_path / "out").glob("*.partial"))
    said = console.export_text()
    assert "stuck at predicting the mean: its error" in said
    assert "4 of 4 clips" in said


def test_the_curves_find_that_a_model_copies(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline whose samples are training latents, taken from the run's own cache."""
    pipeline = load_pipeline(tiny_run / "model")
    caches = []
    real_open = run_curves.LatentCache.open
    monkeypatch.setattr(
        run_curves.LatentCache, "open", lambda *args: caches.append(real_open(*args)) or caches[-1]
    )

    def copy(prompts: list[str], *, seed: int, **options: object) -> object:
        return type("Output", (), {"videos": caches[0].latents([seed + i for i in range(len(prompts))])})()

    honest = measure_curves(pipeline, tiny_run, cache_keys, num_samples=4, steps=1)
    monkeypatch.setattr(type(pipeline), "__call__", lambda self, *args, **options: copy(*args, **options))
    copied = measure_curves(pipeline, tiny_run, cache_keys, num_samples=4)
    assert copied.samples == [0.0] * 4
    assert copied.finding.state == "memorising"
    assert copied.loss == honest.loss  # on fixed noise
    assert copied.unseen == honest.unseen
    assert honest.finding.copies == 0


def test_the_loss_is_the_one_that_training_validates_with(tiny_run: Path, tiny_config: object) -> None:
    """The same model, sigma convention and captions: near the last validation loss that training wrote."""
    from minisora.training.progress import read_metrics

    records = read_metrics(tiny_run / "metrics.jsonl")
    last = [record["val_loss"] for record in records if "val_loss" in record][-1]
    curves = measure_curves(load_pipeline(tiny_run / "model"), tiny_run, cache_keys, num_samples=1, steps=1)
    assert sum(curves.loss.loss) / 8 == pytest.approx(last, rel=0.1)


def test_progress_reaches_its_end_and_never_goes_back(tiny_run: Path) -> None:
    steps: list[tuple[float, int]] = []
    measure_curves(
        load_pipeline(tiny_run / "model"),
        tiny_run,
        cache_keys,
        num_samples=3,
        steps=1,
        batch_size=2,
        on_progress=lambda done, total: steps.append((done, total)),
    )
    assert steps[-1][0] == steps[-1][1]
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


@pytest.mark.slow
def test_the_sheet_of_an_earlier_evaluation_does_not_stay(tmp_path: Path) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    video = ShapesWorld(1).render([ShapesPrompt("red", "circle", "left")], 0)[0]
    write_video(clips / "a.mp4", video, 8)
    for color, wrong in (("blue", True), ("red", False)):
        (clips / "metadata.csv").write_text(f"file_name,text\na.mp4,a {color} circle moving left\n")
        run_evaluation(out, QUIET, videos=clips)
        assert (out / "failures.png").exists() is wrong
        assert json.loads((out / "evaluate.json").read_text())["num_failures"] == int(wrong)


def test_what_cannot_be_evaluated_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    model = tiny_run / "model"
    with pytest.raises(UserError, match="either --model DIR or --videos DIR"):
        run_evaluation(tmp_path, QUIET)
    with pytest.raises(UserError, match="either --model DIR or --videos DIR"):
        run_evaluation(tmp_path, QUIET, model=model, videos=tmp_path)
    with pytest.raises(UserError, match="not with --videos"):
        run_evaluation(tmp_path, QUIET, videos=tmp_path, run=tiny_run)
    pipeline = load_pipeline(model)
    with pytest.raises(UserError, match="is not a run folder"):
        measure_curves(pipeline, tmp_path, cache_keys)
    with torch.no_grad():
        next(pipeline.vae.parameters()).add_(1)  # the model of another run
    with pytest.raises(UserError, match="no whole latent cache of this model's VAE"):
        measure_curves(pipeline, tiny_run, cache_keys)
