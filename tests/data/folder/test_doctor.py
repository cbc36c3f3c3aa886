import json
import os
import shutil
from pathlib import Path

import av
import numpy as np
from PIL import Image
from rich.console import Console

from minisora.config import AugmentConfig, ClipConfig, Config, DataConfig, TextConfig
from minisora.data.dataset import open_dataset
from minisora.data.folder.doctor import check
from minisora.data.folder.folder_dataset import FolderDataset
from minisora.data.shapes_world.shapes_dataset import make_shapes

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
    assert "shorten them: the encoder reads 256 tokens at most" in told(bounded)


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


def test_stills_and_short_videos_are_two_lists_and_the_verdict_counts(tmp_path, ramp):
    for index in range(3):
        Image.new("RGB", (32, 24), (index,) * 3).save(tmp_path / f"{index}.png")
    ramp(tmp_path / "long.mp4", 20, 8)
    ramp(tmp_path / "short.mp4", 3, 8)
    anyhow = DataConfig(require_captions=False)
    report = check(tmp_path, Config(clip=CLIP, data=anyhow))
    assert report.stills == report.to_dict()["stills"] == ["0.png", "1.png", "2.png"]
    assert report.too_short == report.to_dict()["too_short"] == ["short.mp4"]
    assert "usable: 6 clips from 5 files; 3 of 5 stand still" in told(report)
    assert "one picture, repeated for a whole clip: 0.png, 1.png, 2.png" in report.scan.summary()
    assert "too short, last frame repeated: short.mp4" in report.scan.summary()
    stopped = check(tmp_path, Config(clip=CLIP, data=DataConfig(require_captions=False, short_clips="error")))
    assert stopped.usable == 0
    skipped = check(tmp_path, Config(clip=CLIP, data=DataConfig(require_captions=False, short_clips="skip")))
    assert "stand still" not in told(skipped)
    assert skipped.to_dict()["dropped"]["0.png"] == "a single picture: 1 frames at 8 fps, a clip has 9"
    single = check(tmp_path, Config(clip=CLIP.model_copy(update={"frames": 1}), data=anyhow))
    assert single.stills == []


def test_high_dynamic_range_and_interlacing_are_named_with_the_remedy(tmp_path):
    for name, options, code in (("hlg", {}, 18), ("fields", {"flags": "+ildct+ilme"}, 1)):
        with av.open(str(tmp_path / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=8, options=options)
            stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
            stream.codec_context.color_trc = code
            for level in range(9):
                frame = np.full((64, 64, 3), 100 + level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
    report = check(tmp_path, Config(clip=CLIP, data=DataConfig(require_captions=False)))
    assert report.to_dict()["high_dynamic_range"] == {"hlg.mp4": "HLG"}
    assert report.to_dict()["interlaced"] == ["fields.mp4"]
    text = told(report)
    for part in ("hlg.mp4: HLG", "tonemap=", "interlaced, every other line read (1)", "bwdif"):
        assert part in text
    assert "hlg.mp4" in report.scan.summary()
    assert "fields.mp4" in report.scan.summary()


def test_rare_key_frames_are_named_where_memory_does_not_make_up_for_them(tmp_path, ramp, monkeypatch):
    ramp(tmp_path / "x.mp4", 30, 1, g="1000")
    clip = CLIP.model_copy(update={"frames": 5})
    config = Config(clip=clip, data=DataConfig(require_captions=False))
    text = told(check(tmp_path, config))
    assert "key frames" not in text
    monkeypatch.setattr("minisora.data.folder.doctor.AHEAD_BYTES", 100_000)
    report = check(tmp_path, config)
    assert report.to_dict()["rare_key_frames"] == {"x.mp4": 30.0}
    assert "x.mp4: 30 s without one" in told(report)
    assert "-force_key_frames" in told(report)


def test_what_a_crop_cuts_is_told_with_what_to_set(tmp_path, ramp):
    for name in ("a", "b"):
        ramp(tmp_path / f"{name}.mp4", 20, 8, 96, 64)
    ramp(tmp_path / "c.mp4", 20, 8, 64, 64)
    anyhow = DataConfig(require_captions=False)
    square = ClipConfig()
    report = check(tmp_path, Config(clip=square, data=anyhow))
    assert report.to_dict()["cropped"] == {"a.mp4": 1 - 64 / 96, "b.mp4": 1 - 64 / 96}
    assert "96x64 (2 files): a third of the picture is cut" in told(report)
    assert "set data.fit=pad or squash, or a clip size of 80x48" in told(report)
    for fit in ("pad", "squash"):
        other = check(tmp_path, Config(clip=square, data=DataConfig(require_captions=False, fit=fit)))
        assert other.cropped == {}
        assert "is cut" not in told(other)


def test_how_many_clips_overlap_makes_is_told(tmp_path, ramp):
    for name in "abcd":
        ramp(tmp_path / f"{name}.mp4", 30, 8)
    data = DataConfig(require_captions=False, overlap=0.5, source="folder", path=tmp_path)
    report = check(tmp_path, Config(clip=CLIP, data=data))
    plain = data.model_copy(update={"overlap": 0.0})
    clips = [len(open_dataset(Config(clip=CLIP, data=each), "train")) for each in (plain, data)]
    assert report.overlap_clips == report.to_dict()["overlap_clips"] == clips[1] - clips[0] == 9
    assert "data.overlap=0.5 makes 9 further clips for training" in told(report)
    assert report.usable == check(tmp_path, Config(clip=CLIP, data=plain)).usable
    assert "data.overlap" not in told(check(tmp_path, Config(clip=CLIP, data=plain)))


def test_how_often_each_clip_is_shown_and_which_may_be_mirrored_is_told(tmp_path, ramp):
    for name, caption in (("a", "going left"), ("b", "going up"), ("c", "going down")):
        ramp(tmp_path / f"{name}.mp4", 9, 8)
        (tmp_path / f"{name}.txt").write_text(caption)
    for mirror, more in ((False, "3 times\n"), (True, "3 times; 2 of 3 files may be mirrored\n")):
        data = DataConfig(augment=AugmentConfig(views=3, shift=1, mirror=mirror))
        report = check(tmp_path, Config(clip=CLIP, data=data))
        assert f"data.augment shows each training clip {more}" in told(report)
