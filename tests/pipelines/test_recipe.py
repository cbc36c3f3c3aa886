import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.flow import schedules
from minisora.pipelines import recipe
from minisora.pipelines.recipe import MOST_LETTERS, Recipe, pack_mask, read_recipe, recipe_of, unpack_mask

RECIPE = Recipe("toy", "ab" * 32, "a “red” <b>circle</b>\n{}; é 圆", (9, 32, 32), 4, 3.0, 7)
VIDEO = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (3, 9, 32, 32)).astype(np.float32))


def test_a_recipe_comes_back_from_the_file_and_changes_no_picture(tmp_path: Path) -> None:
    with_recipe, without = tmp_path / "a.mp4", tmp_path / "b.mp4"
    write_video(with_recipe, VIDEO, 8.0, comment=RECIPE.to_text())
    write_video(without, VIDEO, 8.0)
    assert read_recipe(with_recipe) == RECIPE
    start, end = (file.read_bytes().index(b"mdat") for file in (with_recipe, without))
    assert with_recipe.read_bytes()[start : start + 2000] == without.read_bytes()[end : end + 2000]
    with pytest.raises(UserError, match=r"b\.mp4 holds no recipe \(it has none\)"):
        read_recipe(without)


@pytest.mark.parametrize("comment", ["made by hand", "[]", "[" * 50_000, "{}", '{"minisora": 1}'])
def test_another_comment_is_no_recipe(tmp_path: Path, comment: str) -> None:
    write_video(tmp_path / "a.mp4", VIDEO, 8.0, comment=comment)
    with pytest.raises(UserError, match=r"a\.mp4 holds no recipe"):
        read_recipe(tmp_path / "a.mp4")


def test_what_is_no_mp4_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video" * 1000)
    with pytest.raises(UserError, match=r"a\.mp4 is no mp4 that can be read"):
        read_recipe(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="no such file"):
        read_recipe(tmp_path / "b.mp4")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"minisora": 2}, "version 2, this minisora reads 1"),
        ({"mode": "dream"}, "of mode 'dream', which this minisora does not know"),
        ({"weights": "../../etc"}, "weights must be 64 hex digits"),
        ({"size": [9, 32]}, "size must be three numbers"),
        ({"size": [9, 32, -1]}, "width = -1 must be at least 1"),
        ({"size": [9, 32, "32"]}, "width = 32 must be a whole number"),
        ({"steps": 10**9}, "steps = 1000000000 must be"),
        ({"guidance": None}, "guidance = None must be"),
        ({"seed": 2**32}, "seed = 4294967296 must be"),
        ({"scheduler": "ddpm"}, "scheduler must be one of euler, heun, dpm"),
        ({"prompt": "x" * 3000}, "prompt must be a text of at most 2000"),
        ({"model": 3}, "model must be a text"),
        ({"path": "/etc"}, "has an unknown key 'path'"),
    ],
)
def test_a_recipe_of_others_is_checked(change: dict[str, Any], error: str) -> None:
    value = {**json.loads(RECIPE.to_text()), **change}
    with pytest.raises(UserError, match=error):
        recipe_of(value)


def test_a_recipe_of_recipes_comes_back() -> None:
    mask = pack_mask([[(row * 7 + column) % 5 == 0 for column in range(30)] for row in range(31)])
    extended = replace(RECIPE, mode="extend", parents=(RECIPE,))
    inpainted = replace(RECIPE, size=(9, 31, 30), mode="inpaint", parents=(extended,), mask=mask)
    connected = replace(RECIPE, mode="connect", parents=(inpainted, RECIPE))
    assert connected.depth == 4
    shown = replace(RECIPE, mode="keyframes", parents=(connected,) * 4, keyframes=(0, 3, 8, 1), later=("b",))
    assert shown.prompts == (RECIPE.prompt, "b", "b")
    follow = replace(RECIPE, mode="inpaint", parents=(RECIPE,), masks=((0, pack_mask([[True] * 32] * 32)),))
    for each in (
        shown, follow, replace(RECIPE, mode="trim", parents=(follow,), span=(2, 5)),
        replace(RECIPE, mode="long", later=("b", "c")), replace(RECIPE, mode="upload", name="é", digest="0" * 64),
    ):  # fmt: skip
        assert recipe_of(json.loads(each.to_text())) == each
        assert json.loads(each.to_text()) == each.to_dict()
    assert recipe_of(json.loads(connected.to_text())) == connected
    assert "mask" not in json.loads(RECIPE.to_text())
    rows = unpack_mask(mask, 31, 30)
    assert rows[3][4] is True
    assert rows[3][5] is False


def test_what_belongs_to_another_mode_is_refused() -> None:
    for more, error in (
        ({"parents": (RECIPE,)}, "sample is made from 0 videos, not from 1"),
        ({"mode": "connect", "parents": (RECIPE,)}, "connect is made from 2 videos, not from 1"),
        ({"mode": "loop", "parents": (RECIPE,), "frame": 1}, "loop takes no frame"),
        ({"mode": "extend", "parents": (RECIPE,), "source": "x"}, "extend takes no source"),
        ({"mode": "restyle", "parents": (RECIPE,)}, "restyle needs a strength"),
    ):
        with pytest.raises(UserError, match=error):
            replace(RECIPE, **more)  # type: ignore[arg-type]
    two = {"parents": (RECIPE, RECIPE), "keyframes": (0, 3), "mode": "keyframes"}
    mask, small = pack_mask([[True] * 32] * 32), pack_mask([[True] * 8] * 8)
    masked = {"mode": "inpaint", "parents": (RECIPE,)}
    for wrong, error in (
        ({**two, "parents": (RECIPE,)}, "keyframes is made from 2 to 5 videos, not from 1"),
        ({**two, "keyframes": (0,)}, "1 keyframes of 2 videos: give one of each"),
        ({**two, "keyframes": (0, -1)}, "a keyframe = -1 must be at least 0"),
        ({**two, "keyframes": ()}, "keyframes needs a keyframes"),
        ({**two, "later": ("x",)}, "2 prompts for at most 1 segments: leave some out"),
        ({"mode": "long"}, "long needs a later"),
        ({"mode": "long", "later": ("x",) * 8}, "9 prompts for at most 8 segments"),
        ({"mode": "long", "later": (3,)}, "must be texts of at most 2000 characters"),
        (
            {"mode": "trim", "parents": (RECIPE,), "span": (3, 3)},
            "after the last that stays = 3 must be at least 4",
        ),
        ({"mode": "trim", "parents": (RECIPE,), "span": (1,)}, "the recipe's span must be two frames"),
        (masked, "inpaint needs a mask: one for all frames"),
        ({**masked, "mask": mask, "masks": ((0, mask),)}, "inpaint needs a mask: one for all frames"),
        (
            {**masked, "masks": ((3, mask), (3, mask))},
            "the frame of a mask = 3 must be at least 4 and at most 8",
        ),
        ({**masked, "masks": ((9, mask),)}, "the frame of a mask = 9 must be at least 0 and at most 8"),
        ({**masked, "masks": ((0, small),)}, "the mask is not of 32x32 pixels"),
        ({**masked, "masks": (("0", mask),)}, "the frame of a mask = 0 must be a whole number"),
        ({**masked, "masks": (mask,)}, "at most 8 pairs of a frame and a mask"),
        ({"mode": "upload", "name": "x", "digest": "ab"}, "digest must be 64 hex digits"),
        ({"mode": "upload", "name": "x" * 201, "digest": "ab" * 32}, "name must be a text of 1 to 200"),
    ):
        with pytest.raises(UserError, match=error):
            replace(RECIPE, **wrong)  # type: ignore[arg-type]
    chain = RECIPE
    for _ in range(63):
        chain = replace(RECIPE, mode="extend", parents=(chain,))
    with pytest.raises(UserError, match="from more than 64 videos, one after another"):
        replace(RECIPE, mode="extend", parents=(chain,))


def test_a_recipe_that_lacks_something_is_refused() -> None:
    value = json.loads(RECIPE.to_text())
    del value["seed"]
    with pytest.raises(UserError, match="lacks 'seed'"):
        recipe_of(value)


def test_a_recipe_that_has_grown_too_long_is_refused_when_it_is_made() -> None:
    """One of two that were of two each doubles every time; a file of it could not be read again."""
    grown = RECIPE
    while 2 * len(grown.to_text()) + 1000 < MOST_LETTERS:
        grown = replace(RECIPE, mode="connect", parents=(grown, grown))
    with pytest.raises(UserError, match="are more than 262144 letters: begin a new video"):
        replace(RECIPE, mode="connect", parents=(grown, grown))
    assert recipe_of(json.loads(grown.to_text())) == grown


def test_the_schedulers_of_a_recipe_are_those_that_a_pipeline_has() -> None:
    assert set(recipe.SCHEDULERS) == set(schedules.SCHEDULERS)
