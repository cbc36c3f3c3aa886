"""The fixed sets are what they say; a file of prompts is read, or refused with its line."""

from pathlib import Path

import pytest

from minisora.data.shapes_world.grammar import all_prompts, parse
from minisora.errors import UserError
from minisora.evaluate.prompts import kind_of, light_prompts, prompt_set, wall_prompts


def test_all_is_the_triples_then_walls_then_lights() -> None:
    prompts = prompt_set("all")
    assert prompts[:72] == prompt_set("72") == all_prompts()
    assert len(set(prompts)) == len(prompts) == 144
    assert [kind_of(prompt) for prompt in prompts] == ["plain"] * 72 + ["wall"] * 36 + ["light"] * 36


def test_wall_prompts_cross_colors_shapes_and_both_ways_and_come_out_of_the_wall() -> None:
    fields = [parse(prompt) for prompt in wall_prompts()]
    assert len({(p.color, p.shape, p.motion) for p in fields}) == 36
    assert all(p.wall for p in fields)
    assert [p.size for p in fields].count("small") == [p.size for p in fields].count("medium") == 18
    for name in ("left", "right"):  # size says nothing of the direction
        assert [p.size for p in fields if p.motion == name].count("small") == 9


def test_light_prompts_come_in_pairs_that_differ_in_the_light_alone() -> None:
    prompts = light_prompts()
    for day, night in zip(prompts[::2], prompts[1::2], strict=True):
        assert day.replace("by day", "at night") == night
        assert (parse(day).light, parse(night).light) == ("day", "night")
    assert {parse(prompt).motion for prompt in prompts} == {"left", "right", "up", "down"}


def test_a_file_of_prompts(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(
        "\ufeff# two of mine\n\n a red circle moving left \nA blue square standing still by day\n"
    )
    assert prompt_set(file) == ["a red circle moving left", "A blue square standing still by day"]
    assert kind_of("A blue  square standing still BY DAY") == "light"


def test_a_bad_file_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a red circle moving left\n\na cat\n")
    with pytest.raises(UserError, match=r"prompts\.txt, line 3: caption 'a cat'"):
        prompt_set(file)
    file.write_text("# nothing\n")
    with pytest.raises(UserError, match="holds no prompt"):
        prompt_set(file)
    file.write_bytes(b"a red circle moving left \xff")
    with pytest.raises(UserError, match="not UTF-8"):
        prompt_set(file)
    with pytest.raises(UserError, match="prompts '71': no such file; use 72, all"):
        prompt_set("71")
