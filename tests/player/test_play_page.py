"""The page, played by a scripted keyboard and a finger in a headless Chromium."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser
from needs import NEEDS_CHROMIUM, NEEDS_SERVER
from processes import first_line, started

from minisora.worlds.session import SUFFIX

pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM, NEEDS_SERVER]
# https://chromedevtools.github.io/devtools-protocol/tot/Input/#method-dispatchKeyEvent
_CODES = {"ArrowLeft": 37, "KeyN": 78, "KeyV": 86}


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of `minisora world play`."""
    command = [sys.executable, "-m", "minisora", "world", "play", "--port", "0", "--seed", "3"]
    environment = os.environ | {"COLUMNS": "400", "PYTHONUNBUFFERED": "1"}
    with started(command, cwd=tmp_path, env=environment) as server:
        yield first_line(server).split()[1]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with Browser(tmp_path / "profile") as opened:
        yield opened


def press(browser: Any, code: str, does: str) -> None:
    """A key goes down, or comes up."""
    name = code if code.startswith("Arrow") else code[-1].lower()
    kind = {"down": "rawKeyDown", "up": "keyUp"}[does]
    browser.call("Input.dispatchKeyEvent", type=kind, code=code, key=name, windowsVirtualKeyCode=_CODES[code])


def finger(browser: Any, does: str, button: str) -> None:
    """A finger (to the page: a pointer) at the middle of a button."""
    box = f"document.querySelector('#pad [data-button={button}]').getBoundingClientRect()"
    x, y = browser.run(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
    browser.call("Input.dispatchMouseEvent", type=does, x=x, y=y, button="left", buttons=1, clickCount=1)


def test_a_scripted_keyboard_plays(address: str, browser: Any, tmp_path: Path) -> None:
    text = "document.getElementById('{}').textContent"
    picture = "document.getElementById('world').toDataURL()"
    browser.open(address)
    browser.until("document.getElementById('game')?.hidden === false")
    browser.until("document.getElementById('seed').value === '3'")
    # Nothing moves before a person does.
    assert browser.run("document.getElementById('start').hidden") is False
    first = browser.run(picture)
    press(browser, "ArrowLeft", "down")
    browser.until(f"Number({text.format('step')}) >= 3")
    press(browser, "ArrowLeft", "up")
    assert browser.run(text.format("latency")).endswith(" ms")
    assert browser.run(picture) != first
    press(browser, "KeyV", "down")
    browser.until("document.querySelector('#said a')?.href.endsWith('/saved/1.mp4')")
    (side,) = (tmp_path / "worlds" / "played").glob(f"*{SUFFIX}")
    assert json.loads(side.read_text())["buttons"].count("left") >= 3
    press(browser, "KeyN", "down")
    browser.until("document.getElementById('seed').value === '4'")
    # Whole pixels, and nothing that has to be scrolled to sideways, on a desk and on a telephone.
    for width in (1280, 375):
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        browser.until(f"innerWidth === {width} && document.documentElement.scrollWidth <= {width}")
        browser.until("document.getElementById('world').getBoundingClientRect().width % 64 === 0")
    # A finger that slides from one button to the next.
    held = "document.querySelector('#pad .held')?.dataset.button ?? null"
    for does, button in (("mousePressed", "up"), ("mouseMoved", "left"), ("mouseReleased", "left")):
        finger(browser, does, button)
        browser.until(f"({held}) === {'null' if does == 'mouseReleased' else json.dumps(button)}")
    assert browser.errors == []
