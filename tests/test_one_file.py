"""scripts/one_file.py: text to video on one page, which learns, films what it was asked for, and stands alone."""

import ast
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from minisora.data.shapes_world.grammar import parse
from minisora.evaluate.judge.verdict import judge_all

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "one_file.py"


@pytest.fixture
def one_file(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import one_file

    return one_file


def test_it_is_read_in_one_sitting_and_imports_nothing_of_minisora() -> None:
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 180
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"numpy", "torch", "PIL"}


def test_the_judge_sees_in_its_world_what_the_captions_say(one_file: ModuleType) -> None:
    clips = one_file.render(one_file.CAPTIONS, np.random.default_rng(0))
    assert clips.shape == (48, 3, one_file.FRAMES, one_file.SIDE, one_file.SIDE)
    for caption, verdict in zip(one_file.CAPTIONS, judge_all(clips), strict=True):
        match = verdict.matches(parse(caption))
        assert match["color"], caption
        assert match["shape"], caption
        assert match["motion"], caption


def test_it_shows_every_colour_of_every_shape_and_all_ways_alike(one_file: ModuleType) -> None:
    words = [caption.split() for caption in one_file.SHOWN]
    assert len({(color, shape) for _, color, shape, _, _ in words}) == 12
    assert sorted(way for *_, way in words) == sorted([*one_file.WAYS] * 3)


@pytest.mark.slow
def test_both_losses_fall_and_the_gif_has_the_clips_frames(
    one_file: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gif = tmp_path / "film.gif"
    captions = ["a red circle moving left", "a blue square moving up"]
    state = torch.random.get_rng_state()
    one_file.main(["--work", "12", "64", "12", "--out", str(gif), "--captions", *captions])
    torch.random.set_rng_state(state)
    losses: dict[str, list[float]] = {}
    for name, loss in re.findall(r"^(\w+) +\d+ loss ([\d.]+)", capsys.readouterr().out, re.M):
        losses.setdefault(name, []).append(float(loss))
    assert len(losses) == 2
    for name, values in losses.items():
        assert len(values) == 12
        assert values[-1] < 0.8 * values[0], name
    with Image.open(gif) as image:
        pages = [page.convert("RGB") for page in ImageSequence.Iterator(image)]
    assert len(pages) == one_file.FRAMES
    assert {page.size for page in pages} == {(4 * 192, 192 + 16)}


def test_a_gif_holds_the_clips_and_their_captions_side_by_side(one_file: ModuleType, tmp_path: Path) -> None:
    captions = one_file.CAPTIONS[:5]
    clips = one_file.render(captions, np.random.default_rng(0))
    one_file.write_gif(str(tmp_path / "clips.gif"), clips, captions)
    with Image.open(tmp_path / "clips.gif") as image:
        pages = np.stack([np.asarray(page.convert("RGB")) for page in ImageSequence.Iterator(image)])
    assert pages.shape == (one_file.FRAMES, 2 * (192 + 16), 4 * 192, 3)
    fifth = torch.from_numpy(pages[:, 208 : 208 + 192 : 6, :192:6]).permute(3, 0, 1, 2) / 127.5 - 1
    assert (fifth - clips[4]).abs().mean() < 0.02
    assert pages[0, 192:208, :192].max() > 200


def test_a_caption_of_another_world_is_refused_in_one_line(
    one_file: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        one_file.main(["--captions", "a cat"])
    assert error.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "'a cat'" in message
    assert "a red circle moving left" in message
