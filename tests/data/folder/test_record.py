"""A stage keeps its numbering of clips while files are found damaged, go, come, move, or change."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import pytest
import torch

from minisora.config import AugmentConfig, ClipConfig, Config, DataConfig
from minisora.data import dataset
from minisora.data.batches import LatentBatches
from minisora.data.clip_views import ClipViews
from minisora.data.clips import to_float
from minisora.data.dataset import open_dataset
from minisora.data.folder.record import DataRecord
from minisora.data.folder.scan import scan_folder
from minisora.data.latent_cache import LatentCache
from minisora.errors import UserError
from minisora.training.latents import EncodedOnDemand

CLIP = ClipConfig(frames=5, height=16, width=16, fps=8)
COUNT = 6


@pytest.fixture(autouse=True)
def no_full_decode(monkeypatch):
    """What a scan of a folder over 1 GB does: it decodes the first frame of every file and counts the rest."""
    monkeypatch.setattr(dataset, "scan_folder", partial(scan_folder, verify=False))


@pytest.fixture
def folder(noise_clips):
    """Six captioned files; which of them are for training follows from their names."""
    return noise_clips([f"clip {number}" for number in range(COUNT)])


def config(folder: Path) -> Config:
    return Config(clip=CLIP, data=DataConfig(source="folder", path=folder, num_validation_clips=1))


def begin(folder: Path, stage: Path, begun: bool = False):
    record = DataRecord(stage, begun)
    data = open_dataset(config(folder), "train", record)
    data.fingerprint()
    record.keep()
    return data


def spoil(folder: Path, damage: Callable[[Path], None], number: int = 1) -> str:
    """Damage a training file; returns its name."""
    name = open_dataset(config(folder), "train").names()[number]
    damage(folder / name)
    return name


def test_a_damaged_clip_is_left_out_said_once_and_another_stands_in(folder, tmp_path, caplog, damage) -> None:
    name = spoil(folder, damage)
    data = begin(folder, tmp_path / "stage")
    clips = data.clips(range(len(data)))
    number = data.names().index(name)
    assert torch.equal(clips[number], clips[number + 1])
    assert data.captions_of([number, number + 1]) == [data.captions()[number + 1]] * 2
    assert data.captions_of([number]) == [data.captions()[number + 1]]
    data.clips([number])
    begin(folder, tmp_path / "stage", begun=True).clips([number])
    told = [record.getMessage() for record in caplog.records if "stand in" in record.getMessage()]
    assert len(told) == 1
    assert str(folder / name) in told[0]
    assert set(DataRecord(tmp_path / "stage").damaged) == {name}
    with pytest.raises(UserError, match=name):  # nobody's record: an error
        open_dataset(config(folder), "train").clips([number])


def test_what_stands_in_does_not_depend_on_what_was_read_before(folder, tmp_path, damage) -> None:
    spoil(folder, damage, 1)
    spoil(folder, damage, 2)
    one, other = begin(folder, tmp_path / "a"), begin(folder, tmp_path / "b")
    forth = torch.cat([one.clips([index]) for index in range(len(one))])
    back = torch.cat([other.clips([index]) for index in reversed(range(len(one)))]).flip(0)
    assert torch.equal(forth, back)
    assert one.captions_of(range(len(one))) == other.captions_of(range(len(one)))


@pytest.mark.parametrize("change", ["removed", "mended", "none"])
def test_a_damaged_file_may_be_removed_or_mended(change, folder, tmp_path, write_noise, damage) -> None:
    name = spoil(folder, damage)
    before = begin(folder, tmp_path / "stage")
    clips = before.clips(range(len(before)))
    if change == "removed":
        (folder / name).unlink()
        (folder / name).with_suffix(".txt").unlink()
    elif change == "mended":
        write_noise(folder / name, 0)
    after = begin(folder, tmp_path / "stage", begun=True)
    assert after.fingerprint() == before.fingerprint()
    assert torch.equal(after.clips(range(len(after))), clips)


def test_the_folder_and_its_files_may_move_and_new_ones_wait(
    folder, tmp_path, monkeypatch, caplog, write_noise
) -> None:
    before = begin(folder, tmp_path / "stage")
    clips = before.clips(range(len(before)))
    elsewhere = tmp_path / "else" / "where"
    shutil.copytree(folder, elsewhere)
    name = before.names()[0]
    for old in (elsewhere / name, (elsewhere / name).with_suffix(".txt")):
        old.rename(old.with_stem("renamed"))
    write_noise(elsewhere / "new.mp4", 99)
    (elsewhere / "new.txt").write_text("new")
    monkeypatch.chdir(tmp_path)
    after = begin(Path("else/where"), tmp_path / "stage", begun=True)
    assert after.fingerprint() == before.fingerprint()
    assert torch.equal(after.clips(range(len(after))), clips)
    assert "1 files" in caplog.text
    assert "new.mp4" in caplog.text
    assert "renamed.mp4" not in caplog.text


def test_a_file_that_is_gone_or_changed_is_named(folder, tmp_path, write_noise) -> None:
    data = begin(folder, tmp_path / "stage")
    file = folder / data.names()[0]
    content, caption = file.read_bytes(), file.with_suffix(".txt").read_text()
    file.with_suffix(".txt").write_text("another caption")
    with pytest.raises(UserError, match=f"caption of {file} is 'another caption' and was '{caption}'"):
        begin(folder, tmp_path / "stage", begun=True)
    file.with_suffix(".txt").write_text(caption)
    write_noise(file, 50)
    with pytest.raises(UserError, match=f"{file} has other content"):
        begin(folder, tmp_path / "stage", begun=True)
    file.unlink()
    with pytest.raises(UserError, match=f"{file} is gone; bring it back as it was"):
        begin(folder, tmp_path / "stage", begun=True)
    file.write_bytes(content)  # as the message says
    assert begin(folder, tmp_path / "stage", begun=True).fingerprint() == data.fingerprint()


def test_before_the_first_checkpoint_other_files_begin_anew(folder, tmp_path, write_noise, damage) -> None:
    name = spoil(folder, damage)
    first = begin(folder, tmp_path / "stage")
    first.clips(range(len(first)))
    write_noise(folder / "new.mp4", 99)
    (folder / "new.txt").write_text("new")
    second = begin(folder, tmp_path / "stage")
    assert second.report.num_clips == first.report.num_clips + 1
    assert not DataRecord(tmp_path / "stage").damaged
    write_noise(folder / name, 0)  # mended
    third = begin(folder, tmp_path / "stage")
    assert len({data.fingerprint() for data in (first, second, third)}) == 3


def test_a_file_that_goes_or_changes_while_it_is_trained_on_is_no_damage(folder, tmp_path, damage) -> None:
    data = begin(folder, tmp_path / "stage")
    file = folder / data.names()[0]
    content = file.read_bytes()
    damage(file)
    with pytest.raises(UserError, match="changed while it is trained on"):
        data.clips([0])
    file.unlink()
    with pytest.raises(UserError, match="gone or has changed"):
        data.clips([0])
    file.write_bytes(content)
    data.clips([0])
    assert not DataRecord(tmp_path / "stage").damaged


def test_a_machine_short_of_memory_is_no_damage(folder, tmp_path, monkeypatch) -> None:
    data = begin(folder, tmp_path / "stage")

    def fail(path, **_):
        raise UserError(f"{path}: cannot be decoded") from av.error.MemoryError(12, "Cannot allocate memory")

    monkeypatch.setattr("minisora.data.folder.folder_dataset.read_video", fail)
    with pytest.raises(UserError, match="cannot be decoded"):
        data.clips([0])
    assert not DataRecord(tmp_path / "stage").damaged


def test_a_folder_of_damaged_clips_is_one_line(folder, tmp_path, damage) -> None:
    for number in range(COUNT):
        damage(folder / f"{number}.mp4")
    with pytest.raises(UserError, match="none of the .* clips"):
        begin(folder, tmp_path / "stage").clips([0])


def test_a_clip_with_a_caption_has_one_with_a_caption_in_its_place(folder, tmp_path, damage) -> None:
    free = Config(
        clip=CLIP,
        data=DataConfig(source="folder", path=folder, num_validation_clips=1, require_captions=False),
    )
    names = open_dataset(free, "train").names()
    damage(folder / names[0])
    (folder / names[1]).with_suffix(".txt").unlink()
    record = DataRecord(tmp_path / "stage")
    data = open_dataset(free, "train", record)
    data.clips([0])
    assert data.captions_of([0]) == [f"clip {Path(names[2]).stem}"]
    again = open_dataset(free, "train", DataRecord(tmp_path / "stage", begun=True))
    assert again.fingerprint() == data.fingerprint()


def test_latents_have_the_captions_of_what_they_are_of(folder, tmp_path, damage) -> None:
    spoil(folder, damage)
    flow = Config().flow.model_copy(update={"caption_dropout": 0.0})

    def encode(videos):
        return to_float(videos[:, :, ::4, ::8, ::8])

    data = begin(folder, tmp_path / "stage")
    captions = begin(folder, tmp_path / "stage").captions()
    cached = LatentBatches(LatentCache.build(tmp_path / "cache", data, encode, "vae"), flow, 0)
    live = LatentBatches(EncodedOnDemand(begin(folder, tmp_path / "stage"), encode), flow, 0)
    a, b = cached.at(range(12)), live.at(range(12))
    assert torch.equal(a.latents, b.latents)
    assert a.captions == b.captions
    assert captions[1] not in a.captions
    assert captions[1] in live.all_captions  # words are known before any clip is read

    moved = ClipViews(begin(folder, tmp_path / "stage"), [1, 0], AugmentConfig(views=2, shift=1))
    moved.clips(range(4))
    assert moved.captions_of(range(4)) == [captions[2]] * 2 + [captions[0]] * 2


def test_a_record_cut_short_is_no_record_and_a_torn_line_spoils_no_other(folder, tmp_path) -> None:
    stage = tmp_path / "stage"
    data = begin(folder, stage)
    (stage / "data.json").write_text((stage / "data.json").read_text()[:-50])
    assert begin(folder, stage, begun=True).fingerprint() == data.fingerprint()
    (stage / "damaged.jsonl").write_text('{"name": "torn')
    record = DataRecord(stage, begun=True)
    record.leave_out(folder / "x.mp4", "x.mp4", "why")
    record.leave_out(folder / "x.mp4", "x.mp4", "why")
    assert record.damaged == {"x.mp4": "why"}


def test_overlapping_clips_are_recorded_and_a_removed_damaged_file_leaves_their_numbers(
    folder, tmp_path, damage
) -> None:
    def opened(overlap: float, begun: bool):
        record = DataRecord(tmp_path / "stage", begun)
        settings = config(folder).replace(**{"data.overlap": overlap, "clip.frames": 3})
        data = open_dataset(settings, "train", record)
        data.fingerprint()
        record.keep()
        return data

    assert len(opened(0.0, False)) == 2 * (COUNT - 1)
    assert len(opened(0.4, False)) == 2 * (COUNT - 1)
    # Nothing is trained yet: another overlap begins anew.
    before = opened(0.6, False)
    assert len(before) == 4 * (COUNT - 1)
    name = before.names()[1]
    damage(folder / name)
    before = opened(0.6, False)
    clips = before.clips(range(len(before)))
    (folder / name).unlink()
    after = opened(0.6, True)
    assert after.fingerprint() == before.fingerprint()
    assert torch.equal(after.clips(range(len(after))), clips)


def test_without_overlap_a_record_is_as_older_versions_read_it(folder, tmp_path) -> None:
    begin(folder, tmp_path / "stage")
    rows = json.loads((tmp_path / "stage" / "data.json").read_text())["sizes"][0]["files"]
    assert {len(row) for row in rows} == {5}
