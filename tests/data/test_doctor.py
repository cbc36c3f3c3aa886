import json
import os
import shutil
from pathlib import Path

from rich.console import Console

from minisora.config import ClipConfig, Config, DataConfig
from minisora.data.doctor import check
from minisora.data.folder import FolderDataset
from minisora.data.make import make_shapes

CLIP = ClipConfig(frames=9, height=24, width=32, fps=8)


def told(report):
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    report.print(console)
    return console.export_text()


def test_the_doctor_names_what_is_wrong(mixed_folder):
    shutil.copy(mixed_folder / "a.mp4", mixed_folder / "twin.mp4")
    (mixed_folder / "twin.txt").write_text("the same [bold]again")
    (mixed_folder / "silent.mp4").write_bytes((mixed_folder / "h.mkv").read_bytes())
    steps = []
    report = check(mixed_folder, Config(clip=CLIP), lambda *step: steps.append(step))
    assert report.unreadable == ["j_truncated.mp4"]
    assert report.without_caption == ["silent.mp4"]
    assert report.too_short == ["c_three_frames.mp4"]
    assert report.duplicates == [["a.mp4", "twin.mp4"]]
    assert report.sizes["48x64"] == 6
    assert report.sizes["96x54"] == 1
    assert report.rates["25"] == 4
    assert report.lengths[0] == 3
    assert steps[-1] == (12, 12)
    assert report.usable == len(FolderDataset(mixed_folder, CLIP))
    text = told(report)
    for part in (
        "j_truncated.mp4: cannot be decoded",
        "silent.mp4: no caption",
        "c_three_frames.mp4: last frame",
    ):
        assert part in text
    assert f"usable: {report.usable} clips" in text
    assert "a.mp4 = twin.mp4" in text
    facts = json.loads(json.dumps(report.to_dict()))
    assert facts["usable"] == report.usable
    assert facts["dropped"].keys() == {"j_truncated.mp4", "silent.mp4"}
    assert len(facts["validation"]) == 1


def test_what_a_config_keeps_depends_on_it(mixed_folder):
    assert (
        "c_three_frames.mp4"
        in check(mixed_folder, Config(clip=CLIP, data=DataConfig(short_clips="skip"))).to_dict()["dropped"]
    )
    stopped = check(mixed_folder, Config(clip=CLIP, data=DataConfig(short_clips="error")))
    assert stopped.usable == 0
    assert "short_clips is 'error'" in told(stopped)


def test_nothing_usable_is_said(tmp_path, ramp):
    ramp(tmp_path / "a.mp4", 9, 8)
    report = check(tmp_path, Config(clip=CLIP))
    assert report.usable == 0
    assert "nothing usable" in told(report)
    assert report.to_dict()["validation"] == []


def test_a_made_set_is_healthy(tmp_path):
    make_shapes(tmp_path / "set", 5, 0, ClipConfig(), progress=False)
    report = check(tmp_path / "set", Config())
    assert report.usable == 5
    assert not report.scan.dropped
    assert report.sizes == {"64x64": 5}
    assert report.rates == {"8": 5}


def test_names_and_captions_are_never_markup(tmp_path, ramp):
    folder = tmp_path / "clips [red]x[" / "b] :dog:"
    for name in ("a[bold].mp4", "b[", "c\x1b[31m.mp4"):
        ramp(folder / "x.mp4", 9, 8)
        (folder / "x.mp4").rename(folder / name if name.endswith("mp4") else folder / f"{name}.[z]")
    Path(os.fsdecode(os.fsencode(folder) + b"/d\xe9.mp4")).write_bytes(b"no video")
    (folder / "metadata.csv").write_text("file_name,text\na[bold].mp4,[/x]\na[bold].mp4,:dog: [/y]\n")
    report = check(folder, Config(clip=CLIP))
    text = told(report)
    assert f"folder       {folder}" in text
    assert ".[z] (1)" in text
    assert "a[bold].mp4: 2 rows in the metadata, the last one with a text is used: ':dog: [/y]'" in text
    assert r"c\x1b[31m.mp4: no caption" in text
    assert r"d\udce9.mp4: " in text
    facts = json.loads(json.dumps(report.to_dict()))
    assert facts["dropped"].keys() == {"c\x1b[31m.mp4", "d\udce9.mp4"}
    assert facts["notes"] == list(report.scan.notes)
