"""The page's JavaScript against Python, under node and in a browser: settings at random, every result to six digits."""

import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Browser
from needs import NEEDS_CHROMIUM
from typer.testing import CliRunner

from minisora.cli import app
from minisora.flops.machines import shipped_calibrations
from minisora.memory import size_text
from minisora.plan.answer import plan
from minisora.plan.question import Question, ask, card_named, cards_by_name
from minisora.plan.remedies import cheapest, fitting
from minisora.plan.sliders import FOLDER, kinds, page_data, plan_script, render, settings
from minisora.plan.subject import Subject, named, of_size, parse_attention


def random_setting(subject: Subject, generator: np.random.Generator) -> dict[str, Any]:
    """A page's state that divides: ranks by heads, sizes by strides."""
    heads = subject.heads
    tensor = int(generator.choice([n for n in (1, 2, 4) if heads % n == 0]))
    sequence = int(generator.choice([n for n in (1, 2, 4, 8) if (heads // tensor) % n == 0]))
    data = int(generator.choice([1, 2, 3, 16]))
    fsdp = int(generator.choice([n for n in range(1, data * sequence + 1) if (data * sequence) % n == 0]))
    card = str(
        generator.choice([name for name, each in cards_by_name().items() if "bfloat16" in each.tflops])
    )
    return {
        "attention": str(generator.choice(kinds(subject))),
        "seconds": float(10 ** generator.uniform(-1, 2)),
        "fps": float(generator.uniform(4, 60)),
        "height": subject.stride[0] * int(generator.integers(1, 70)),
        "width": subject.stride[1] * int(generator.integers(1, 120)),
        "steps": int(generator.integers(1, 251)),
        "passes": int(generator.integers(1, 5)),
        "reused": float(generator.choice([0.0, 0.4])),
        "card": card,
        "data": data,
        "fsdp": fsdp,
        "sequence": sequence,
        "tensor": tensor,
        "precision": "bfloat16",
        "batch": int(generator.integers(1, 9)),
        "place": str(generator.choice(["resident", "swapped", "streamed"])),
        "tiles": bool(generator.integers(2)),
        "train": bool(generator.integers(2)),
        "checkpointing": str(generator.choice(["none", "selective", "full"])),
        "samples": float(10 ** generator.uniform(3, 9)),
        "budget": float(10 ** generator.uniform(2, 8)),
    }


def question_of(subject: Subject, setting: dict[str, Any]) -> Question:
    own = dict(setting)
    seen = subject.seeing(parse_attention(own.pop("attention")))
    size = own.pop("height"), own.pop("width")
    cards = own["data"] * own["sequence"] * own["tensor"]
    return ask(seen, **{**own, "card": card_named(own["card"]), "size": size, "cards": cards})


def by_python(subject: Subject, setting: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in plan(question_of(subject, setting)).numbers.items()}


def by_node(subject: Subject, states: list[dict[str, Any]], result: str) -> list[Any]:
    """What the page's script says of each state, `result` an expression of `s`."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    data = page_data(plan(ask(subject, card=card_named("h100 sxm"))))
    script = (FOLDER / "sliders.js").read_text()
    arithmetic = script[script.index("function inputsOf") : script.index("// How numbers look")]
    divisors = script[script.index("function divisors") : script.index("// What does not divide")]
    program = (
        f"{plan_script(subject)}\nconst PAGE = {json.dumps(data)};\n{arithmetic}\nlet state;\n{divisors}\n"
        f"console.log(JSON.stringify({json.dumps(states)}.map((s) => {result})));"
    )
    done = subprocess.run(
        [node, "-"], input=program, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "subject", [named("wan 14b"), named("step-video"), of_size(5e9)], ids=lambda each: each.name
)
def test_the_page_is_the_same_arithmetic(subject: Subject) -> None:
    generator = np.random.default_rng(0)
    states = [random_setting(subject, generator) for _ in range(25)]
    for state, found in zip(states, by_node(subject, states, "PLANS[s.attention](inputsOf(s))"), strict=True):
        expected = by_python(subject, state)
        assert list(found) == list(expected)
        for name, value in expected.items():
            # JSON has no NaN: cards without a price.
            if found[name] is None:
                assert math.isnan(value), name
            else:
                assert found[name] == pytest.approx(value, rel=5e-7, abs=1e-300), name


@NEEDS_CHROMIUM
def test_the_page_in_a_browser_is_the_same_arithmetic(tmp_path: Path) -> None:
    subject, generator = named("wan 14b"), np.random.default_rng(2)
    states = [random_setting(subject, generator) | {"rank": 0} for _ in range(25)]
    page = tmp_path / "plan.html"
    page.write_text(render(plan(ask(subject, card=card_named("h100 sxm"))), "minisora plan"))
    with Browser(tmp_path / "profile") as browser:
        browser.open(page.as_uri())
        browser.until(
            "document.readyState === 'complete' && document.querySelectorAll('#answers tr').length > 0"
        )
        found = browser.run(f"{json.dumps(states)}.map((s) => PLANS[s.attention](inputsOf(s)))")
        assert browser.errors == []
    for state, numbers in zip(states, found, strict=True):
        for name, value in by_python(subject, state).items():
            if not math.isnan(value):
                assert numbers[name] == pytest.approx(value, rel=5e-7, abs=1e-300), name


@pytest.mark.parametrize("subject", [named("wan 14b"), named("step-video")], ids=lambda each: each.name)
def test_the_page_tells_what_fits_as_the_command_does(subject: Subject) -> None:
    generator = np.random.default_rng(1)
    states = [random_setting(subject, generator) | {"batch": 8, "seconds": 10.0} for _ in range(20)]
    result = "fitting(s).map(([text, memory]) => [text, memory])"
    told = 0
    for state, found in zip(states, by_node(subject, states, result), strict=True):
        made = plan(question_of(subject, state))
        lines = fitting(made) if made.fits is False else []
        if made.fits is False:
            assert [f"{text}: {size_text(memory)}" for text, memory in found] == lines
            told += len(lines)
    assert told > 10


def test_the_page_finds_the_cheapest_ways_as_the_command_does() -> None:
    subject, generator = named("cogvideox-5b"), np.random.default_rng(2)
    states = [
        random_setting(subject, generator)
        | {"train": False, "batch": 1, "seconds": 6.0, "height": 480, "width": 720}
        for _ in range(4)
    ]
    for under in (5.0, 120.0):
        asked = [{**state, "under": under} for state in states]
        result = (
            "cheapest(s).ways.map((w) => [w.s.card, cardsOf(w.s), w.s.tiles, w.s.fsdp, w.numbers.clip_cost])"
        )
        for state, found in zip(states, by_node(subject, asked, result), strict=True):
            ways = cheapest(question_of(subject, state), under).ways
            assert len(found) == len(ways)
            for (card, cards, tiles, fsdp, cost), way in zip(found, ways, strict=True):
                own = way.question
                assert (card, cards, tiles, fsdp) == (own.card.name, own.cards, own.tiles, own.fsdp)
                assert cost == pytest.approx(float(way.numbers["clip_cost"]), rel=1e-6)


def test_every_number_of_ranks_that_divides_can_be_chosen() -> None:
    ranks = [1, 2, 36, 97, 8192, 1 << 20]
    found = by_node(named("wan 14b"), [{"n": n} for n in ranks], "divisors(s.n)")
    expected = [[n for n in range(1, rank + 1) if rank % n == 0] for rank in ranks]
    assert found == expected


def test_the_sliders_start_at_the_question() -> None:
    question = ask(named("wan 14b"), card=card_named("h200"), cards=8, seconds=3.0, tiles=True)
    start = settings(question)
    expected = {name: float(value) for name, value in plan(question).numbers.items()}
    assert by_python(named("wan 14b"), start)["clip_seconds"] == expected["clip_seconds"]
    assert start["card"] in page_data(plan(question))["cards"]


def test_a_machine_of_ones_own_is_named_by_its_file() -> None:
    path = str(shipped_calibrations()[-1].path)
    question = ask(named("wan 14b"), card=card_named(path), precision="float32")
    cards = page_data(plan(question))["cards"]
    assert cards[question.card.name]["typed"] == path
    assert cards["H100 SXM"]["typed"] == "H100 SXM"


def test_a_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    out = tmp_path / "plan.html"
    done = CliRunner().invoke(app, ["plan", "wan 14b", "--page", str(out)])
    assert done.exit_code == 0, done.output
    text = out.read_text()
    assert not re.search(r"(?:src|href)=|url\(|@import|fetch\(|https?://", text)
    assert "default-src 'none'" in text


def test_a_name_is_never_markup() -> None:
    made = plan(ask(of_size(5e9), card=card_named("h100 sxm")))
    page = render(made, "minisora plan --params '</script><img src=x>'")
    assert "<img" not in page
    assert page.count("</script>") == 4
