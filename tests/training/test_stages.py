"""Stages that refuse, are finished already, or are given what is damaged: nothing good is written over."""

import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from minisora.config import AugmentConfig, Config, load, override
from minisora.data.batches import Batch, LatentBatches, MixedBatches, TrajectoryBatches, load_batches
from minisora.data.clip_views import ClipViews
from minisora.data.clips import to_float
from minisora.data.dataset import open_dataset
from minisora.data.latent_cache import LatentCache, cache_keys, fingerprint
from minisora.errors import UserError
from minisora.models.text import TextEncoder
from minisora.pipelines.model_folder import load_pipeline
from minisora.run_metrics import read_metrics
from minisora.training import captioning, loop, stages
from minisora.training.captioning import label_folder, train_captioner
from minisora.training.dit_task import check_dit
from minisora.training.latents import EncodedOnDemand, build_latents, encodes_in_step
from minisora.training.launch import make_accelerator
from minisora.training.stages import load_vae, train_dit, train_dit_on, train_student, train_vae
from minisora.training.vae_task import VAETask

QUIET = Console(quiet=True)
CONSOLE = Console(record=True, width=200, file=io.StringIO())


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir() if p.is_file()}


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def train_on(config: Config, run: Path, console: Console) -> None:
    vae = load_vae(run / "vae" / "model")
    sources = [
        build_latents(config, vae, open_dataset(config, split), run / "cache", console, split)
        for split in ("train", "validation")
    ]
    train_dit_on(config, vae, sources[0], sources[1], run, console)


def train_on_samples(config: Config, run: Path, console: Console) -> None:
    teacher = load_pipeline(run / "model", device="cpu")
    states = torch.zeros(8, 2, *teacher.latent_shape(*teacher.config.default_size))
    samples = TrajectoryBatches(states, [1.0, 0.0], ["a red circle"] * 8, 0)
    train_student(config, teacher, samples, run, console)


def test_latents_from_anywhere_are_of_one_size(tiny_config: Config, run: Path) -> None:
    shutil.rmtree(run / "dit")
    several = ["data.buckets=[{frames: 9, height: 16, width: 48}]", "flow.image_share=0.5"]
    train_on(override(tiny_config, several), run, Console(quiet=True))
    assert load(run / "config.yaml").data.buckets == ()


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        (train_vae, "train_vae.lr=0.5"),
        (train_dit, "train_dit.lr=0.5"),
        (train_on, "train_dit.lr=0.5"),
        (train_on_samples, "train_dit.lr=0.5"),
    ],
)
def test_a_refused_resumption_writes_nothing(
    stage: Callable[[Config, Path, Console], object], setting: str, tiny_config: Config, run: Path
) -> None:
    before, metrics = content(run), (run / "metrics.jsonl").read_bytes()
    if stage is train_dit:
        shutil.rmtree(run / "cache")
    with pytest.raises(UserError, match=r"was trained with train_\w+\.lr="):
        stage(override(tiny_config, [setting, "train_dit.validate_every=7"]), run, QUIET)
    assert content(run) == before
    assert (run / "metrics.jsonl").read_bytes() == metrics
    assert (run / "cache").exists() == (stage is not train_dit)  # nor are clips encoded for nothing


def test_a_finished_vae_does_not_ask_what_its_dit_is(tiny_config: Config, run: Path) -> None:
    before = content(run / "vae" / "model")
    train_vae(override(tiny_config, ["dit.depth=3", "train_dit.lr=0.5", "flow.shift=2"]), run, QUIET)
    assert content(run / "vae" / "model") == before
    with pytest.raises(UserError, match=r"was trained with train_vae\.lr="):
        train_vae(override(tiny_config, ["train_vae.lr=0.5"]), run, QUIET)


def test_a_finished_vae_is_neither_validated_nor_written_again(
    tiny_config: Config, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(run / "vae" / "model")
    last = [r for r in read_metrics(run / "metrics.jsonl") if r["stage"] == "vae" and "val_psnr" in r][-1]

    def again(*_: object) -> None:
        pytest.fail("a finished stage worked again")

    with monkeypatch.context() as patch:
        patch.setattr(VAETask, "validate", again)
        patch.setattr(VAETask, "set_statistics", again)
        result = train_vae(tiny_config, run, QUIET)
    assert content(run / "vae" / "model") == before
    assert result.validation == {"psnr": last["val_psnr"]}
    for name, value in load_vae(run / "vae" / "model").named_parameters():
        assert value.equal(result.weights[name])
    (run / "vae" / "model" / "diffusion_pytorch_model.safetensors").unlink()  # but what is not whole is
    (run / "metrics.jsonl").unlink()
    assert train_vae(tiny_config, run, QUIET).validation["psnr"] == pytest.approx(last["val_psnr"], rel=1e-4)
    assert {name: c[1] for name, c in content(run / "vae" / "model").items()} == {
        name: c[1] for name, c in before.items()
    }


@pytest.mark.parametrize("damage", ["missing", "pickled", "cut short"])
def test_a_vae_without_whole_weights_is_refused_in_one_line(damage: str, run: Path) -> None:
    folder = run / "vae" / "model"
    weights = folder / "diffusion_pytorch_model.safetensors"
    if damage == "cut short":
        weights.write_bytes(weights.read_bytes()[:100])
    else:
        if damage == "pickled":
            torch.save(load_vae(folder).state_dict(), folder / "diffusion_pytorch_model.bin")
        weights.unlink()
    with pytest.raises(UserError, match=r"cannot be read \(.*\): delete that folder and run") as refused:
        load_vae(folder)
    assert "\n" not in str(refused.value)


def test_a_captioner_without_weights_is_refused_in_one_line(
    run: Path, tmp_path: Path, tiny_config: Config
) -> None:
    (run / "captioner" / "model").mkdir(parents=True)
    (run / "captioner" / "model" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read .*: run 'minisora caption train --run"):
        label_folder(run, tmp_path, tmp_path / "x.csv", QUIET)


def test_a_refused_captioner_encodes_nothing(
    tiny_config: Config, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["train_caption.steps=1", "train_caption.batch_size=4", "train_caption.views_in_all=6"]
    train_captioner(override(tiny_config, few), run, QUIET, share=0.2)
    monkeypatch.setattr(captioning, "build_latents", lambda *_: pytest.fail("clips were encoded"))
    with pytest.raises(UserError, match="was trained on other data"):
        train_captioner(override(tiny_config, few), run, QUIET, share=0.3)


def test_latents_of_another_precision_have_a_cache_of_their_own(tiny_config: Config, run: Path) -> None:
    vae, dataset = load_vae(run / "vae" / "model"), open_dataset(tiny_config, "validation")
    latents = {}
    for precision in ("fp32", "bf16"):
        accelerator = make_accelerator(
            precision=precision, accumulation=1, trackers=(), out=run / "dit", seed=0
        )
        source = build_latents(tiny_config, vae, dataset, run / "cache", QUIET, "x", accelerator)
        latents[precision] = source.latents(range(len(dataset)))
    assert not latents["fp32"].equal(latents["bf16"])
    plain = LatentCache.open(run / "cache", dataset, fingerprint(vae))
    assert plain.latents(range(len(dataset))).equal(latents["fp32"])
    assert cache_keys(vae)["no"] == fingerprint(vae)


def test_an_error_in_a_loader_worker_is_its_own_line() -> None:
    class Broken:
        def at(self, positions: Sequence[int]) -> Batch:
            raise UserError(f"clips/{positions[0]}.mp4: cannot be decoded")

    for workers in (0, 1):
        with pytest.raises(UserError) as caught:
            next(load_batches(Broken(), start_step=3, stop_step=5, batch_size=4, workers=workers))
        assert str(caught.value) == "clips/12.mp4: cannot be decoded"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("dit.patch=[1,3,3]", "stride"),
        ("dit.heads=5", "is not a multiple of heads = 5"),
        ("data.packing=1", "does not fit a packed row"),
        ("train_dit.accumulation=3", "does not divide"),
        ("dit.patch=[2,2,2]", "set dit.patch="),
    ],
)
def test_a_dit_that_cannot_be_trained_is_refused_before_its_vae_is(
    setting: str, said: str, tiny_config: Config
) -> None:
    config = override(tiny_config, ["flow.known_share=0.5"])
    check_dit(config)
    with pytest.raises(UserError, match=re.escape(said)):
        check_dit(override(config, [setting]))
    with pytest.raises(UserError, match=r"packed rows need dit\.attention=full"):
        check_dit(override(config, ["data.packing=512", "dit.attention=factorised"]))


@pytest.mark.parametrize("stage", [train_dit, train_on])
def test_a_refused_dit_leaves_its_run_as_it_was(
    stage: Callable[[Config, Path, Console], object], tiny_config: Config, run: Path
) -> None:
    shutil.rmtree(run / "dit")
    before = content(run)
    with pytest.raises(UserError, match="is not a multiple of heads = 5"):
        stage(override(tiny_config, ["dit.heads=5"]), run, QUIET)
    assert content(run) == before
    assert not (run / "dit").exists()


def test_what_encodes_in_the_step_is_not_sent_to_loader_workers(
    tiny_config: Config, tiny_run: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = loop.load_batches

    def batches(*args: object, workers: int, **kwargs: object) -> object:
        asked.append(workers)
        return real(*args, workers=0, **kwargs)

    monkeypatch.setattr(loop, "load_batches", batches)
    for number, cached in enumerate(("true", "false")):
        settings = ["train_dit.workers=2", "train_dit.steps=1", f"train_dit.cache_latents={cached}"]
        out = run / str(number)
        stages.train_dit(override(tiny_config, settings), out, QUIET, tiny_run / "vae" / "model")
    assert asked == [2, 0]
    source = EncodedOnDemand(open_dataset(tiny_config, "train"), lambda videos: videos)
    part = LatentBatches(source, tiny_config.flow, 0)
    views = ClipViews(open_dataset(tiny_config, "train"), [1, 0], AugmentConfig(views=2, shift=1))
    on_demand = EncodedOnDemand(views, to_float)
    assert torch.equal(on_demand.latents([1, 2]), to_float(views.clips([1, 2])))
    assert on_demand.memory.limit == 0
    assert encodes_in_step(MixedBatches([part], [1.0], image_share=0, batch_size=4, seed=0))


def _captioned(config: Config, run: Path, captions: list[str]) -> None:
    """Train a step of the DiT on latents of nothing under captions."""
    latents = torch.zeros(len(captions), 4, 3, 4, 4)
    source = LatentCache(run, [latents], captions)
    few = ["train_dit.steps=1", "train_dit.validate_every=1", "train_dit.save_every=1"]
    train_dit_on(override(config, few), load_vae(run / "vae" / "model"), source, source, run, CONSOLE)


def test_long_captions_are_read_to_their_end(tiny_config: Config, run: Path) -> None:
    shutil.rmtree(run / "dit")
    captions = ["in this calm scene " * 10 + last for last in ("red", "blue")] * 2
    _captioned(tiny_config, run, captions)
    assert "cut after" not in CONSOLE.export_text()
    assert load(run / "config.yaml").text.max_tokens == 48
    pipeline = load_pipeline(run / "model", "cpu")
    assert isinstance(pipeline.text_encoder, TextEncoder)
    ids, _ = pipeline.text_encoder.tokenize(captions[:2])
    assert not ids[0].equal(ids[1])
    _captioned(tiny_config, run, captions)  # resumed: the same choice
    with pytest.raises(UserError, match=r"text\.max_tokens=48, now it is 8"):
        _captioned(override(tiny_config, ["text.max_tokens=8"]), run, captions)
    shutil.rmtree(run / "dit")
    _captioned(override(tiny_config, ["text.max_tokens=8"]), run, captions)
    assert "4 of 4 captions are cut after 'in this calm scene in this calm'; set" in CONSOLE.export_text()


def test_a_run_that_older_code_began_goes_on_with_its_tokenizer(tiny_config: Config, run: Path) -> None:
    shutil.rmtree(run / "dit")
    captions = ["un cafe\u0301 rouge"] * 4
    _captioned(override(tiny_config, ["text.tokenizer_version=1", "text.max_tokens=24"]), run, captions)
    state = next((run / "dit" / "checkpoints").glob("*/state.json"))
    about = json.loads(state.read_text())
    del about["config"]["text"]["tokenizer_version"], about["checksum"]
    del about["config"]["dit"]["dropout"], about["config"]["train_dit"]["patience"]
    for key in ("fit", "overlap", "buckets_by_shape", "augment"):
        del about["config"]["data"][key]
    state.write_text(json.dumps(about))
    _captioned(tiny_config, run, captions)
    pipeline = load_pipeline(run / "model", "cpu")
    assert isinstance(pipeline.text_encoder, TextEncoder)
    assert set(pipeline.text_encoder.tokenizer.ids) == {"un", "cafe", "\u0301", "rouge"}
    shutil.rmtree(run / "dit")
    _captioned(tiny_config, run, captions)
    again = load_pipeline(run / "model", "cpu")
    assert again.check_prompt("un café") == []


def test_overlap_resumes_and_another_one_is_refused_by_name(tiny_config: Config, tmp_path: Path) -> None:
    from minisora.data.shapes_world.shapes_dataset import make_shapes

    make_shapes(tmp_path / "clips", 4, 0, tiny_config.clip.replace(frames=17), progress=False)
    folder = [
        "data.source=folder",
        f"data.path={tmp_path / 'clips'}",
        "data.overlap=0.5",
        "train_vae.save_every=2",
        "train_vae.decay_share=0",
    ]
    whole, run = tmp_path / "whole", tmp_path / "run"
    train_vae(override(tiny_config, [*folder, "train_vae.steps=4"]), whole, QUIET)
    train_vae(override(tiny_config, [*folder, "train_vae.steps=2"]), run, QUIET)
    for settings, name in (
        (["data.overlap=0.25"], "data.overlap=0.5, now it is 0.25"),
        (["data.fit=pad"], "data.fit="),
    ):
        with pytest.raises(UserError, match=name):
            train_vae(override(tiny_config, [*folder, "train_vae.steps=4", *settings]), run, QUIET)
    config = override(tiny_config, [*folder, "train_vae.steps=4"])
    assert len(open_dataset(config, "train")) == 3 * 3
    train_vae(config, run, QUIET)
    assert fingerprint(load_vae(run / "vae" / "model")) == fingerprint(load_vae(whole / "vae" / "model"))


def test_by_shape_the_vae_learns_from_files_of_every_shape(
    tiny_config: Config, tmp_path: Path, monkeypatch
) -> None:
    for index in range(6):
        shape = (64, 32) if index % 2 else (32, 64)
        Image.new("RGB", shape, (index,) * 3).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text("gray")
    sizes = "data.buckets=[{frames: 9, height: 64, width: 32}]"
    folder = [
        "data.source=folder",
        f"data.path={tmp_path}",
        sizes,
        "data.buckets_by_shape=true",
        "clip.width=64",
    ]
    config = override(tiny_config, [*folder, "train_vae.steps=1", "train_dit.steps=2"])
    train_vae(config, tmp_path / "run", QUIET)
    train_dit(config, tmp_path / "run", QUIET)
    files = {
        stage: [
            len(size["files"])
            for size in json.loads((tmp_path / "run" / stage / "data.json").read_text())["sizes"]
        ]
        for stage in ("vae", "dit")
    }
    assert files == {"vae": [6], "dit": [3, 3]}


def test_steps_that_are_set_on_the_way_are_those_of_the_rate_and_of_what_goes_on(
    tiny_config: Config, run: Path
) -> None:
    shutil.rmtree(run / "dit")
    asked: list[int] = []

    def eight(step: int) -> int:
        asked.append(step)
        return 8

    config = tiny_config.replace(
        **{
            "train_dit.steps": 4,
            "train_dit.log_every": 1,
            "train_dit.validate_every": 1,
            "train_dit.warmup_steps": 0,
            "train_dit.decay_share": 0.5,
            "train_dit.final_lr_share": 0.0,
        }
    )
    train_dit(config, run, QUIET, steps_by=eight)
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row["stage"] == "dit" and "lr" in row]
    # On the plateau of eight steps alone, which ends after the fourth.
    assert asked == [1, 2, 3, 4]
    assert [row["step"] for row in rows] == list(range(1, 9))
    peak = rows[0]["lr"]
    assert [row["lr"] / peak for row in rows] == pytest.approx([1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    # Told so, the same command finds it finished.
    before = (run / "metrics.jsonl").read_text()
    train_dit(config.replace(**{"train_dit.steps": 8}), run, QUIET, steps_by=eight)
    assert (run / "metrics.jsonl").read_text() == before
    assert asked == [1, 2, 3, 4]
    # A rate that never falls stands on its plateau to the end, which is the end all the same.
    shutil.rmtree(run / "dit")
    train_dit(config.replace(**{"train_dit.decay_share": 0.0}), run, QUIET, steps_by=lambda _: 5)
    last = [row for row in read_metrics(run / "metrics.jsonl") if row["stage"] == "dit"][-1]
    assert last["step"] == 5


def test_a_vae_goes_on_without_the_model_that_it_began_with(
    tiny_config: Config, run: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    shutil.copytree(run / "model", first)
    config = tiny_config.replace(**{"train_vae.init": str(first), "train_vae.steps": 1})
    train_vae(config, tmp_path / "second", QUIET)
    shutil.rmtree(first)
    train_vae(config, tmp_path / "second", QUIET)
    longer = config.replace(**{"train_vae.steps": 2})
    assert train_vae(longer, tmp_path / "second", QUIET).validation
