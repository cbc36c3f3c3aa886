import hashlib
import json
import logging
import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from minisora.config import BucketConfig, ClipConfig, Config, DataConfig
from minisora.data.clips import ClipMemory
from minisora.data.dataset import bucket_configs, open_dataset
from minisora.data.folder import scan as scanning
from minisora.data.folder.folder_dataset import VALIDATION_SHARE, FolderDataset, name_fraction, split_files
from minisora.data.folder.metadata import read_metadata, write_metadata
from minisora.data.folder.scan import NO_CAPTION, FolderScan, ScannedFile, scan_folder
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.data.video.frames import decode
from minisora.data.video.read_video import probe
from minisora.errors import UserError

CLIP = ClipConfig(frames=9, height=24, width=32, fps=8)


def reasons(scan):
    return {file.name: file.dropped for file in scan.dropped}


def test_ten_real_files(mixed_folder):
    data = FolderDataset(mixed_folder, CLIP)
    assert set(reasons(data.report)) == {"j_truncated.mp4"}
    assert [file.name for file in data.report.kept if file.too_short] == ["c_three_frames.mp4"]
    starts = {file.name: file.starts for file in data.report.kept}
    assert starts["i_long.mp4"] == tuple(k * 9 / 8 for k in range(5))  # 6 s are 48 frames at 8 fps
    assert starts["sub/e.avi"] == (0.0, 1.125)
    assert len(data) == data.report.num_clips == len(data.captions())
    videos = data.clips(range(len(data)))
    assert videos.shape == (len(data), 3, 9, 24, 32)
    assert videos.dtype == torch.uint8
    assert data.captions_of([0]) == ["grey, clip a"]
    assert "j_truncated.mp4" in data.report.summary()
    assert "c_three_frames.mp4" in data.report.summary()


def test_an_item_is_pure_held_or_not(mixed_folder):
    dataset = FolderDataset(mixed_folder, CLIP)
    held = ClipMemory(dataset)
    fresh = torch.stack([dataset.clips([i])[0] for i in (3, 0, 7)])
    for _ in range(2):
        assert torch.equal(dataset.clips([3, 0, 7]), fresh)
        assert torch.equal(torch.stack(held.clips([3, 0, 7])), fresh)
    dataset.clips([3])[0].zero_()
    assert torch.equal(dataset.clips([3])[0], fresh[0])
    assert torch.equal(dataset.clips([-1])[0], dataset.clips([len(dataset) - 1])[0])
    with pytest.raises(IndexError):
        dataset.clips([len(dataset)])


def test_short_clips_are_padded_skipped_or_an_error(mixed_folder):
    skipped = FolderDataset(mixed_folder, CLIP, short_clips="skip")
    assert reasons(skipped.report)["c_three_frames.mp4"] == "too short: 3 frames at 8 fps, a clip has 9"
    assert len(skipped) == len(FolderDataset(mixed_folder, CLIP)) - 1
    with pytest.raises(UserError, match=r"c_three_frames.mp4: shorter than 9 frames at 8 fps; remove it"):
        FolderDataset(mixed_folder, CLIP, short_clips="error")


def test_jsonl_sidecars_and_folders_below(tmp_path, ramp):
    for name in ("a.mp4", "b.mp4", "c.mp4", "x/d.mp4", "x/e.mp4"):
        ramp(tmp_path / name, 9, 8)
    (tmp_path / "metadata.jsonl").write_text(
        json.dumps({"file_name": "a.mp4", "text": " from  jsonl "})
        + "\n\n"
        + json.dumps({"file_name": "b.mp4", "text": None})
        + "\n"
        + json.dumps({"file_name": "gone.mp4", "text": "not there"})
    )
    (tmp_path / "b.txt").write_text("from sidecar\n")
    (tmp_path / "x" / "metadata.csv").write_text(
        "\ufefffile_name,other,text\nd.mp4,1,below\n", encoding="utf-8"
    )
    (tmp_path / ".hidden.mp4").write_text("")
    (tmp_path / "notes.zip").write_text("")
    scan = scan_folder(tmp_path, CLIP)
    assert {file.name: file.caption for file in scan.kept} == {
        "a.mp4": "from jsonl",
        "b.mp4": "from sidecar",
        "x/d.mp4": "below",
    }
    assert reasons(scan).keys() == {"c.mp4", "x/e.mp4", "gone.mp4"}
    assert reasons(scan)["c.mp4"].startswith("no caption")
    assert "no such file" in reasons(scan)["gone.mp4"]
    assert scan.ignored == {".zip": 1}
    free = FolderDataset(tmp_path, CLIP, require_captions=False)
    assert free.captions() == ["from jsonl", "from sidecar", "", "below", ""]


def test_images_are_clips(tmp_path):
    for index in range(3):
        Image.new("RGB", (50, 40), (80 * index, 0, 0)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(f"image {index}")
    data = FolderDataset(tmp_path, CLIP)
    assert data.clips([0, 1, 2]).shape == (3, 3, 9, 24, 32)
    stills = FolderDataset(tmp_path, ClipConfig(frames=1, height=24, width=32), short_clips="error")
    assert [stills.clips([i])[0][0].float().mean().item() for i in range(3)] == pytest.approx(
        [80 * i for i in range(3)]
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "metadata.csv",
            "name,text\na.mp4,x\n",
            r"line 1: no 'file_name' among the columns found \('name', 'text'\); name one of them",
        ),
        ("metadata.csv", "file_name;words\na.mp4;x\n", r"line 1: no 'text' among.*'file_name', 'words'"),
        (
            "metadata.csv",
            "path,video,text\na,b,x\n",
            "line 1: 'path' and 'video' could each be the 'file_name'",
        ),
        ("metadata.csv", "file_name,text,text\na.mp4,x,y\n", "line 1: 'text' and 'text' could each be"),
        ("metadata.csv", "file_name,text\n,x\n", "line 2: no file name"),
        (
            "metadata.csv",
            "file_name,text\na.mp4,a red ball, moving left\n",
            "line 2: more fields than columns",
        ),
        ("metadata.jsonl", '{"file_name": "a.mp4", "text": "x"}\n{oops\n', "line 2: not JSON"),
        ("metadata.jsonl", '["a.mp4"]\n', "line 1: no 'file_name'"),
        ("metadata.jsonl", '{"file_name": "a.mp4", "words": "x"}\n', r"line 1: no 'text' among.*'words'"),
        ("metadata.jsonl", '\n{"file_name": "a.mp4", "text": ["x"]}\n', "line 2: the caption is a list"),
        (
            "metadata.jsonl",
            '{"file_name": "a.mp4", "text": {"en": "x"}}\n',
            "line 1: the caption is an object",
        ),
        ("metadata.jsonl", '{"file_name": "a.mp4", "text": 5}\n', "line 1: the caption is a number"),
        ("metadata.jsonl", '{"file_name": "a.mp4", "text": Infinity}\n', "line 1: the caption is a number"),
        ("metadata.jsonl", '{"file_name": "a.mp4", "text": false}\n', "line 1: the caption is a truth value"),
        ("metadata.jsonl", '{"file_name": 5, "text": "x"}\n', "line 1: no file name"),
    ],
)
def test_broken_metadata_is_named_by_line(tmp_path, ramp, name, text, message):
    ramp(tmp_path / "a.mp4", 9, 8)
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"{name}, {message}"):
        scan_folder(tmp_path, CLIP)


def test_captions_in_another_encoding_are_named(tmp_path, ramp):
    ramp(tmp_path / "a.mp4", 9, 8)
    (tmp_path / "a.txt").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(UserError, match=r"a.txt is not UTF-8"):
        scan_folder(tmp_path, CLIP)


def test_no_folder_no_videos_nothing_usable(tmp_path, ramp):
    with pytest.raises(UserError, match="is not a folder"):
        FolderDataset(tmp_path / "gone", CLIP)
    with pytest.raises(UserError, match=r"holds no video or image.*\.mp4"):
        FolderDataset(tmp_path, CLIP)
    ramp(tmp_path / "a.mp4", 9, 8)
    with pytest.raises(UserError, match=r"nothing usable.*a.mp4 \(no caption"):
        FolderDataset(tmp_path, CLIP)


def test_a_file_that_breaks_later_is_named(mixed_folder):
    data = FolderDataset(mixed_folder, CLIP)
    (mixed_folder / "a.mp4").write_bytes(b"gone bad")
    with pytest.raises(UserError, match=r"a.mp4: cannot be decoded.*minisora data check"):
        data.clips([0])


def test_fingerprint_changes_with_files_captions_and_clip(mixed_folder, ramp):
    def fingerprint(clip=CLIP):
        return FolderDataset(mixed_folder, clip).fingerprint()

    base = fingerprint()
    assert fingerprint() == base
    seen = {base, fingerprint(ClipConfig(frames=9, height=32, width=32, fps=8))}
    metadata = mixed_folder / "metadata.csv"
    metadata.write_text(metadata.read_text().replace("clip a", "clip A"))
    seen.add(fingerprint())
    ramp(mixed_folder / "a.mp4", 61, 30, 64, 96)
    seen.add(fingerprint())
    (mixed_folder / "h.mkv").unlink()
    seen.add(fingerprint())
    assert len(seen) == 5


def test_a_fingerprint_from_before_there_was_a_choice_holds(tmp_path, ramp):
    ramp(tmp_path / "a.mp4", 40, 8)
    data = FolderDataset(tmp_path, CLIP, require_captions=False)
    content = hashlib.sha256((tmp_path / "a.mp4").read_bytes()).hexdigest()
    rows = [["a.mp4", content, None, k * 9 / 8] for k in range(4)]
    facts = json.dumps([{"frames": 9, "height": 24, "width": 32, "fps": 8.0}, *rows])
    assert data.fingerprint() == hashlib.sha256(facts.encode()).hexdigest()[:32]
    others = [{"fit": "pad"}, {"fit": "squash"}, {"overlap": 0.5}, {"fit": "pad", "overlap": 0.5}]
    prints = {
        FolderDataset(tmp_path, CLIP, require_captions=False, **other).fingerprint() for other in others
    }
    assert len(prints | {data.fingerprint()}) == 5


def config(folder, **data):
    return Config(clip=CLIP, data=DataConfig(source="folder", path=folder, **data))


def test_splits_share_no_file_and_ten_clips_train(mixed_folder, caplog):
    with caplog.at_level(logging.WARNING):
        train = open_dataset(config(mixed_folder), "train")
        validation = open_dataset(config(mixed_folder), "validation")
    assert caplog.text.count("j_truncated.mp4") == 1
    assert len(validation) >= 1
    assert len(train) + len(validation) == train.report.num_clips
    assert train.fingerprint() != validation.fingerprint()
    assert open_dataset(config(mixed_folder), "train").fingerprint() == train.fingerprint()
    scan = train.report
    names = [{file.name for file in split_files(scan, split, 64)} for split in ("train", "validation")]
    assert not names[0] & names[1]
    assert len(open_dataset(config(mixed_folder, num_validation_clips=1), "validation")) == 1


def split_names(names, split, dropped=(), max_validation=64):
    files = [ScannedFile(name, "", dropped="too short" if name in dropped else None) for name in names]
    return [file.name for file in split_files(FolderScan("clips", tuple(files)), split, max_validation)]


def test_a_name_alone_decides_its_split():
    names = [f"{number:04d}.mp4" for number in range(2000)]
    few, validation = names[:500], set(split_names(names, "validation", max_validation=2000))
    assert len(validation) == pytest.approx(200, abs=40)
    assert validation | set(split_names(names, "train")) == set(names)
    # Further files, and files that another clip size drops, move none.
    assert set(split_names(few, "validation")) == validation & set(few)
    kept = set(names) - set(names[::3])
    assert set(split_names(names, "train", dropped=names[::3])) == kept - validation
    # What is beyond the most clips of validation is not trained on either.
    assert len(split_names(names, "validation", max_validation=7)) == 7
    assert split_names(names, "train", max_validation=7) == split_names(names, "train")


def test_of_a_few_files_each_split_has_one():
    names = sorted((f"{number}.mp4" for number in range(100)), key=name_fraction)
    held = [name for name in names if name_fraction(name) < VALIDATION_SHARE]
    none, all_ = names[len(held) : len(held) + 3], held[:3]
    assert split_names(none, "validation") == none[:1]
    assert split_names(none, "train") == none[1:]
    assert split_names(all_, "validation") == all_[:2]
    assert split_names(all_, "train") == all_[2:]


def test_sizes_that_keep_other_files_train_on_no_file_of_validation(tmp_path, ramp):
    names = [f"{number}.mp4" for number in range(12)]
    for number, name in enumerate(names):
        ramp(tmp_path / name, 9 if number % 2 else 17, 8, 32, 32)
    (tmp_path / "metadata.csv").write_text("file_name,text\n" + "".join(f"{n},grey\n" for n in names))
    splits = {}
    for frames in (9, 17):
        scan = scan_folder(tmp_path, ClipConfig(frames=frames, height=32, width=32, fps=8), "skip")
        for split in ("train", "validation"):
            splits[frames, split] = {file.name for file in split_files(scan, split, 64)}
    assert splits[9, "validation"] > splits[17, "validation"]
    assert splits[17, "validation"]
    for frames in (9, 17):
        assert not splits[frames, "train"] & (splits[9, "validation"] | splits[17, "validation"])


def test_an_empty_text_takes_no_caption_away(tmp_path, ramp):
    ramp(tmp_path / "x" / "a.mp4", 9, 8)
    (tmp_path / "metadata.csv").write_text("file_name,text\nx/a.mp4,above\n")
    (tmp_path / "x" / "metadata.csv").write_text("file_name,text\na.mp4,\n")
    assert FolderDataset(tmp_path, CLIP).captions() == ["above"]
    (tmp_path / "x" / "metadata.csv").write_text("file_name,text\na.mp4,below\na.mp4,\n")
    assert FolderDataset(tmp_path, CLIP).captions() == ["below"]


def test_a_single_clip_is_both_splits(tmp_path, ramp):
    ramp(tmp_path / "a.mp4", 9, 8)
    (tmp_path / "a.txt").write_text("the only one")
    for split in ("train", "validation"):
        assert open_dataset(config(tmp_path), split).captions() == ["the only one"]


def test_the_shapes_source():
    own = Config(seed=5, clip=CLIP, data=DataConfig(num_clips=20, num_validation_clips=4))
    train, validation = open_dataset(own, "train"), open_dataset(own, "validation")
    assert (len(train), len(validation)) == (20, 4)
    world = ShapesWorld(20, 5, 9, 24, 32, 8.0)
    assert torch.equal(train.clips([3])[0], world.clips([3])[0])
    assert not torch.equal(train.clips([3])[0], validation.clips([3])[0])


def test_the_first_clips_of_a_spread_set_are_a_sample_of_all_files(tmp_path, ramp):
    """The VAE's clips, their statistics and the validation clips are each the beginning of a set."""
    names = [f"{letter}.mp4" for letter in "abcdef"]
    for name in names:
        ramp(tmp_path / name, 40, 8)
    plain = FolderDataset(tmp_path, CLIP, require_captions=False)
    spread = FolderDataset(tmp_path, CLIP, require_captions=False, spread=True)
    assert len(plain) == len(spread) == 24
    assert plain.names()[:4] == ["a.mp4"] * 4
    for first in range(0, 24, 6):
        assert sorted(spread.names()[first : first + 6]) == names
    assert spread.names()[:6] != names  # sorted names are often sorted classes
    capped = FolderDataset(tmp_path, CLIP, require_captions=False, spread=True, max_clips=6)
    assert torch.equal(capped.clips(range(6)), spread.clips(range(6)))
    # The first clip of its file: a ramp grows brighter.
    assert capped.clips([0])[0].float().mean() < plain.clips([1])[0].float().mean()
    train = open_dataset(
        Config(data=DataConfig(source="folder", path=tmp_path, require_captions=False), clip=CLIP), "train"
    )
    assert len(set(train.names()[:4])) == 4


def test_a_link_to_nowhere_is_a_file_that_is_not_there(tmp_path, ramp):
    ramp(tmp_path / "a.mp4", 16, 8)
    (tmp_path / "b.mp4").symlink_to(tmp_path / "gone.mp4")
    scan = scan_folder(tmp_path, CLIP, "pad", require_captions=False)
    assert reasons(scan) == {"b.mp4": "no such file"}
    assert [file.name for file in scan.kept] == ["a.mp4"]


def test_a_file_is_looked_at_anew_when_it_has_changed(tmp_path, ramp):
    file = ramp(tmp_path / "a.mp4", 16, 8)
    assert probe(file).frames == 16
    before = FolderDataset(tmp_path, CLIP, require_captions=False).fingerprint()
    ramp(file, 24, 8)
    assert probe(file).frames == 24
    assert FolderDataset(tmp_path, CLIP, require_captions=False).fingerprint() != before


def read(folder, table, name="metadata.csv"):
    """Captions of the files a.mp4, b.mp4, ... in a folder by a table."""
    (folder / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    scan = scan_folder(folder, CLIP, verify=False)
    return {file.name: file.caption for file in scan.files if file.dropped != NO_CAPTION}, scan


@pytest.fixture
def two(tmp_path, ramp):
    ramp(tmp_path / "a.mp4", 9, 8)
    ramp(tmp_path / "b.mp4", 10, 8)
    return tmp_path


@pytest.mark.parametrize(
    "table",
    [
        "file_name, text\na.mp4, one\nb.mp4 , two\n",
        "file_name;text\na.mp4;one\nb.mp4;two\n",
        "\ufefffile_name\ttext\r\na.mp4\tone\r\nb.mp4\ttwo\r\n",
        "video,caption\na.mp4,one\nb.mp4,two\n",
        " Path ;id; Prompt \na.mp4;1;one\nb.mp4;2;two",
        ",File Name,Description\n0,a.mp4,one\n1,b.mp4,two\n",
        "text,file_name,caption\none,a.mp4,other\ntwo,b.mp4,other\n",
        "file_name,text\n,\na.mp4,one,,\n\n , \nb.mp4,two\n,\n,,\n",
        ".\\a.mp4,one\n".join(["file_name,text\n", "./x/../b.mp4,two\n"]),
        '"file_name","text"\n"a.mp4","one"\n"b.mp4","two\n"\n',
        "{folder}",
    ],
)
def test_tables_as_people_have_them(two, table):
    if table == "{folder}":
        table = f"file_name,text\n{two}/a.mp4,one\n{two}/x/../b.mp4,two\n"
    assert read(two, table)[0] == {"a.mp4": "one", "b.mp4": "two"}


def test_an_absolute_path_elsewhere_is_not_there(two, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "a.mp4"
    other.write_bytes((two / "a.mp4").read_bytes())
    captions, scan = read(two, f"file_name,text\n{other},one\na.mp4,own\n")
    assert captions == {"a.mp4": "own", str(other): "one"}
    assert reasons(scan)[str(other)] == "named in the metadata, but there is no such file"


def test_a_name_that_holds_a_backslash_or_blanks_is_found_first(two):
    (two / "a.mp4").rename(two / "x\\a.mp4")
    (two / "b.mp4").rename(two / " b.mp4")
    assert read(two, 'file_name,text\nx\\a.mp4,one\n" b.mp4",two\n')[0] == {
        "x\\a.mp4": "one",
        " b.mp4": "two",
    }


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            'a.mp4,"slow, then fast\nb.mp4,up\nc.mp4,down\n',
            "line 2: a quotation mark is opened and never closed",
        ),
        ('a.mp4,one\nb.mp4,"', "line 3: a quotation mark is opened and never closed"),
        (
            'a.mp4,5" tall\nb.mp4,"slow\nc.mp4,up\nd.mp4,"down\n',
            "line 3: .*swallows the row of c.mp4 on line 4",
        ),
        ('a.mp4,"slow\nB.MOV , "up\n', "line 2: .*swallows the row of B.MOV on line 3"),
    ],
)
def test_a_lone_quotation_mark_is_named(two, table, message):
    with pytest.raises(UserError, match=f"metadata.csv, {message}"):
        read(two, "file_name,text\n" + table)


def test_a_lone_quotation_mark_before_the_name_column(two):
    with pytest.raises(UserError, match=r"line 2: .*swallows the row of b.mp4 on line 3"):
        read(two, 'text,file_name\n"slow,a.mp4\nup,b.mp4\n"down,c.mp4\n')


def test_captions_of_several_lines_with_quotation_marks_are_read(two):
    table = 'file_name,text\na.mp4,"says ""hi"",\nthen, a.mp4 starts\n\nlate"\nb.mp4,a 5" screen\n'
    assert read(two, table)[0] == {"a.mp4": 'says "hi", then, a.mp4 starts late', "b.mp4": 'a 5" screen'}


def test_what_is_no_caption_is_never_the_word_nan(two):
    for word in ("nan", "NaN", "null", "None", "<NA>"):
        assert read(two, f"file_name,text\na.mp4,{word}\nb.mp4,two\n")[0] == {"b.mp4": "two"}
    (two / "metadata.csv").unlink()
    (two / "b.txt").write_text("nan\n")
    table = '{"file_name": "a.mp4", "text": NaN}\n{"video": "b.mp4", "prompt": null}\n'
    assert read(two, table, "metadata.jsonl")[0] == {}


def test_of_several_rows_the_last_is_used_and_that_is_said(two, caplog):
    captions, scan = read(
        two, "file_name,text\na.mp4,first\nb.mp4,same\n./a.mp4,second\nb.mp4,same\na.mp4,\n"
    )
    assert captions == {"a.mp4": "second", "b.mp4": "same"}
    assert scan.notes == ("a.mp4: 3 rows in the metadata, the last one with a text is used: 'second'",)
    assert scan.notes[0] in scan.summary()
    open_dataset(config(two), "train")
    assert scan.notes[0] in caplog.text


@pytest.mark.parametrize(("disk", "table"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_match_composed_or_not(tmp_path, ramp, disk, table):
    on_disk, named = (unicodedata.normalize(form, "é/ü.mp4") for form in (disk, table))
    ramp(tmp_path / on_disk, 9, 8)
    assert read(tmp_path, f"file_name,text\n{named},one\n")[0] == {on_disk: "one"}
    assert read(tmp_path, f"file_name,text\n{tmp_path}/{named},one\n")[0] == {on_disk: "one"}
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / on_disk).with_name(unicodedata.normalize(table, "ü.txt")).write_text("beside")
    assert [file.caption for file in scan_folder(tmp_path, CLIP).files] == ["beside"]


def test_both_forms_of_an_accent_on_disk_are_two_files(tmp_path, ramp):
    composed, decomposed = (unicodedata.normalize(form, "é.mp4") for form in ("NFC", "NFD"))
    ramp(tmp_path / composed, 9, 8)
    ramp(tmp_path / decomposed, 9, 8)
    want = {composed: "one", decomposed: "two"}
    assert read(tmp_path, f"file_name,text\n{decomposed},two\n{composed},one\n")[0] == want


def test_linked_folders_are_followed_once(tmp_path, ramp):
    folder, far = tmp_path / "clips", tmp_path / "far"
    for file in (folder / "z" / "a.mp4", far / "b.mp4", far / "deep" / "c.mp4"):
        ramp(file, 9, 8)
    (far / "metadata.csv").write_text("file_name,text\nb.mp4,b\n")
    links = {"a_z": folder / "z", "far": far, "far2": far, "up": tmp_path, "gone": tmp_path / "gone"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "z" / "loop").symlink_to("..")
    (far / "back").symlink_to(folder)
    (far / "deep" / "self").symlink_to(".")
    scan = scan_folder(folder, CLIP, require_captions=False)
    assert {file.name: file.caption for file in scan.files} == {
        "z/a.mp4": None,
        "far/b.mp4": "b",
        "far/deep/c.mp4": None,
    }
    assert sorted(scan.notes) == [
        "a_z: a link to the folder z, whose files are used once",
        "far/back: a link to a folder that holds it, not followed",
        "far/deep/self: a link to a folder that holds it, not followed",
        "far2: a link to the folder far, whose files are used once",
        "gone: a link to nothing",
        "up: a link to a folder that holds it, not followed",
        "z/loop: a link to a folder that holds it, not followed",
    ]


def bytes_name(folder, name):
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name))


def test_names_that_are_not_utf8(two):
    for file in ("a.mp4", "b.mp4"):
        (two / file).rename(bytes_name(two, file[:1].encode() + b"\xe9.mp4"))
    want = {"a\udce9.mp4": "one", "b\udce9.mp4": "two"}
    assert read(two, b"file_name,text\na\xe9.mp4,one\nb\xe9.mp4,two\n")[0] == want
    write_metadata(two / "metadata.csv", ("file_name", "text"), want.items())
    assert (two / "metadata.csv").read_bytes() == b"file_name,text\na\xe9.mp4,one\nb\xe9.mp4,two\n"
    assert {row.file_name: row.text for row in read_metadata(two / "metadata.csv")} == want
    (two / "metadata.csv").unlink()
    rows = "".join(json.dumps({"file_name": name, "text": text}) + "\n" for name, text in want.items())
    assert read(two, rows, "metadata.jsonl")[0] == want
    data = open_dataset(config(two), "train")
    assert len(data.fingerprint()) == 32
    assert data.clips([0]).shape == (1, 3, 9, 24, 32)


@pytest.mark.parametrize(
    "table",
    [
        b"file_name,text\na.mp4,caf\xe9\n",
        b"file_name,text\ncaf\xe9.mp4,one\n",
        "file_name,text\na.mp4,one\n".encode("utf-16"),
        b"file_name,t\xe9xt\na.mp4,one\n",
    ],
)
def test_a_table_in_another_encoding_is_named(two, table):
    with pytest.raises(UserError, match=r"metadata.csv is not UTF-8 text \(line [12]\); save it as UTF-8"):
        read(two, table)


def test_half_a_character_in_json_is_no_text(two):
    with pytest.raises(UserError, match=r"metadata.jsonl is not UTF-8 text \(line 1\)"):
        read(two, '{"file_name": "a.mp4", "text": "\\ud83d"}\n', "metadata.jsonl")


def test_a_file_with_rare_key_frames_is_decoded_once_for_all_its_clips(tmp_path, ramp, monkeypatch):
    ramp(tmp_path / "x.mp4", 96, 1)
    clip = ClipConfig(frames=5, height=24, width=32, fps=0.5)
    scan = scan_folder(tmp_path, clip, require_captions=False)
    order = [7, 2, 8, 0, 1, 3, 4, 5, 6]
    with monkeypatch.context() as without:
        without.setattr("minisora.data.folder.folder_dataset.AHEAD_BYTES", 0)
        alone = FolderDataset(tmp_path, clip, scan=scan).clips(order)
    assert len(alone) == 9
    started = []

    def counted(path, start=0.0):
        started.append(start)
        return decode(path, start)

    monkeypatch.setattr("minisora.data.video.read_video.decode", counted)
    monkeypatch.setattr("minisora.data.folder.folder_dataset.costly_seeks", lambda file, clip: True)
    clips = FolderDataset(tmp_path, clip, scan=scan).clips(order)
    assert started == [0.0]
    # Clips 6 to 8 and none before fit when 6 is asked for first; what does not fit is read as ever.
    monkeypatch.setattr("minisora.data.folder.folder_dataset.AHEAD_BYTES", 4 * clips[0].numel())
    few = FolderDataset(tmp_path, clip, scan=scan)
    assert torch.equal(few.clips([6]), alone[-1:])
    assert torch.equal(few.clips(order), alone)
    assert torch.equal(clips, alone)


def test_damage_further_on_does_not_stop_the_clips_before_it(tmp_path, ramp, monkeypatch):
    ramp(tmp_path / "x.mp4", 60, 8)
    clip = ClipConfig(frames=9, height=24, width=32, fps=8)
    scan = scan_folder(tmp_path, clip, require_captions=False)
    monkeypatch.setattr("minisora.data.folder.folder_dataset.costly_seeks", lambda file, clip: True)

    def broken(path, start=0.0):
        for shown in decode(path, start):
            if shown.time > 4:
                raise av.error.InvalidDataError(1, "invalid data")
            yield shown

    monkeypatch.setattr("minisora.data.video.read_video.decode", broken)
    data = FolderDataset(tmp_path, clip, scan=scan)
    assert data.clips([1, 0, 2]).shape[0] == 3
    with pytest.raises(UserError, match="x.mp4: cannot be decoded"):
        data.clips([5])


def test_a_picture_of_another_shape_is_fitted_as_the_config_says(tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (30, 60), (255, 255, 255)).save(tmp_path / f"{name}.png")
    for fit, light in (("crop", 1.0), ("pad", 12 / 32), ("squash", 1.0)):
        for split in ("train", "validation"):
            data = open_dataset(config(tmp_path, fit=fit, require_captions=False), split)
            assert (data.clips([0]) == 255).float().mean().item() == light


@pytest.mark.parametrize(("overlap", "step"), [(0.5, 4), (0.75, 2), (0.95, 1), (0.01, 9)])
def test_overlapping_clips_start_so_often_in_training_and_validation_is_as_ever(
    tmp_path, ramp, overlap, step
):
    for name in "abcd":
        ramp(tmp_path / f"{name}.mp4", 30, 8)
    plain, more = (config(tmp_path, overlap=share, require_captions=False) for share in (0.0, overlap))
    train, validation = (open_dataset(more, split) for split in ("train", "validation"))
    assert len(open_dataset(plain, "train")) == 3 * 3
    assert len(train) == 3 * (21 // step + 1)
    assert validation.fingerprint() == open_dataset(plain, "validation").fingerprint()
    assert not set(train.names()) & set(validation.names())
    # Brightness tells the time: the second clips of all files come after the first ones.
    clips = train.clips([0, 2, 3, 5]).float()[:, 0, :, 0, 0]
    shift = (clips[2:] - clips[:2]).mean().item()
    assert shift == pytest.approx(100 * step / 8, abs=1.5)


def test_overlapping_clips_of_a_file_with_rare_key_frames_are_read_in_one_pass(tmp_path, ramp, monkeypatch):
    ramp(tmp_path / "x.mp4", 60, 8)
    scan = scan_folder(tmp_path, CLIP, require_captions=False, overlap=0.5)
    alone = FolderDataset(tmp_path, CLIP, scan=scan, overlap=0.5).clips(range(13))
    started = []

    def counted(path, start=0.0):
        started.append(start)
        return decode(path, start)

    monkeypatch.setattr("minisora.data.video.read_video.decode", counted)
    monkeypatch.setattr("minisora.data.folder.folder_dataset.costly_seeks", lambda file, clip: True)
    data = FolderDataset(tmp_path, CLIP, scan=scan, overlap=0.5)
    assert torch.equal(data.clips(range(13)), alone)
    assert started == [0.0]


def test_what_is_shorter_than_two_steps_gives_one_clip(tmp_path, ramp):
    ramp(tmp_path / "short.mp4", 3, 8)
    ramp(tmp_path / "just.mp4", 12, 8)
    Image.new("RGB", (30, 60)).save(tmp_path / "still.png")
    scan = scan_folder(tmp_path, CLIP, require_captions=False, overlap=0.5)
    assert [file.overlapping for file in scan.files] == [(0.0,)] * 3


def test_by_shape_a_file_gives_clips_of_the_nearest_size_only(tmp_path, ramp):
    for number in range(3):
        ramp(tmp_path / f"wide{number}.mp4", 9, 8, 24, 48)
        ramp(tmp_path / f"tall{number}.mp4", 9, 8, 48, 24)
    sizes = (
        BucketConfig(frames=9, height=32, width=24),
        BucketConfig(frames=5, height=24, width=32),
        BucketConfig(frames=9, height=96, width=8),
    )
    for by_shape, count in ((True, 2), (False, 5)):
        whole = config(tmp_path, buckets=sizes[:2], buckets_by_shape=by_shape, require_captions=False)
        parts = [open_dataset(part, "train") for part in (whole, *bucket_configs(whole))]
        assert [part.clips([0]).shape[2:] for part in parts] == [(9, 24, 32), (9, 32, 24), (5, 24, 32)]
        # Sizes of one shape share their files.
        assert [len(part) for part in parts] == [count] * 3
    assert {name[:4] for name in open_dataset(bucket_configs(whole)[0], "train").names()} == {"wide", "tall"}
    thin = config(tmp_path, buckets=sizes, buckets_by_shape=True, require_captions=False)
    with pytest.raises(UserError, match="is nearest in shape to 96x8: leave that size out"):
        open_dataset(bucket_configs(thin)[2], "train")


def test_a_scan_looks_at_a_few_files_at_a_time_and_counts_them_all(mixed_folder, monkeypatch):
    whole = scan_folder(mixed_folder, CLIP)
    waiting: list[int] = []
    counts: list[tuple[int, int]] = []

    class Pool(ThreadPoolExecutor):
        def map(self, look, names):
            waiting.append(len(names))
            return super().map(look, names)

    monkeypatch.setattr(scanning, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(scanning, "_AT_ONCE", 4)
    few = scan_folder(mixed_folder, CLIP, progress=lambda *count: counts.append(count))
    assert few.files == whole.files
    assert waiting == [4, 4, 2]
    assert counts == [(done, 10) for done in range(1, 11)]
