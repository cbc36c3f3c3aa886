"""Numbers out of their range, nan and infinity among them, are refused in one line before any work is done."""

import math
import sys
from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import torch
import typer
from pydantic import ValidationError

from minisora import cli
from minisora.config import Config, load
from minisora.errors import UserError
from minisora.evaluate.compare import parse_sizes, parse_steps
from minisora.limits import LAST_SEED, check_number, check_seed, seed_after
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.report.assumptions import load_preset, presets
from minisora.scaling.ladder import LadderConfig, shard
from minisora.section import Section

WILD = ("nan", "inf", "-inf", "-1e30", "1e30", str(2**64))
SHAPE = (4, 2, 2, 2)


def number_options(app: typer.Typer = cli.app, path: tuple[str, ...] = ()) -> Iterator[Any]:
    """Every option that takes numbers: its command, its name, how many it takes."""
    for group in app.registered_groups:
        yield from number_options(group.typer_instance, (*path, group.name))
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        for parameter, kind in get_type_hints(command.callback, include_extras=True).items():
            # The context of a command is given by typer, not by a person.
            if parameter == "return" or kind is typer.Context:
                continue
            base, info = get_args(kind)
            # `int`, `int | None`, `tuple[int, int]`
            parts = [base, *get_args(base), *(each for part in get_args(base) for each in get_args(part))]
            count = sum(part in (int, float) for part in parts)
            if count:
                names = [each for each in info.param_decls or () if each.startswith("--")]
                yield [*path, name], (names or [f"--{parameter.replace('_', '-')}"])[0], count


OPTIONS = list(number_options())


def test_the_walk_meets_the_options() -> None:
    names = {(path[-1], name) for path, name, _ in OPTIONS}
    assert {
        ("sample", "--guidance"),
        ("sample", "--guidance-interval"),
        ("edit", "--region"),
        ("make", "--seed"),
        ("label", "--min-confidence"),
        ("run", "--jobs"),
        ("distill", "--samples"),
    } <= names
    assert len(OPTIONS) >= 25


@pytest.mark.parametrize(("path", "option", "count"), OPTIONS, ids=lambda each: str(each))
def test_a_wild_number_is_one_line_and_exit_code_2(
    path: list[str],
    option: str,
    count: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for text in WILD:
        monkeypatch.setattr(sys, "argv", ["minisora", *path, option, *[text] * count])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        _, err = capsys.readouterr()
        assert stop.value.code == 2
        assert len(err.strip().splitlines()) == 1, err
        assert f"'{option}'" in err, err


@pytest.mark.parametrize("text", [*WILD, "0", "-1", "²", "9" * 5000])
def test_lists_of_numbers_refuse_them_too(text: str) -> None:
    for read, value in ((parse_steps, f"4,{text}"), (parse_sizes, f"9x{text}x64")):
        with pytest.raises(UserError, match="write|give different numbers"):
            read(value)
    with pytest.raises(UserError, match="must be i/n"):
        shard([], f"{text}/2")


def number_fields(section: type[Section], path: str = "") -> Iterator[tuple[str, bool]]:
    """Every number of a config: its key, and whether it is whole."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        kinds = [part for part in get_args(kind) if part is not type(None)] or [kind]
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from number_fields(kind, f"{path}{name}.")
        elif get_origin(kind) is not tuple and kinds[0] in (int, float):
            yield f"{path}{name}", kinds[0] is int
        elif len(kinds) == 1 and get_origin(kinds[0]) is not None and get_args(kinds[0])[0] in (int, float):
            yield f"{path}{name}", get_args(kinds[0])[0] is int


FIELDS = list(number_fields(Config))


def test_the_walk_meets_the_fields() -> None:
    names = {name for name, _ in FIELDS}
    assert {"seed", "clip.fps", "data.validation_seed", "train_dit.lr", "sample.guidance"} <= names
    assert len(FIELDS) >= 80


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_every_number_of_a_config_is_finite(value: str) -> None:
    for name, _ in FIELDS:
        with pytest.raises(UserError, match=name):
            load(None, [f"{name}={value}"])


@pytest.mark.parametrize("value", [-1, 2**64])
def test_every_whole_number_of_a_config_has_a_range(value: int) -> None:
    for name, whole in FIELDS:
        if whole:
            with pytest.raises(UserError, match=name):
                load(None, [f"{name}={value}"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_ladder_refuses_them(value: float) -> None:
    with pytest.raises(ValidationError):
        LadderConfig.model_validate({"base_flops": value, "budgets": []})


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
def test_every_assumption_of_the_report_is_finite(value: str) -> None:
    for preset in presets():
        assumptions = load_preset(preset)
        for name in assumptions.entries:
            with pytest.raises(UserError):
                assumptions.set_by_user([f"{name}={value}"])


def test_a_number_names_its_range() -> None:
    check_number("strength", 1.0, 0.0, 1.0, above=True)
    check_number("steps", 1000, 1, 1000)
    with pytest.raises(UserError, match="strength = 0 must be above 0 and at most 1"):
        check_number("strength", 0, 0.0, 1.0, above=True)
    with pytest.raises(UserError, match="steps = 1.5 must be a whole number, at least 1 and at most 9"):
        check_number("steps", 1.5, 1, 9)
    with pytest.raises(UserError, match="steps = True must be"):
        check_number("steps", True, 1, 9)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64, 10**30, 1.5, math.nan])
def test_what_is_no_seed(seed: Any) -> None:
    with pytest.raises(UserError, match="seed = .* must be .*at least 0 and at most 4294967295"):
        check_seed(seed)
    with pytest.raises(UserError, match="seed = "):
        MiniSoraPipeline.noise(1, SHAPE, seed)


def test_seeds_give_the_noise_of_torch_and_come_round_after_the_last() -> None:
    def of(seed: int) -> torch.Tensor:
        return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(MiniSoraPipeline.noise(2, SHAPE, 7), torch.stack([of(7), of(8)]))
    assert torch.equal(MiniSoraPipeline.noise(2, SHAPE, LAST_SEED), torch.stack([of(LAST_SEED), of(0)]))
    assert torch.equal(of(3), of(3 + 2**32))  # why there are no more of them
    assert seed_after(LAST_SEED, 1) == 0
    assert seed_after(5, 2) == 7
