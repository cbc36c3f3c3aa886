"""Files that were spoiled on the disk: of checkpoints, of models, of latents, of the data."""

import copy
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from minisora.config import Config, TrainConfig, override
from minisora.data import dataset as opening
from minisora.data.folder.folder_dataset import FolderDataset
from minisora.data.folder.record import DataRecord
from minisora.data.folder.scan import scan_folder
from minisora.errors import UserError
from minisora.run_metrics import read_metrics
from minisora.training import checkpoint
from minisora.training.optimizer import lr_scale, steps_changed
from minisora.training.stages import load_vae, train_dit, train_vae

QUIET = Console(quiet=True)


def zeros_in_the_middle(file: Path) -> None:
    data = bytearray(file.read_bytes())
    start, stop = len(data) // 2, len(data) // 2 + 400
    assert any(data[start:stop])
    data[start:stop] = bytes(stop - start)
    file.write_bytes(data)


def losses(run: Path) -> list[tuple[int, float]]:
    return [(r["step"], r["loss"]) for r in read_metrics(run / "metrics.jsonl") if "loss" in r]


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> Config:
    return override(tiny_config, ["data.num_clips=12", "train_vae.steps=6", "train_vae.save_every=2"])


@pytest.fixture
def run(config: Config, tmp_path: Path) -> Path:
    train_vae(config, tmp_path / "run", QUIET)
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["model", "ema", "optimizer"])
def test_a_spoiled_checkpoint_is_passed_over_and_the_losses_are_the_same(
    name: str, config: Config, run: Path
) -> None:
    before, weights = (
        losses(run),
        (run / "vae" / "model" / "diffusion_pytorch_model.safetensors").read_bytes(),
    )
    newest = run / "vae" / "checkpoints" / "step-00000006"
    zeros_in_the_middle(newest / f"{name}.safetensors")
    console = Console(record=True, width=300)
    train_vae(config, run, console)
    text = console.export_text()
    assert f"{newest} is damaged ({name}.safetensors does not match its checksum): passed over" in text
    assert "resuming vae at step 4" in text
    assert losses(run) == before
    assert (run / "vae" / "model" / "diffusion_pytorch_model.safetensors").read_bytes() == weights
    assert checkpoint.damage(newest) is None  # written again


@pytest.mark.parametrize("spoil", ["zeros", "one digit", "gone"])
def test_a_spoiled_state_is_noticed(spoil: str, run: Path) -> None:
    state = checkpoint.newest(run / "vae" / "checkpoints") / "state.json"
    if spoil == "zeros":
        zeros_in_the_middle(state)
    elif spoil == "one digit":
        state.write_text(state.read_text().replace('"step": 6', '"step": 8'))
    else:
        (state.parent / "model.safetensors").unlink()
    assert checkpoint.damage(state.parent) is not None
    assert checkpoint.newest(run / "vae" / "checkpoints").name == "step-00000004"


def test_without_a_whole_checkpoint_it_is_one_line_that_helps(config: Config, run: Path) -> None:
    folder = run / "vae" / "checkpoints"
    for place in checkpoint.checkpoints(folder):
        zeros_in_the_middle(place / "model.safetensors")
    with pytest.raises(UserError, match=r"step-00000006 is damaged .* delete .*checkpoints"):
        train_vae(config, run, QUIET)
    before = losses(run)
    for place in checkpoint.checkpoints(folder):  # as the message says
        for file in place.iterdir():
            file.unlink()
        place.rmdir()
    train_vae(config, run, QUIET)
    assert losses(run) == before


def test_a_checkpoint_of_before_checksums_is_taken_as_it_is(config: Config, run: Path) -> None:
    place = checkpoint.newest(run / "vae" / "checkpoints")
    about = json.loads((place / "state.json").read_text())
    del about["files"], about["checksum"]
    (place / "state.json").write_text(json.dumps(about))
    assert checkpoint.newest(place.parent) == place
    before = losses(run)
    train_vae(config, run, QUIET)
    assert losses(run) == before


def test_the_only_checkpoint_kept_is_never_a_spoiled_one(config: Config, run: Path) -> None:
    folder = run / "vae" / "checkpoints"
    zeros_in_the_middle(folder / "step-00000006" / "ema.safetensors")
    one = override(config, ["train_vae.keep_checkpoints=1", "train_vae.save_every=1", "train_vae.steps=5"])
    train_vae(one, run, QUIET)
    assert [place.name for place in checkpoint.checkpoints(folder)] == ["step-00000005"]


def test_a_spoiled_model_is_named_and_made_again(config: Config, run: Path) -> None:
    weights = run / "vae" / "model" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    zeros_in_the_middle(weights)
    with pytest.raises(UserError, match="diffusion_pytorch_model.safetensors is not as SHA256SUMS says"):
        load_vae(weights.parent)
    train_vae(config, run, QUIET)  # the message names it
    assert weights.read_bytes() == whole


def test_a_spoiled_shard_of_latents_is_encoded_again(config: Config, run: Path) -> None:
    train_dit(config, run, QUIET)
    shards = sorted((run / "cache").glob("*/shard-*.safetensors"))
    whole = [shard.read_bytes() for shard in shards]
    for shard in shards:
        zeros_in_the_middle(shard)
    before = losses(run)
    train_dit(config, run, QUIET)
    assert [shard.read_bytes() for shard in shards] == whole
    assert losses(run) == before


def test_more_steps_say_what_they_do_to_the_learning_rate(config: Config, run: Path) -> None:
    console = Console(record=True, width=300)
    train_vae(override(config, ["train_vae.steps=8"]), run, console)
    text = console.export_text()
    assert "train_vae.steps was 6 and is 8: the learning rate rises at once" in text
    assert [step for step, _ in losses(run)] == list(range(1, 9))
    console = Console(record=True, width=300)
    train_vae(override(config, ["train_vae.steps=7"]), run, console)
    assert "8 steps are done, so nothing is trained" in console.export_text()


def test_the_words_on_the_learning_rate_are_those_of_the_schedule() -> None:
    settings = TrainConfig(steps=2000, warmup_steps=10, decay_share=0.5, final_lr_share=0.1)
    early = steps_changed(400, 1000, settings)
    assert (
        early == "the learning rate falls from step 1000 to 10% at step 2000, as if planned so from the start"
    )
    assert lr_scale(750, settings.model_copy(update={"steps": 1000})) == pytest.approx(0.55)
    assert "rises at once from 55% to 100% of its peak, then falls from step 1000" in steps_changed(
        750, 1000, settings
    )
    assert "drops at once from 100% to 10%" in steps_changed(
        999, 2000, settings.model_copy(update={"steps": 1000})
    )
    assert "nothing is trained" in steps_changed(1000, 2000, settings.model_copy(update={"steps": 1000}))
    constant = settings.model_copy(update={"decay_share": 0.0})
    assert "does not depend" in steps_changed(10, 20, constant)


def test_a_vae_under_a_dit_is_not_trained_further(config: Config, run: Path) -> None:
    train_dit(config, run, QUIET)
    with pytest.raises(UserError, match=r"set train_vae.steps=6, or use another --out"):
        train_vae(override(config, ["train_vae.steps=8"]), run, QUIET)
    train_vae(config, run, QUIET)


def test_a_run_goes_on_without_its_damaged_clips(
    tiny_config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    noise_clips: Callable[[Sequence[str]], Path],
    damage: Callable[[Path], None],
) -> None:
    """Both stages, killed in their middle: the file is removed and the folder moved, and no loss changes."""
    monkeypatch.setattr(opening, "scan_folder", partial(scan_folder, verify=False))
    folder = noise_clips([f"clip {number}" for number in range(6)])
    settings = ["data.source=folder", f"data.path={folder}", "clip.frames=5", "data.num_validation_clips=1"]
    config = override(tiny_config, [*settings, "train_dit.steps=6", "train_vae.steps=6"])
    name = opening.open_dataset(config, "train").names()[0]
    damage(folder / name)
    for run in ("whole", "cut"):
        short = [] if run == "whole" else ["train_vae.steps=5", "train_vae.decay_share=0"]
        train_vae(override(config, ["train_vae.decay_share=0", *short]), tmp_path / run, QUIET)
    (folder / name).unlink()
    (folder / name).with_suffix(".txt").unlink()
    (tmp_path / "clips").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    moved = override(config, ["data.path=moved", "train_vae.decay_share=0"])
    train_vae(moved, tmp_path / "cut", QUIET)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    train_dit(moved, tmp_path / "cut", QUIET)
    assert (tmp_path / "cut" / "model" / "model_index.json").is_file()


def test_captions_are_those_of_the_clips_that_another_process_read(
    tiny_config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    noise_clips: Callable[[Sequence[str]], Path],
    damage: Callable[[Path], None],
) -> None:
    monkeypatch.setattr(opening, "scan_folder", partial(scan_folder, verify=False))
    folder = noise_clips([f"clip {number}" for number in range(4)])
    settings = ["data.source=folder", f"data.path={folder}", "clip.frames=5", "data.num_validation_clips=1"]
    config = override(tiny_config, settings)
    damage(folder / opening.open_dataset(config, "train").names()[0])

    def opened() -> FolderDataset:
        dataset = opening.open_dataset(config, "train", DataRecord(tmp_path / "stage"))
        assert isinstance(dataset, FolderDataset)
        return dataset

    reader, other = opened(), opened()
    every = range(len(reader))
    reader.clips(every)
    captions = reader.captions_of(every)
    assert captions[0] == captions[1] != reader.captions()[0]
    assert other.captions_of(every) == captions


def test_of_a_pretrained_text_encoder_the_content_decides(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}" if name != "c" else "[]")
    a, b, c = (
        checkpoint.described(override({}, ["text.kind=pretrained", f"text.path={tmp_path / name}"]))
        for name in ("a", "b", "c")
    )
    state = checkpoint.TrainState(1, a, "fp32", "dit", "data-vae")
    checkpoint.check_resumable(tmp_path, state, b, "data-vae")
    with pytest.raises(UserError, match=r"trained with text\.content="):
        checkpoint.check_resumable(tmp_path, state, c, "data-vae")
    del a["text"]["content"]  # of an older version
    checkpoint.check_resumable(tmp_path, state, b, "data-vae")


def test_a_refusal_says_what_is_another() -> None:
    state = checkpoint.TrainState(1, {}, "fp32", "dit", "data-bucket-vae")
    with pytest.raises(UserError, match="with another VAE"):
        checkpoint.check_resumable(Path("x"), state, {}, "data-bucket-other")
    with pytest.raises(UserError, match="on other data"):
        checkpoint.check_resumable(Path("x"), state, {}, "other-bucket-vae")


@pytest.mark.parametrize("views", ["{views: 1}", "{views: 3, shift: 1}"])
def test_a_run_from_before_clips_were_seen_plain_at_the_end_goes_on_where_it_has_no_views(views: str) -> None:
    now = checkpoint.described(override({}, [f"data.augment={views}"]))
    then = copy.deepcopy(now)
    del then["data"]["augment"]["plain_epochs"]
    state = checkpoint.TrainState(1, then, "fp32", "dit", "data")
    if "3" not in views:
        checkpoint.check_resumable(Path("x"), state, now, "data")
        return
    with pytest.raises(UserError, match=r"trained with data\.augment\.plain_epochs=0\.0, now it is 50\.0"):
        checkpoint.check_resumable(Path("x"), state, now, "data")


def test_codes_of_a_world_stay_where_only_what_follows_is_learned_otherwise() -> None:
    world = Config().world
    state = checkpoint.TrainState(1, checkpoint.described(Config()), "fp32", "actions", "data")
    others = {"world.most_weight": 2.0, "world.objective": "velocity", "vae.latent_channels": 4}
    checkpoint.check_resumable(Path("x"), state, checkpoint.described(Config().replace(**others)), "data")
    for key, value in (("codes", 2 * world.codes), ("action_width", 8), ("history_dropout", 0.1)):
        now = checkpoint.described(Config().replace(**{f"world.{key}": value}))
        with pytest.raises(UserError, match=rf"trained with world\.{key}="):
            checkpoint.check_resumable(Path("x"), state, now, "data")
    # A name that is no setting would let nothing through, and nobody would notice.
    free = {path[1] for path in checkpoint._OF_OTHERS["actions"] if path[0] == "world" and len(path) > 1}
    assert free < type(world).model_fields.keys()
