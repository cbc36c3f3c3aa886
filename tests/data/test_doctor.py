import json
import shutil

from rich.console import Console

from minisora.config import ClipConfig, Config, DataConfig, TextConfig
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


def test_captions_that_are_cut_are_said(tmp_path, ramp):
    for name in ("a", "b", "c"):
        ramp(tmp_path / f"{name}.mp4", 9, 8)
        (tmp_path / f"{name}.txt").write_text(f"[bold]in this calm scene a {name}")
    short = check(tmp_path, Config(clip=CLIP, text=TextConfig(max_tokens=6)))
    line = "3 of 3 captions are cut after '[ bold ] in this'; set text.max_tokens=10 (it is 6)"
    assert line in told(short)
    assert short.to_dict()["cut_captions"] == line
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text("in this calm scene " * 10 + name)
    chosen = check(tmp_path, Config(clip=CLIP))
    assert chosen.cut is None
    assert "cut after" not in told(chosen)
    (tmp_path / "c.txt").write_text("in this calm scene " * 100)
    bounded = check(tmp_path, Config(clip=CLIP))
    assert "1 of 3 captions is cut after" in told(bounded)
    assert "set text.max_tokens=401 (it is 256)" in told(bounded)


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
