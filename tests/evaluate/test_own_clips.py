"""A run judged on its own clips: each measure turns when what it is of is turned, and every file is whole.

The tiny runs' VAEs know nothing after a few steps, so a VAE that is perfect stands in where a good one is needed: it
decodes the latents of known clips to these clips.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from minisora.config import Config
from minisora.data.clips import to_float
from minisora.data.folder.folder_dataset import name_fraction
from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.evaluate import gathered_clips, own_clips
from minisora.evaluate.compare import Experiment, run_experiment
from minisora.evaluate.gathered_clips import OwnClips
from minisora.evaluate.memorisation import LossCurve, run_clips
from minisora.evaluate.own_clips import evaluate_own_clips
from minisora.models.vae import VideoVAE
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline, VideoOutput
from minisora.training.stages import train_dit, train_vae

QUIET = Console(quiet=True)
CAPTIONS = ("a white block going right", "a black block going down")


def evaluated(run: Path, **options: Any) -> Experiment:
    return evaluate_own_clips(OwnClips(run, steps=1, **options), lambda name: lambda done, total: None)


def block(number: int, which: int) -> Tensor:
    """A white block that goes right or a black one that goes down, on one of many grays: 3 9 32 32 in [-1, 1]."""
    drawn = torch.rand(2, generator=torch.Generator().manual_seed(number))
    video = torch.full((3, 9, 32, 32), float(drawn[0]) - 0.5)
    aside = int(drawn[1] * 22)
    for t in range(9):
        y, x = (aside, 2 * t) if which == 0 else (2 * t, aside)
        video[:, t, y : y + 10, x : x + 10] = 1 if which == 0 else -1
    return video


def names(held_out: int, training: int) -> list[str]:
    """Names of files of which so many are held out."""
    numbered = [f"clip{i:04d}.mp4" for i in range(2000)]
    held = [name for name in numbered if name_fraction(name) < 0.1][:held_out]
    return held + [name for name in numbered if name_fraction(name) >= 0.1][:training]


def folder_run(config: Config, place: Path, held_out: int, training: int, captions: bool = True) -> Path:
    """A run on a folder of clips, half of each caption, that trains for two steps."""
    (place / "clips").mkdir()
    for number, name in enumerate(names(held_out, training)):
        write_video(place / "clips" / name, block(number, number % 2), 8)
        if captions:
            (place / "clips" / name).with_suffix(".txt").write_text(CAPTIONS[number % 2])
    steps = {"train_vae.steps": 2, "train_dit.steps": 2}
    config = config.replace(**{"data.source": "folder", "data.path": place / "clips", **steps})
    train_vae(config, place / "run", QUIET)
    train_dit(config, place / "run", QUIET)
    return place / "run"


@pytest.fixture(scope="module")
def blocks_run(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight held-out clips and twenty-four to train on; tests only read it."""
    return folder_run(tiny_config, tmp_path_factory.mktemp("blocks"), 8, 24)


@pytest.fixture
def perfect(blocks_run: Path, monkeypatch: pytest.MonkeyPatch) -> "Perfect":
    return Perfect(blocks_run, monkeypatch)


class Perfect:
    """Puts a perfect model in the place of the run's: its VAE copies, its samples are what they are told to be."""

    def __init__(self, run: Path, monkeypatch: pytest.MonkeyPatch):
        self.patch, self.run = monkeypatch, run
        vae = load_pipeline(run / "model").vae
        self.clips = [to_float(each.clips(range(len(each)))) for each in run_clips(run)]
        training, held_out = self.clips
        # Clips that nobody filmed, of the same two captions.
        self.new = torch.stack([block(100 + number, number % 2) for number in range(48)])
        known = torch.cat([training, held_out, self.new])
        known = torch.cat([known, known.median(2, keepdim=True).values.expand_as(known)])
        self.encode = VideoVAE.to_latents
        self.videos, self.latents, self.vae = known, self.encode(vae, known), vae
        self.decodes(lambda videos: videos)
        self.samples(self.new)
        self.loses([0.2], [0.15])

    def decodes(self, change: Callable[[Tensor], Tensor]) -> None:
        def decode(vae: VideoVAE, latents: Tensor, **options: Any) -> Tensor:
            return change(self.videos[torch.cdist(latents.flatten(1), self.latents.flatten(1)).argmin(1)])

        self.patch.setattr(VideoVAE, "to_video", decode)

    def samples(self, videos: Tensor) -> None:
        """Of the two captions in turn, white first."""
        latents = self.encode(self.vae, videos)
        used = dict.fromkeys(CAPTIONS, 0)

        def sample(pipeline: MiniSoraPipeline, prompts: list[str], **options: Any) -> VideoOutput:
            rows = []
            for prompt in prompts:
                which = CAPTIONS.index(prompt)
                own = latents[which::2]
                rows.append(own[used[prompt] % len(own)])
                used[prompt] += 1
            return VideoOutput(videos=torch.stack(rows))

        self.patch.setattr(MiniSoraPipeline, "__call__", sample)

    def loses(self, held_out: list[float], training: list[float]) -> None:
        """Loss on held-out clips and on training clips; 1 is the yardstick."""
        losses = [held_out, training]
        calls: list[int] = []

        def loss(*args: object) -> LossCurve:
            calls.append(1)
            return LossCurve([0.5], losses[(len(calls) - 1) % 2], [1.0])

        self.patch.setattr(own_clips, "loss_by_sigma", loss)

    def points(self, **options: Any) -> dict[str, Any]:
        return evaluated(self.run, **options).points


def test_a_run_of_shapes_is_evaluated_and_written_down(tiny_run: Path, tmp_path: Path) -> None:
    console = Console(width=110, record=True, file=(tmp_path / "log").open("w"))
    options = OwnClips(tiny_run, samples=6, steps=1)
    run_experiment(tmp_path, console, lambda bar: evaluate_own_clips(options, bar))
    written = json.loads((tmp_path / "evaluation.json").read_text())
    keys = (
        "verdict",
        "advice",
        "vae",
        "samples",
        "motion",
        "captions",
        "frechet",
        "memorisation",
        "settings",
    )
    assert tuple(written) == keys
    # As `curves` of the earlier evaluate.json.
    assert set(written["memorisation"]) >= {"finding", "loss_by_sigma", "nearest_training_clip"}
    assert written["settings"]["held_out_clips"] == 8
    assert written["samples"]["count"] == 6
    sample = written["samples"]["clips"][1]
    assert sample["seed"] == 1
    assert 0 <= sample["nearest"]["index"] < 48
    distances = [each["nearest"]["distance"] for each in written["samples"]["clips"]]
    assert distances == written["memorisation"]["nearest_training_clip"]["samples"]
    assert (tmp_path / "evaluation.png").stat().st_size > 1000
    printed = console.export_text()
    assert written["verdict"]["sentence"][:60] in printed
    assert "real against" in printed
    assert not list(tmp_path.glob("*.partial"))


def test_the_same_seed_gives_the_same_numbers(blocks_run: Path) -> None:
    first, again = (evaluated(blocks_run, samples=4).points for _ in range(2))
    assert first == again
    assert evaluated(blocks_run, samples=4, seed=1).points["samples"] != first["samples"]


def test_a_perfect_model_is_good(perfect: Perfect) -> None:
    points = perfect.points(samples=16)
    assert points["verdict"]["state"] == "good"
    assert points["verdict"]["faults"] == []
    assert points["captions"]["samples"] > 0.8
    assert points["vae"]["psnr"] == pytest.approx(100)
    assert points["vae"]["ssim"] == pytest.approx(1, abs=1e-3)
    assert points["vae"]["psnr_moving"] > points["vae"]["psnr_moving_still"] + 20
    assert points["captions"]["real"] == 1
    assert points["captions"]["chance"] == 0.5
    assert points["motion"]["ratio"] == pytest.approx(1, abs=0.1)
    frechet = points["frechet"]["latents"]
    assert frechet["copies"] == pytest.approx(frechet["floor"], rel=1e-3)
    assert frechet["still"] > frechet["floor"]
    assert frechet["floor_range"][0] <= frechet["floor"] <= frechet["floor_range"][1]
    assert frechet["clips"] == 8
    nearest = points["samples"]["clips"][0]["nearest"]
    assert nearest["file"] in names(8, 24)[8:]


def test_a_vae_that_keeps_only_the_still_picture_loses_what_moves(perfect: Perfect) -> None:
    perfect.decodes(lambda videos: videos.median(2, keepdim=True).values.expand_as(videos).contiguous())
    points = perfect.points(samples=8)
    assert points["verdict"]["state"] == "the VAE loses what moves"
    assert points["vae"]["activity"]["copies"] == 0 < points["vae"]["activity"]["real"]
    assert points["vae"]["psnr_moving"] == pytest.approx(points["vae"]["psnr_moving_still"], abs=0.1)
    assert all(each["ratio"] < 0.1 for each in points["vae"]["by_caption"].values())
    assert any("larger latents" in line for line in points["advice"])


def test_a_vae_that_trembles_flickers(perfect: Perfect) -> None:
    sign = (-1.0) ** torch.arange(9).view(1, 1, 9, 1, 1)
    perfect.decodes(lambda videos: (videos + 0.04 * sign).clamp(-1, 1))
    points = perfect.points(samples=8)
    assert points["verdict"]["state"] == "the VAE flickers"
    assert points["vae"]["flicker"]["copies"] > 2 * points["vae"]["flicker"]["real"]


def test_samples_that_are_training_clips_are_memorised(perfect: Perfect) -> None:
    captions = run_clips(perfect.run)[0].captions()
    of_each = [[i for i, text in enumerate(captions) if text == caption] for caption in CAPTIONS]
    order = [index for pair in zip(*of_each, strict=True) for index in pair]
    perfect.samples(perfect.clips[0][order])
    points = perfect.points(samples=8)
    assert points["verdict"]["state"] == "memorising"
    assert all(each["nearest"]["distance"] < 1e-3 for each in points["samples"]["clips"])
    assert {each["nearest"]["index"] for each in points["samples"]["clips"]} == set(order[:8])
    assert "more clips" in points["advice"][0]


def test_samples_of_the_other_caption_do_not_follow(perfect: Perfect) -> None:
    perfect.samples(perfect.new.roll(1, dims=0))
    points = perfect.points(samples=8)
    assert points["verdict"]["state"] == "not following captions"
    assert points["captions"]["samples"] == 0
    assert points["captions"]["real"] == 1
    assert not any(each["follows"] for each in points["samples"]["clips"])


def test_samples_that_stand_still_move_too_little(perfect: Perfect) -> None:
    perfect.samples(perfect.new.median(2, keepdim=True).values.expand_as(perfect.new).contiguous())
    points = perfect.points(samples=8)
    assert points["verdict"]["state"] in ("moving too little", "not following captions")
    assert "moving too little" in points["verdict"]["faults"]
    assert points["motion"]["distance"]["amount"]["samples"] > points["motion"]["distance"]["amount"]["floor"]
    assert all(each["samples"] == 0 for each in points["motion"]["by_caption"].values())
    # What real clips they are is said wherever the figure is.
    motion = points["motion"]
    assert motion["beside"] == "held-out and training clips"
    assert f"{motion['beside']} in {motion['activity']['real']:.2%}" in json.dumps(points["verdict"]) or (
        points["verdict"]["state"] == "not following captions"
    )


def test_samples_that_are_one_clip_again_and_again_lie_further_away(perfect: Perfect) -> None:
    varied = perfect.points(samples=8)["frechet"]["latents"]
    perfect.samples(perfect.new[:1].repeat(2, 1, 1, 1, 1))
    alike = perfect.points(samples=8)["frechet"]["latents"]
    assert alike["floor"] == varied["floor"]
    assert alike["samples"] > 2 * varied["samples"]


def test_a_loss_like_the_means_is_stuck(perfect: Perfect) -> None:
    perfect.loses([0.95], [0.9])
    assert perfect.points(samples=8)["verdict"]["state"] == "stuck"


def test_a_loss_that_parts_from_trainings_is_told(perfect: Perfect) -> None:
    perfect.loses([0.8], [0.1])
    points = perfect.points(samples=8)
    assert points["memorisation"]["held_out_over_training_loss"] == pytest.approx(8)
    assert any("8.0 times that on training clips" in line for line in points["advice"])


def test_a_run_whose_validation_was_best_early_is_not_told_to_train_longer(
    perfect: Perfect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_clips, "place_of_best", lambda run: {perfect.run: 0.25}[run])
    perfect.loses([0.95], [0.9])
    points = perfect.points(samples=8)
    assert points["memorisation"]["best_validation_at"] == 0.25
    assert points["verdict"]["state"] == "learned by heart"
    assert any(
        "least after 25% of its steps: longer training will not help" in each for each in points["advice"]
    )
    assert not any("train longer" in each for each in points["advice"])


@pytest.mark.parametrize("held_out", [1, 3])
def test_few_held_out_clips_give_words_and_no_nan(held_out: int, tiny_config: Config, tmp_path: Path) -> None:
    run = folder_run(tiny_config, tmp_path, held_out, 5)
    run_experiment(tmp_path, QUIET, lambda bar: evaluate_own_clips(OwnClips(run, samples=2, steps=1), bar))
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["frechet"] is None
    assert written["motion"]["distance"] is None
    assert written["vae"]["psnr"] > 0
    assert any(f"{held_out} held-out clip" in line for line in written["verdict"]["not_told"])
    assert any("more clips" in line for line in written["advice"])


def test_a_run_of_images_is_judged_without_motion(tiny_config: Config, tmp_path: Path) -> None:
    steps = {"train_vae.steps": 1, "train_dit.steps": 1, "data.num_clips": 8, "data.num_validation_clips": 4}
    config = tiny_config.replace(**steps, **{"clip.frames": 1, "train_vae.crop": [1, 16, 16]})
    train_vae(config, tmp_path, QUIET)
    train_dit(config, tmp_path, QUIET)
    points = evaluated(tmp_path, samples=4).points
    json.dumps(points, allow_nan=False)
    assert points["motion"]["distance"] is None
    assert points["vae"]["psnr_moving"] is None
    assert points["frechet"]["latents"]["samples"] > 0


def test_a_run_of_torchvisions_digits_is_judged_and_told_that_its_captions_are_alike(
    tiny_config: Config, tmp_path: Path
) -> None:
    (tmp_path / "MovingMNIST").mkdir()
    digits = (np.random.default_rng(0).random((20, 50, 64, 64)) * 255).astype(np.uint8)
    np.save(tmp_path / "MovingMNIST" / "mnist_test_seq.npy", digits)
    steps = {"train_vae.steps": 1, "train_dit.steps": 1}
    data = {"data.source": "torchvision", "data.dataset": "MovingMNIST", "data.path": tmp_path}
    config = tiny_config.replace(**steps, **data)
    train_vae(config, tmp_path / "run", QUIET)
    train_dit(config, tmp_path / "run", QUIET)
    points = evaluated(tmp_path / "run", samples=5).points
    json.dumps(points, allow_nan=False)
    assert points["captions"] is None
    assert points["samples"]["captions"] == 1
    assert any("all say the same" in line for line in points["advice"])


def test_clips_without_captions_are_judged_by_all_else(tiny_config: Config, tmp_path: Path) -> None:
    run = folder_run(tiny_config.replace(**{"data.require_captions": False}), tmp_path, 4, 8, captions=False)
    points = evaluated(run, samples=4).points
    json.dumps(points, allow_nan=False)
    assert points["captions"] is None
    assert points["frechet"]["latents"]["clips"] == 4
    few = evaluated(run, samples=2).points
    assert few["frechet"] is None
    assert any("2 samples: how far" in line for line in few["verdict"]["not_told"])


def test_held_out_captions_that_the_model_cannot_read_are_told(
    perfect: Perfect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(pipeline: MiniSoraPipeline, prompt: str) -> list[str]:
        if prompt == CAPTIONS[1] or not known:
            raise UserError("unknown")
        return []

    known = True
    monkeypatch.setattr(MiniSoraPipeline, "check_prompt", check)
    points = perfect.points(samples=8)
    assert {each["caption"] for each in points["samples"]["clips"]} == {CAPTIONS[0]}
    assert any("4 held-out captions have no word" in line for line in points["verdict"]["not_told"])
    json.dumps(points, allow_nan=False)
    known = False
    with pytest.raises(UserError, match="knows no word of the held-out captions"):
        perfect.points(samples=8)


def test_a_run_that_keeps_no_latents_is_compared_with_clips_encoded_now(
    blocks_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = evaluated(blocks_run, samples=2).points
    monkeypatch.setattr(gathered_clips, "find_cache", lambda *args: None)
    fresh = evaluated(blocks_run, samples=2).points
    assert fresh["vae"]["psnr"] == pytest.approx(cached["vae"]["psnr"], abs=1e-3)
    assert [each["nearest"]["index"] for each in fresh["samples"]["clips"]] == [
        each["nearest"]["index"] for each in cached["samples"]["clips"]
    ]
    monkeypatch.setattr("minisora.evaluate.clip_sets.MOST_ENCODED", 5)
    few = evaluated(blocks_run, samples=2).points
    assert any("compared with 5 of 24 training clips" in line for line in few["verdict"]["not_told"])


def test_without_torchmetrics_ssim_is_left_out(perfect: Perfect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    experiment = evaluated(perfect.run, samples=2)
    assert experiment.points["vae"]["ssim"] is None
    console = Console(width=120)
    with console.capture() as printed:
        console.print(experiment.table)
    assert "SSIM (needs torchmetrics)" in printed.get()


def test_a_network_of_torchvision_gives_a_distance_of_its_own(
    blocks_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_clips, "VideoNetwork", lambda name: lambda videos: videos.flatten(2).std(2))
    frechet = evaluated(blocks_run, samples=8, features="of/mine.pth").points["frechet"]
    assert set(frechet) == {"latents", "mine.pth"}
    assert frechet["mine.pth"]["samples"] > frechet["mine.pth"]["floor"]


def test_bad_input_is_named_before_any_work(blocks_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        evaluated(tmp_path)
    with pytest.raises(UserError, match="'nothing' is neither"):
        evaluated(blocks_run, features="nothing")
    with pytest.raises(UserError, match="samples = 0 must be"):
        evaluated(blocks_run, samples=0)


def test_a_run_with_views_is_judged_by_clips_as_they_are_and_names_the_files_of_views(
    tiny_config: Config, tmp_path: Path
) -> None:
    augment = {"views": 3, "shift": 4, "color": 0.3, "mirror": True, "speed": 2.0}
    run = folder_run(tiny_config.replace(**{"data.augment": augment}), tmp_path, 4, 8)
    training, held_out = run_clips(run)
    assert (len(training), len(held_out)) == (24, 4)
    assert training.fingerprint() == run_clips(run)[0].fingerprint()
    points = evaluated(run, samples=6).points
    json.dumps(points, allow_nan=False)
    assert points["settings"]["training_clips"] == 8
    for each in points["samples"]["clips"]:
        near = each["nearest"]
        assert near["file"] == training.names()[near["index"]] == training.names()[near["index"] % 8]
