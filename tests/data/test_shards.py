"""A tar file of clips is read where it lies: the same clips as from the folder, and a broken one in one line."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from minisora.config import BucketConfig, ClipConfig, Config, DataConfig
from minisora.data import dataset
from minisora.data.dataset import open_dataset
from minisora.data.folder.pack import pack_folder
from minisora.data.folder.record import DataRecord
from minisora.data.folder.scan import scan_folder
from minisora.data.shards import exists, members, open_file
from minisora.errors import UserError

CLIP = ClipConfig(frames=5, height=16, width=16, fps=8)


def config(folder: Path) -> Config:
    return Config(clip=CLIP, data=DataConfig(source="folder", path=folder, num_validation_clips=2))


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 10, 10)).save(file, "png")
    return file.getvalue()


def write_tar(path: Path, *items: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for item in items:
            if isinstance(item, tarfile.TarInfo):
                tar.addfile(item)
                continue
            about = tarfile.TarInfo(item[0])
            about.size = len(item[1])
            tar.addfile(about, io.BytesIO(item[1]))
    return path


@pytest.fixture
def shards(mixed_folder: Path, tmp_path: Path) -> Path:
    pack_folder(scan_folder(mixed_folder, CLIP), tmp_path / "shards", 40_960)
    return tmp_path / "shards"


def test_shards_give_the_clips_captions_and_fingerprint_of_the_folder(
    mixed_folder: Path, shards: Path
) -> None:
    (mixed_folder / "j_truncated.mp4").unlink()
    assert len(list(shards.iterdir())) > 1
    for split in ("train", "validation"):
        loose, packed = (open_dataset(config(place), split) for place in (mixed_folder, shards))
        assert packed.names() == loose.names()
        assert packed.captions() == loose.captions()
        assert torch.equal(packed.clips(range(len(loose))), loose.clips(range(len(loose))))
        assert packed.fingerprint() == loose.fingerprint()


def test_by_shape_clips_from_shards_go_to_the_nearest_size(tmp_path: Path, ramp: Callable[..., Path]) -> None:
    for number in range(3):
        ramp(tmp_path / "loose" / f"wide{number}.mp4", 9, 8, 24, 48)
        ramp(tmp_path / "loose" / f"tall{number}.mp4", 9, 8, 48, 24)
    pack_folder(scan_folder(tmp_path / "loose", CLIP, require_captions=False), tmp_path / "shards", 40_960)
    tall = BucketConfig(frames=9, height=32, width=24)
    by_shape = {"data.buckets": (tall,), "data.buckets_by_shape": True, "data.require_captions": False}
    loose, packed = (
        open_dataset(config(tmp_path / place).replace(**by_shape), "train") for place in ("loose", "shards")
    )
    assert packed.names() == loose.names()
    assert torch.equal(packed.clips(range(len(packed))), loose.clips(range(len(loose))))


def test_a_stage_begun_on_a_folder_goes_on_from_its_shards(
    mixed_folder: Path, shards: Path, tmp_path: Path
) -> None:
    (mixed_folder / "j_truncated.mp4").unlink()
    record = DataRecord(tmp_path / "stage")
    begun = open_dataset(config(mixed_folder), "train", record)
    begun.fingerprint()
    record.keep()
    later = open_dataset(config(shards), "train", DataRecord(tmp_path / "stage", begun=True))
    assert later.fingerprint() == begun.fingerprint()
    assert torch.equal(later.clips([3]), begun.clips([3]))


def test_packing_again_writes_nothing_and_what_is_missing_is_the_same_bytes(
    mixed_folder: Path, shards: Path
) -> None:
    scan = scan_folder(mixed_folder, CLIP)
    first, *rest = sorted(shards.iterdir())
    content, times = first.read_bytes(), [file.stat().st_mtime_ns for file in rest]
    assert all(file.stat().st_size <= 40_960 for file in rest if len(members(file)) > 2)
    # As if a packing had been stopped, and a shard were cut off.
    first.write_bytes(content[:-6_000])
    counts: list[tuple[int, int]] = []
    pack_folder(scan, shards, 40_960, lambda *count: counts.append(count))
    assert first.read_bytes() == content
    assert [file.stat().st_mtime_ns for file in rest] == times
    assert counts[-1] == (len(scan.kept), len(scan.kept))
    assert counts == sorted(set(counts))


def test_packing_refuses_a_folder_with_other_files(mixed_folder: Path, shards: Path) -> None:
    with pytest.raises(UserError, match=r"already holds 'shard-0000\d\.tar'"):
        pack_folder(scan_folder(mixed_folder, CLIP), shards, 10**9)


def test_shards_are_packed_anew_in_another_size_but_not_over_themselves(shards: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in shards.iterdir()}
    scan = scan_folder(shards, CLIP)
    with pytest.raises(UserError, match="would be written over"):
        pack_folder(scan, shards, 10**9)
    assert {file.name: file.read_bytes() for file in shards.iterdir()} == before
    (one,) = pack_folder(scan, tmp_path / "one", 10**9)
    assert set(members(one)) == {name for file in shards.iterdir() for name in members(file)}
    larger, smaller = (open_dataset(config(place), "train") for place in (one.parent, shards))
    assert larger.fingerprint() == smaller.fingerprint()


def test_clips_of_one_key_are_packed_if_their_caption_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for suffix in ("png", "bmp"):
        Image.new("RGB", (16, 16)).save(folder / f"a.{suffix}")
    (folder / "a.txt").write_text("black")
    (shard,) = pack_folder(scan_folder(folder, CLIP), tmp_path / "shards", 10**6)
    assert list(members(shard)) == ["a.bmp", "a.png", "a.txt"]
    (folder / "metadata.csv").write_text("file_name,text\na.png,dark\n")
    with pytest.raises(UserError, match=r"'a\.bmp' and 'a\.png' would share 'a\.txt'"):
        pack_folder(scan_folder(folder, CLIP), tmp_path / "others", 10**6)


def test_captions_are_read_from_text_else_from_json(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "shards" / "a.tar",
        ("./1.png", picture()),
        ("1.txt", b"one\n"),
        ("1.json", b'{"text": "no"}'),
        ("2.png", picture()),
        ("2.json", json.dumps({"caption": "zwei ä", "duration": 3}).encode()),
        ("3.png", picture()),
        ("3.json", b"[1]"),
        ("._1.png", b"of a Mac"),
        ("notes.pdf", b"?"),
    )
    scan = scan_folder(tmp_path / "shards", CLIP)
    assert {file.name: file.caption for file in scan.files} == {
        "1.png": "one",
        "2.png": "zwei ä",
        "3.png": None,
    }
    assert [file.name for file in scan.dropped] == ["3.png"]
    assert scan.ignored == {".pdf": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": 3}', "a number, not a text"),
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 10**5, "nested"),
    ],
)
def test_a_broken_caption_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", ("1.png", picture()), ("1.json", content))
    with pytest.raises(UserError, match=rf"a\.tar.1\.json.*{said}"):
        scan_folder(tmp_path, CLIP)


def test_a_table_beside_the_shards_captions_their_clips(tmp_path: Path) -> None:
    write_tar(tmp_path / "sub" / "a.tar", ("1.png", picture()))
    (tmp_path / "metadata.csv").write_text("file_name,text\nsub/1.png,red\n")
    (file,) = scan_folder(tmp_path, CLIP).kept
    assert (file.name, file.caption) == ("sub/1.png", "red")


def test_shards_beside_loose_videos_are_left_alone_and_named(mixed_folder: Path) -> None:
    before = scan_folder(mixed_folder, CLIP)
    write_tar(mixed_folder / "a.tar", ("1.png", picture()))
    after = scan_folder(mixed_folder, CLIP)
    assert after.files == before.files
    assert after.notes == ("a.tar: not read, as videos lie beside it",)
    assert after.ignored == {".tar": 1}


def link(kind: bytes) -> tarfile.TarInfo:
    about = tarfile.TarInfo("1.mp4")
    about.type, about.linkname = kind, "/etc/passwd"
    return about


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([("/1.png", b"x")], "leads out"),
        ([("a/../../1.png", b"x")], "leads out"),
        ([("1.png", b"x"), ("./1.png", b"y")], r"two members are named '1\.png'"),
        ([link(tarfile.SYMTYPE)], "is a link"),
        ([link(tarfile.LNKTYPE)], "is a link"),
        ([link(tarfile.CHRTYPE)], "is a device"),
        ([link(tarfile.FIFOTYPE)], "is a pipe"),
        ([link(tarfile.GNUTYPE_SPARSE)], "with holes"),
    ],
)
def test_what_has_no_place_in_a_shard_is_refused(items: list, said: str, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", *items)
    with pytest.raises(UserError, match=rf"s\.tar.*{said}") as error:
        scan_folder(tmp_path, CLIP)
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == [shard.name]


@pytest.mark.parametrize("size", [0, 100, 511, 513, 700, 1024, 1500, 2048, 2560])
def test_a_shard_that_is_cut_off_anywhere_is_refused(size: int, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", ("1.png", b"x" * 500), ("2.png", b"y" * 900))
    shard.write_bytes(shard.read_bytes()[:size])
    with pytest.raises(UserError, match=r"s\.tar: (cut off|not a tar)"):
        members(shard)


def test_a_shard_with_a_spoiled_header_is_refused(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", ("1.png", b"x" * 500), ("2.png", b"y" * 900))
    content = bytearray(shard.read_bytes())
    content[1024:1034] = b"zzzzzzzzzz"
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged after 1024 bytes"):
        members(shard)


@pytest.mark.parametrize("content", [b"no tar" * 1000, b"\x1f\x8b\x08" + bytes(2000), bytes(100)])
def test_what_is_no_tar_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"s\.tar: not a tar file|s\.tar: cut off"):
        scan_folder(tmp_path, CLIP)


def test_two_shards_with_a_clip_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        write_tar(tmp_path / f"{name}.tar", ("1.png", picture()))
    with pytest.raises(UserError, match=r"'1\.png' is in a\.tar and in b\.tar"):
        scan_folder(tmp_path, CLIP)


def test_a_damaged_member_is_named_and_left_out(
    tmp_path: Path,
    noise_clips: Callable[[Sequence[str]], Path],
    damage: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = noise_clips([f"clip {number}" for number in range(6)])
    damage(folder / "3.mp4")
    (folder / "4.mp4").write_bytes(b"no video")
    # A shard holds what it was given; only a packing by minisora looks at it first.
    write_tar(
        tmp_path / "shards" / "a.tar",
        *((file.name, file.read_bytes()) for file in sorted(folder.iterdir())),
    )
    scan = scan_folder(tmp_path / "shards", CLIP)
    assert {file.name for file in scan.dropped} == {"3.mp4", "4.mp4"}
    unseen = scan_folder(tmp_path / "shards", CLIP, verify=False)
    assert {file.name for file in unseen.dropped} == {"4.mp4"}
    # A scan of a large set does not see the other one: found when it is read, another clip stands in.
    monkeypatch.setattr(dataset, "scan_folder", partial(scan_folder, verify=False))
    found = {}
    for place in (folder, tmp_path / "shards"):
        record = DataRecord(tmp_path / f"stage of {place.name}")
        data = open_dataset(config(place), "train", record)
        found[place.name] = data.clips(range(len(data))), data.captions_of(range(len(data))), record.damaged
    for loose, packed in zip(found["clips"], found["shards"], strict=True):
        assert torch.equal(packed, loose) if isinstance(packed, torch.Tensor) else packed == loose
    assert list(found["shards"][2]) == ["3.mp4"]


def test_a_member_reads_like_a_file(tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "s.tar", ("0.txt", b"before"), ("a/1.txt", bytes(range(200))), ("2.txt", b"after")
    )
    assert exists(shard / "a" / "1.txt")
    assert not exists(shard / "1.txt")
    with open_file(shard / "a" / "1.txt") as file:
        assert file.read() == bytes(range(200))
        assert file.read() == b""
        file.seek(-3, io.SEEK_END)
        assert file.read(10) == bytes([197, 198, 199])
        file.seek(300)
        assert file.read() == b""
        assert file.seek(5) == file.tell() == 5
    with pytest.raises(NotADirectoryError):
        open_file(shard / "b.txt")
