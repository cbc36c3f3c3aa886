"""A person who trains and plays, in a headless Chromium: begins, watches, stops, goes on; and finds a world to play."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser
from needs import NEEDS_CHROMIUM, NEEDS_SERVER
from processes import first_line, started

_HERE = Path(__file__).parent
pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM, NEEDS_SERVER]
# The visit of the doctor and the world are not real ones, as the training is none.
_SERVER = """
import sys
from pathlib import Path
from minisora.studio import folder_checks, world_pages
from minisora.studio.run_studio import run_studio
home, doctor, world, *worker = sys.argv[1:]
folder_checks.COMMAND = (sys.executable, "-c", doctor)
world_pages.COMMAND = (sys.executable, world)
place = Path(home).parent
run_studio(["toy"], Path(home), None, 0, lambda address: print(address, flush=True), worker,
           data=[place / "clips"], runs=place / "runs")
"""
_DOCTOR = """
import json
part = {"usable": 12, "files": 13, "kept": 12, "clip": {"frames": 17, "height": 64, "width": 64, "fps": 8.0},
        "seconds": [2.0, 3.0], "without_caption": 0, "dropped": ["<b>bad</b>.mp4: no video"], "num_dropped": 1,
        "words": "usable: 12 clips"}
other = part | {"usable": 30, "clip": {"frames": 17, "height": 48, "width": 80, "fps": 15.0}}
print(json.dumps({"found": {"clips": part, "suggested": other, "reasons": "", "sets": {"clip.fps": 15}}}))
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a studio in which nothing is learned."""
    (tmp_path / "clips" / "games").mkdir(parents=True)
    (tmp_path / "clips" / "games" / "a.mp4").write_text("x")
    (tmp_path / "runs" / "garden" / "world").mkdir(parents=True)
    (tmp_path / "runs" / "garden" / "world" / "world.json").write_text(
        json.dumps({"height": 64, "width": 64, "fps": 10, "steps": 2})
    )
    worker = [sys.executable, str(_HERE / "fake_engine.py")]
    home, world = str(tmp_path / "home"), str(_HERE / "fake_world.py")
    command = [sys.executable, "-c", _SERVER, home, _DOCTOR, world, *worker]
    with started(command, env={**os.environ, "FAKE_SECONDS": "0.04"}) as server:
        yield first_line(server)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with Browser(tmp_path / "profile") as opened:
        yield opened


_TEXT = "(document.querySelector('{}')?.textContent ?? '')"


def press(browser: Any, words: str) -> None:
    """Press the button or link of the view with these words."""
    found = f"[...document.querySelectorAll('main button, main a')].find((each) => each.textContent === '{words}')"
    browser.until(f"{found} !== undefined && !{found}.disabled")
    browser.run(f"{found}.click()")


def test_a_run_is_begun_watched_stopped_and_taken_up_again(
    address: str, browser: Any, tmp_path: Path
) -> None:
    browser.open(address)
    browser.until("document.getElementById('go')?.disabled === false")
    browser.run("document.querySelector('nav a[data-view=train]').click()")
    press(browser, "Check the clips")
    browser.until(f"{_TEXT.format('.verdict')} === 'Usable: 30 clips to learn from'")
    # In a window of a laptop the button that stays in view hides no minutes, though the report is above them.
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=1280, height=860, deviceScaleFactor=1, mobile=False
    )
    browser.until("innerHeight === 860")
    bottom = "document.getElementById('train-minutes').getBoundingClientRect().bottom"
    assert browser.run(f"document.elementFromPoint(100, {bottom} - 5).id") == "train-minutes"
    # What the doctor says is text.
    assert browser.run(_TEXT.format(".dropped li")) == "<b>bad</b>.mp4: no video"
    assert browser.run("document.querySelector('.dropped b')") is None
    browser.run("document.querySelector('input[name=train-clip][value=clips]').click()")
    browser.until(f"{_TEXT.format('.verdict')} === 'Usable: 12 clips to learn from'")
    browser.run("document.querySelector('input[name=train-clip][value=suggested]').click()")
    browser.run("document.getElementById('train-minutes').value = '3'")
    browser.run(
        "document.getElementById('train-minutes').dispatchEvent(new Event('input', { bubbles: true }))"
    )
    press(browser, "Train for 3 min")

    # The curves and the samples come while it trains.
    browser.until(f"{_TEXT.format('.run h2')} === 'games' && {_TEXT.format('.run .badge')} === 'trains'")
    browser.until("document.querySelectorAll('.curve svg polyline').length > 0")
    browser.until("document.querySelectorAll('.shown-grid video').length >= 4")
    assert "<b>red</b>" in browser.run(_TEXT.format(".shown-grid figcaption"))
    assert browser.run("document.querySelector('.shown-grid figcaption b')") is None
    assert "at step" in browser.run("document.querySelector('.curve svg').getAttribute('aria-label')")
    # Where videos are asked for, it is said that they wait.
    browser.run("location.hash = '#make'")
    browser.until(f"{_TEXT.format('.holds')}.startsWith('games trains.')")
    assert "1 training" in browser.run(_TEXT.format("#queue-note"))
    assert browser.run("document.querySelectorAll('#latest .tile').length") == 0
    press(browser, "Stop and save")
    browser.until("document.querySelector('.holds').hidden")
    browser.run("location.hash = '#train'")
    browser.until(f"{_TEXT.format('.run-row .badge')} === 'stopped'")
    browser.run("document.querySelector('.run-row a').click()")
    press(browser, "Go on")
    browser.until(f"{_TEXT.format('.run .badge')} === 'done'")
    rows = [
        json.loads(line) for line in (tmp_path / "runs" / "games" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [(row["stage"], row["step"]) for row in rows] == (
        [("vae", step) for step in range(1, 41)] + [("dit", step) for step in range(1, 61)]
    )
    assert json.loads((tmp_path / "runs" / "games" / "config.yaml").read_text())["data"] is None
    assert "Plan of 3 min" in browser.run(_TEXT.format(".run"))

    # Videos are made by it from now on.
    press(browser, "Make videos with it")
    browser.until("location.hash === '#make' && document.getElementById('model').value === 'games'")
    browser.run("history.back()")
    browser.until(f"{_TEXT.format('.run h2')} === 'games'")
    browser.until("document.querySelectorAll('.curve svg').length > 2")

    # Nothing has to be scrolled to sideways, on a desk and on a telephone.
    for width in (1280, 375):
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        browser.until(f"innerWidth === {width} && document.documentElement.scrollWidth <= {width}")
        browser.until(
            "[...document.querySelectorAll('.curve svg')].every((svg) => svg.clientWidth <= innerWidth)"
        )
    assert browser.errors == []
    # Its page is shown where its own script may not run, for it is not the one that plays videos.
    browser.open(browser.run("document.querySelector('a[href$=\"/page\"]').href"))
    browser.until("document.querySelector('h1')?.textContent === 'What it learned'")
    assert browser.run("[document.title, origin]") == ["run", "null"]
    assert browser.run(
        "(() => { try { return document.cookie; } catch { return 'none to be read'; } })()"
    ) == ("none to be read")
    assert browser.run("fetch('/api/state').then(() => 'reached', () => 'refused')") == "refused"


def test_what_had_too_few_minutes_is_tried_again_with_enough(
    address: str, browser: Any, tmp_path: Path
) -> None:
    (tmp_path / "clips" / "fail").mkdir()
    (tmp_path / "clips" / "fail" / "a.mp4").write_text("x")
    browser.open(f"{address}#train")
    browser.until("document.querySelectorAll('#train-data option').length === 3")
    chosen = "[...document.querySelectorAll('#train-data option')].find((each) => each.text.includes('fail'))"
    browser.run(f"{chosen}.selected = true")
    browser.run("document.getElementById('train-data').dispatchEvent(new Event('change', { bubbles: true }))")
    press(browser, "Train for 20 min")
    browser.until(f"{_TEXT.format('.run .badge')} === 'failed'")
    browser.until("document.querySelector('.run .again input') !== null")
    assert "give --minutes 11" in browser.run(_TEXT.format(".run .error"))
    assert browser.run("document.querySelector('.run .again input').value") == "11"
    assert browser.errors == []


def test_a_world_is_learned_from_the_view_of_worlds(address: str, browser: Any, tmp_path: Path) -> None:
    browser.open(f"{address}#worlds")
    browser.until("document.getElementById('go')?.disabled === false")
    browser.run("location.hash = '#worlds'")
    press(browser, "Learn another world")
    # The arena needs no clips; what the doctor says of some is of what is to be learned from them.
    browser.until("document.getElementById('train-data')?.value === 'arena'")
    browser.until("document.querySelectorAll('#train-data option').length === 2")
    assert browser.run("document.querySelector('input[name=train-learns]:checked').value") == "world"
    browser.run(
        "document.querySelector('input[name=train-learns][value=videos]').click();"
        "document.querySelector('input[name=train-learns][value=world]').click()"
    )
    assert "shapes" not in browser.run("document.getElementById('train-data').textContent")
    browser.run("document.getElementById('train-data').value = 'arena'")
    browser.run("document.getElementById('train-data').dispatchEvent(new Event('change', { bubbles: true }))")
    press(browser, "Train for 20 min")
    browser.until(f"{_TEXT.format('.run h2')} === 'arena'")
    browser.until(f"{_TEXT.format('.run .badge')} === 'done'")
    assert "steps of the dynamics" in browser.run(_TEXT.format(".run .say"))
    assert json.loads((tmp_path / "runs" / "arena" / "config.yaml").read_text())["data"] == [
        str(tmp_path / "runs" / "arena" / "recording" / "clips")
    ]
    press(browser, "Play its world")
    browser.until("document.querySelectorAll('.world').length === 4")
    assert "its codes have no names" not in browser.run(_TEXT.format(".world:nth-of-type(2)"))
    assert browser.errors == []


def test_a_world_is_played_and_left(address: str, browser: Any, tmp_path: Path) -> None:
    browser.open(f"{address}")
    browser.until("document.getElementById('go')?.disabled === false")
    browser.run("document.querySelector('nav a[data-view=worlds]').click()")
    browser.until("document.querySelectorAll('.world').length === 3")
    assert browser.run("[...document.querySelectorAll('.world h2')].map((each) => each.textContent)") == [
        "The arena", "garden", "dream",
    ]  # fmt: skip
    browser.run("document.querySelectorAll('.world button')[1].click()")
    # The page of the world, below the studio's own address; here what answers is no world, so it says nothing.
    browser.until("location.pathname === '/world/' && document.getElementById('back')?.hidden === false")
    browser.run("document.getElementById('back').click()")
    browser.until(f"{_TEXT.format('.playing')}.startsWith('garden is being played.')")
    press(browser, "End it")
    browser.until("document.querySelector('.playing').hidden")
    # Without a world of one's own it is taught how one is learned; nothing has to be scrolled to sideways.
    shutil.rmtree(tmp_path / "runs" / "garden")
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=375, height=800, deviceScaleFactor=1, mobile=True
    )
    browser.run("location.hash = '#train'")
    browser.until("document.querySelector('.train .empty button') !== null")
    assert browser.run("document.documentElement.scrollWidth") <= 375
    browser.run("location.hash = '#worlds'")
    browser.until("document.querySelector('.teach')?.hidden === false")
    assert browser.run("document.documentElement.scrollWidth") <= 375
