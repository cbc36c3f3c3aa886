"""A person's way through the studio with the shipped model, in a headless Chromium: from words to a downloaded video.

Pictures of each view, wide and narrow, light and dark, are kept where MINISORA_PICTURES names a folder.
"""

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

from minisora.pipelines.recipe import read_recipe
from minisora.pipelines.remake import remake

pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM, NEEDS_SERVER]
_SERVER = """
import sys
from pathlib import Path
from minisora.studio.run_studio import run_studio
run_studio(["toy"], Path(sys.argv[1]), None, 0, lambda address: print(address, flush=True))
"""
STEPS = 4
# Seconds for a video on a machine that is busy with others.
LONG = 400


class Walk:
    """A page of the studio, and what a person does on it."""

    def __init__(self, browser: Any, home: Path, pictures: Path | None):
        self.browser, self.home, self.pictures = browser, home, pictures

    def until(self, script: str) -> Any:
        return self.browser.wait(lambda: self.browser.run(script), script, LONG)

    def fill(self, field: str, value: object) -> None:
        self.until(f"document.getElementById('{field}') !== null")
        self.browser.run(
            f"(field => {{ field.value = {json.dumps(str(value))}; "
            f"field.dispatchEvent(new Event('input', {{ bubbles: true }})); }})(document.getElementById('{field}'))"
        )

    def edit(self, mode: str, ids: str, prompt: str = "", **fields: object) -> int:
        """Take a step of an edit; the number of its video, once it is there."""
        before = len(list((self.home / "clips").glob("[0-9]*.mp4")))
        self.browser.run(f"location.hash = '#edit/{mode}/{ids}'")
        self.until("document.querySelector('.edit .main') !== null")
        if prompt:
            self.fill("edit-prompt", prompt)
        for field, value in fields.items():
            self.fill(field.replace("_", "-"), value)
        self.browser.run("document.querySelector('input[name=edit-count][value=\"1\"]')?.click()")
        self.look(mode)
        self.send()
        return self.made(before + 1)

    def send(self) -> None:
        self.until("document.querySelector('.edit .main').disabled === false")
        self.browser.run("document.querySelector('.edit .main').click()")
        self.until("location.hash === '#make'")

    def made(self, number: int) -> int:
        self.until(f"fetch('/api/clips?limit=1').then(a => a.json()).then(found => found.total >= {number})")
        return number

    def look(self, name: str) -> None:
        """Keep pictures of what is seen now."""
        if self.pictures is None:
            return
        for width in (1280, 375):
            for scheme in ("light", "dark"):
                features = [{"name": "prefers-color-scheme", "value": scheme}]
                self.browser.call("Emulation.setEmulatedMedia", features=features)
                self.browser.call(
                    "Emulation.setDeviceMetricsOverride",
                    width=width, height=812, deviceScaleFactor=1, mobile=width < 500,
                )  # fmt: skip
                self.browser.picture(self.pictures / f"{name}-{width}-{scheme}.png")
        self.browser.call("Emulation.clearDeviceMetricsOverride")


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    home = tmp_path / "home"
    place = os.environ.get("MINISORA_PICTURES")
    with (
        started([sys.executable, "-c", _SERVER, str(home)]) as server,
        Browser(tmp_path / "profile") as browser,
    ):
        browser.open(first_line(server))
        yield Walk(browser, home, Path(place) if place else None)


def test_from_words_to_a_downloaded_video_and_its_bytes_again(walk: Walk, tmp_path: Path) -> None:
    browser = walk.browser
    walk.until("document.getElementById('go')?.disabled === false")
    walk.look("empty")
    walk.fill("prompt", "a red circle moving left")
    walk.fill("steps", STEPS)
    browser.run("document.getElementById('go').click()")
    walk.until("document.querySelectorAll('#latest .tile video').length === 4")
    walk.look("four")
    # One is picked.
    browser.run("location.hash = '#gallery'")
    walk.until("document.querySelectorAll('#grid .tile').length === 4")
    browser.run("[...document.querySelectorAll('#grid .star')][2].click()")
    walk.look("gallery")
    browser.run("location.hash = '#clip/2'")
    walk.until("document.querySelector('dialog[open] .star[aria-pressed=true]') !== null")
    walk.look("clip")
    browser.run("document.querySelector('dialog .close').click()")

    extended = walk.edit("extend", "2", edit_steps=STEPS)
    restyled = walk.edit("restyle", "2", "a blue circle moving left", edit_steps=8)
    joined = walk.edit("connect", "1,2", edit_steps=STEPS)
    looped = walk.edit("loop", "2", edit_steps=STEPS)

    # A mask that moves: painted at the first frame and at the last.
    browser.run("location.hash = '#edit/inpaint/2'")
    walk.until("document.querySelector('.stage canvas') !== null")
    walk.fill("edit-prompt", "a green circle moving left")
    walk.fill("edit-steps", STEPS)
    browser.run("document.querySelector('input[name=edit-count][value=\"1\"]').click()")
    browser.run("document.querySelector('.stage .check-line input').click()")
    slide = "document.querySelector('.stage label.slide input')"
    for frame, side in ((0, 0.7), (16, 0.3)):
        browser.run(f"{slide}.value = {frame}; {slide}.dispatchEvent(new Event('input'))")
        browser.run(
            "[...document.querySelectorAll('.stage button')].find(b => b.textContent === 'Clear').click()"
        )
        box = browser.run("(({x, y, width, height}) => [x, y, width, height])"
                          "(document.querySelector('.stage canvas').getBoundingClientRect())")  # fmt: skip
        place = (box[0] + side * box[2], box[1] + box[3] / 2)
        browser.drag(place, (place[0], place[1] + 20))
    walk.until("document.querySelector('.stage').textContent.includes('Painted at frame 1, 17')")
    walk.look("inpaint")
    walk.send()
    inpainted = walk.made(looped + 1)

    shown = walk.edit("keyframes", "1,2,3", "a red circle moving left", edit_steps=STEPS)
    trimmed = shown + 1
    browser.run("location.hash = '#edit/trim/2'")
    walk.until("document.querySelector('.edit .main') !== null")
    browser.run("(end => { end.value = 7; end.dispatchEvent(new Event('input')); })"
                "(document.querySelector('[aria-label=\"Last frame\"]'))")  # fmt: skip
    walk.look("trim")
    walk.send()
    walk.made(trimmed)

    # A long video of two segments.
    walk.fill("steps", STEPS)
    browser.run("document.querySelector('input[name=count][value=\"1\"]').click()")
    browser.run("document.getElementById('later').open = true")
    browser.run("document.querySelector('#later button').click()")
    browser.run("document.querySelector('.segment textarea').value = 'a red circle moving right'")
    walk.look("long")
    browser.run("document.getElementById('go').click()")
    long = walk.made(trimmed + 1)
    browser.run("location.hash = '#compare/1,2,3'")
    walk.until("document.querySelectorAll('#view-compare video').length === 3")
    walk.look("compare")

    # Downloaded, and made again from the file alone.
    browser.run(f"location.hash = '#clip/{inpainted}'")
    link = "document.querySelector('dialog a[download]')"
    walk.until(f"{link} !== null")
    size = browser.run(f"fetch({link}.href).then(a => a.arrayBuffer()).then(b => b.byteLength)")
    files = {number: walk.home / "clips" / f"{number:06d}.mp4" for number in range(1, long + 1)}
    assert size == files[inpainted].stat().st_size
    recipes = {number: read_recipe(file) for number, file in files.items()}
    steps = (extended, restyled, joined, looped, inpainted, shown, trimmed, long)
    assert [recipes[number].mode for number in steps] == [
        "extend", "restyle", "connect", "loop", "inpaint", "keyframes", "trim", "long"
    ]  # fmt: skip
    assert [frame for frame, _ in recipes[inpainted].masks] == [0, 16]
    assert recipes[trimmed].span == (0, 8)
    assert recipes[long].later == ("a red circle moving right",)
    for number in (inpainted, shown, trimmed):
        again = tmp_path / "again.mp4"
        remake(files[number], again)
        assert again.read_bytes() == files[number].read_bytes()
    assert browser.errors == []
