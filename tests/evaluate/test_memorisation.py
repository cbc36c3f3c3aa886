"""Each finding from models whose state is known: exact ones, ones that know the mean, ones that copy."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from minisora.data.latent_cache import LatentCache
from minisora.errors import UserError
from minisora.evaluate.memorisation import (
    NUM_BUCKETS,
    Curves,
    LossCurve,
    Moments,
    diagnose,
    loss_by_sigma,
    measure_curves,
    moments,
    nearest,
)
from minisora.pipelines.model_folder import load_pipeline

SHAPE = (4, 2, 3, 3)
CAPTIONS = [f"clip {i}" for i in range(10)]
LEARNED = LossCurve([0.5], [0.4], [1.6])


def draws(count: int, seed: int) -> Tensor:
    """Latents of mean 1 and deviation 0.5."""
    return 1 + 0.5 * torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


TRAINING, UNSEEN = draws(300, 0), draws(10, 1)


def measured(velocity: object, **options: int) -> LossCurve:
    return loss_by_sigma(velocity, UNSEEN, CAPTIONS, moments([TRAINING]), **options)  # type: ignore[arg-type]


def mean_velocity(noisy: Tensor, sigma: Tensor, captions: Sequence[str]) -> Tensor:
    """E[noise - x_0], whatever the input."""
    return -torch.ones_like(noisy)


def exact_velocity(noisy: Tensor, sigma: Tensor, captions: Sequence[str]) -> Tensor:
    """Knows every clip by its caption."""
    clips = UNSEEN[[CAPTIONS.index(caption) for caption in captions]]
    return (noisy - clips) / sigma.view(-1, 1, 1, 1, 1)


def test_moments_of_blocks_are_those_of_all() -> None:
    whole = moments(TRAINING.split(77))
    torch.testing.assert_close(whole.mean, TRAINING.mean(0))
    torch.testing.assert_close(whole.variance, TRAINING.var(0, correction=0))


def test_the_yardstick_is_the_loss_of_a_gaussian_known_by_its_moments() -> None:
    clips = draws(2000, 2)
    known = Moments(torch.ones(SHAPE), torch.full(SHAPE, 0.25))
    curve = loss_by_sigma(mean_velocity, clips, [""] * 2000, known)
    theory = [0.25 / ((1 - s) ** 2 * 0.25 + s**2) for s in curve.sigmas]  # var(v | x_t)
    assert curve.yardstick == pytest.approx(theory, rel=0.03)
    assert curve.loss == pytest.approx([1.25] * NUM_BUCKETS, rel=0.03)  # var(v)
    assert curve.sigmas == pytest.approx([0.0625 + 0.125 * i for i in range(8)])


def test_a_model_that_knows_all_has_no_loss_anywhere() -> None:
    curve = measured(exact_velocity)
    assert curve.loss == pytest.approx([0] * NUM_BUCKETS, abs=1e-9)
    assert curve.ratio == pytest.approx(0, abs=1e-9)


def test_the_noise_is_fixed_by_the_seed_whatever_the_batch_size() -> None:
    curve = measured(mean_velocity)
    assert measured(mean_velocity, batch_size=3).loss == pytest.approx(curve.loss, rel=1e-6)
    assert measured(mean_velocity) == curve
    assert measured(mean_velocity, seed=100).loss != pytest.approx(curve.loss, rel=1e-4)


def test_predicting_the_mean_is_stuck() -> None:
    curve = measured(mean_velocity)
    assert curve.ratio > 1
    finding = diagnose(curve, nearest(draws(10, 3), [TRAINING]), nearest(UNSEEN, [TRAINING]))
    assert finding.state == "stuck at predicting the mean"
    assert finding.sentence.startswith(
        f"stuck at predicting the mean: its error on unseen clips is {curve.ratio:.2f}"
    )
    assert "\n" not in finding.sentence


def test_samples_copied_from_training_are_memorising_even_where_the_loss_is_bad() -> None:
    noise = 0.05 * torch.randn(10, *SHAPE, generator=torch.Generator().manual_seed(4))
    copies = nearest(TRAINING[40:50] + noise, [TRAINING])
    unseen = nearest(UNSEEN, [TRAINING])
    for curve in (LEARNED, measured(mean_velocity)):
        finding = diagnose(curve, copies, unseen)
        assert finding.state == "memorising"
        assert (finding.copies, finding.unseen_copies) == (1, 0)
        assert "100% of its samples are copies" in finding.sentence


def test_a_quarter_of_copies_is_memorising_and_fewer_are_not() -> None:
    unseen = [1.0] * 8
    assert diagnose(LEARNED, [0.1] * 2 + [1.0] * 6, unseen).state == "memorising"
    assert diagnose(LEARNED, [0.1] + [1.0] * 7, unseen).state == "learning"
    near_anyway = [0.1] * 3 + [1.0] * 5  # in a dense world unseen clips are near training clips too
    assert diagnose(LEARNED, near_anyway, near_anyway).state == "learning"


def test_new_samples_of_a_low_loss_are_learning_and_smooth_ones_too() -> None:
    unseen = nearest(UNSEEN, [TRAINING])
    fresh = diagnose(LEARNED, nearest(draws(10, 5), [TRAINING]), unseen)
    assert fresh.state == "learning"
    assert fresh.distance == pytest.approx(1, rel=0.1)
    assert "0.25 of what the average clip" in fresh.sentence
    smooth = diagnose(LEARNED, nearest(TRAINING.mean(0, keepdim=True).expand(10, *SHAPE), [TRAINING]), unseen)
    assert smooth.state == "learning"
    assert smooth.distance > 0.6


def test_the_threshold_of_stuck() -> None:
    assert diagnose(LossCurve([0.5], [0.91], [1.0]), [1.0], [1.0]).state == "stuck at predicting the mean"
    assert diagnose(LossCurve([0.5], [0.89], [1.0]), [1.0], [1.0]).state == "learning"


def test_what_mends_a_stuck_run_depends_on_where_its_best_validation_was() -> None:
    bad = LossCurve([0.5], [0.95], [1.0])
    assert [diagnose(bad, [1.0], [1.0], at).remedy.partition(",")[0] for at in (None, 0.8, 0.3)] == [
        "train longer", "train longer", "train on more clips"]  # fmt: skip
    assert "least after 30% of its steps" in diagnose(bad, [1.0], [1.0], 0.3).sentence
    assert diagnose(LEARNED, [1.0], [1.0], 0.3).remedy == ""


def test_nearest_is_the_root_mean_square_over_all_blocks() -> None:
    blocks = [torch.zeros(2, *SHAPE), torch.full((1, *SHAPE), 3.0), torch.full((5, *SHAPE), -9.0)]
    queries = torch.stack([torch.full(SHAPE, 2.5), torch.full(SHAPE, 0.25), torch.full(SHAPE, 3.0)])
    assert nearest(queries, blocks) == pytest.approx([0.5, 0.25, 0])
    assert nearest(TRAINING[:5], [TRAINING]) == [0.0] * 5


def test_unseen_clips_that_are_training_clips_are_said_to_tell_nothing() -> None:
    finding = diagnose(LEARNED, [0.5, 0.5], [0.0, 0.0])
    assert finding.state == "learning"
    assert "cannot be told" in finding.sentence
    assert math.isnan(finding.distance)
    assert Curves(LEARNED, [0.5], [0.0], finding).to_dict()["finding"]["distance"] is None


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match="10 clips and 9 captions"):
        loss_by_sigma(mean_velocity, UNSEEN, CAPTIONS[:9], moments([TRAINING]))
    with pytest.raises(UserError, match="not finite"):
        measured(lambda noisy, sigma, captions: noisy * math.nan)
    with pytest.raises(UserError, match="no training latents"):
        moments([])
    with pytest.raises(UserError, match="no training latents"):
        nearest(UNSEEN, [])
    with pytest.raises(UserError, match="0 samples and 1 unseen"):
        diagnose(LEARNED, [], [1.0])


def test_the_curves_find_that_a_model_copies(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline whose samples are training latents, taken from the run's own cache."""
    pipeline = load_pipeline(tiny_run / "model")
    caches = []
    real_open = LatentCache.open
    monkeypatch.setattr(LatentCache, "open", lambda *args: caches.append(real_open(*args)) or caches[-1])

    def copy(prompts: list[str], *, seed: int, **options: object) -> object:
        return type("Output", (), {"videos": caches[0].latents([seed + i for i in range(len(prompts))])})()

    honest = measure_curves(pipeline, tiny_run, num_samples=4, steps=1)
    monkeypatch.setattr(type(pipeline), "__call__", lambda self, *args, **options: copy(*args, **options))
    copied = measure_curves(pipeline, tiny_run, num_samples=4)
    assert copied.samples == [0.0] * 4
    assert copied.finding.state == "memorising"
    assert copied.loss == honest.loss  # on fixed noise
    assert copied.unseen == honest.unseen
    assert honest.finding.copies == 0


def test_the_loss_is_the_one_that_training_validates_with(tiny_run: Path, tiny_config: object) -> None:
    """The same model, sigma convention and captions: near the last validation loss that training wrote."""
    from minisora.run_metrics import read_metrics

    records = read_metrics(tiny_run / "metrics.jsonl")
    last = [record["val_loss"] for record in records if "val_loss" in record][-1]
    curves = measure_curves(load_pipeline(tiny_run / "model"), tiny_run, num_samples=1, steps=1)
    assert sum(curves.loss.loss) / 8 == pytest.approx(last, rel=0.1)


def test_progress_reaches_its_end_and_never_goes_back(tiny_run: Path) -> None:
    steps: list[tuple[float, int]] = []
    measure_curves(
        load_pipeline(tiny_run / "model"),
        tiny_run,
        num_samples=3,
        steps=1,
        batch_size=2,
        on_progress=lambda done, total: steps.append((done, total)),
    )
    assert steps[-1][0] == steps[-1][1]
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_a_run_without_the_models_latents_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(tiny_run / "model")
    with pytest.raises(UserError, match="is not a run folder"):
        measure_curves(pipeline, tmp_path)
    damaged = tmp_path / "run"
    shutil.copytree(tiny_run, damaged)
    for shard in damaged.glob("cache/*/shard-00000.safetensors"):
        shard.write_bytes(b"damaged")
    with pytest.raises(UserError, match="is not a whole latent cache of this data and VAE: delete it"):
        measure_curves(pipeline, damaged)
    with torch.no_grad():
        next(pipeline.vae.parameters()).add_(1)  # the model of another run
    with pytest.raises(UserError, match="no whole latent cache of this model's VAE"):
        measure_curves(pipeline, tiny_run)
