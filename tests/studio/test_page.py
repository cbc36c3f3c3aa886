"""A person at the page, in a headless Chromium: types, makes four, sees them form, compares, keeps, finds again."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Browser
from needs import NEEDS_CHROMIUM, NEEDS_SERVER
from PIL import Image
from processes import first_line, started

from minisora.pipelines.mask_path import mask_path
from minisora.pipelines.recipe import pack_mask, read_recipe, unpack_mask

_HERE = Path(__file__).parent
pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM, NEEDS_SERVER]
_SERVER = """
import sys
from pathlib import Path
from minisora.studio.run_studio import run_studio
run_studio(["toy"], Path(sys.argv[1]), None, 0, lambda address: print(address, flush=True), sys.argv[2:])
"""
_UNLIMITED = {"downloadThroughput": -1, "uploadThroughput": -1}
# At every frame in which the view is seen, whether the choice of models is.
_WATCH = """
window.seen = [];
const look = () => {
  const field = document.getElementById("model-field");
  if (field && !document.getElementById("view-make").hidden) window.seen.push(!field.hidden);
  requestAnimationFrame(look);
};
look();
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a studio whose engine needs no torch."""
    worker = [sys.executable, str(_HERE / "fake_engine.py")]
    command = [sys.executable, "-c", _SERVER, str(tmp_path / "home"), *worker]
    with started(command, env={**os.environ, "FAKE_SECONDS": "0.005"}) as server:
        yield first_line(server)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with Browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@pytest.fixture
def browser(opened: Any) -> Iterator[Any]:
    """One for all tests; each has a studio of its own."""
    opened.errors.clear()
    yield opened
    opened.open("about:blank")


def test_from_words_to_a_chosen_video(address: str, browser: Any, tmp_path: Path) -> None:
    browser.open(address)
    browser.until("document.getElementById('go')?.disabled === false")
    assert "token" not in browser.run("location.href")
    assert browser.run("document.querySelector('#latest .empty button').textContent") == (
        "Make “a red circle moving left”"
    )

    # Words are offered, and no commas; the first one fits what was begun.
    browser.run("document.getElementById('prompt').focus()")
    offered = "[...document.querySelectorAll('#words li')].slice(0, 2).map(li => li.textContent)"
    assert browser.run(offered) == ["a", "moving"]
    browser.type("a red circle mo")
    assert browser.run("[...document.querySelectorAll('#words li')].map(li => li.textContent)") == ["moving"]
    browser.key("ArrowDown")
    browser.key("Enter")
    browser.type("left <img src=x onerror=alert(1)>")
    assert browser.run("document.getElementById('prompt').value") == (
        "a red circle moving left <img src=x onerror=alert(1)>"
    )
    assert "never saw: <, img" in browser.run("document.getElementById('prompt-note').textContent")
    assert "4 × 36.9 GFLOPs" in browser.run("document.getElementById('cost').textContent")
    assert "once the first video" in browser.run("document.getElementById('cost').textContent")
    browser.key("Enter")
    browser.until("document.querySelectorAll('#latest .tile canvas').length >= 3")
    browser.until("document.querySelectorAll('#latest .tile video').length === 4")
    assert "by the last" in browser.run("document.getElementById('cost').textContent")
    # The prompt is text wherever it stands.
    assert browser.run("document.querySelectorAll('main img[src=x], main [onerror]').length") == 0
    browser.until("[...document.querySelectorAll('video')].every(video => video.readyState > 1)")

    # Two are chosen in the gallery by keys alone, and compared in step.
    browser.run("location.hash = '#gallery'")
    browser.until("document.querySelectorAll('#grid .tile').length === 4")
    browser.run("document.querySelector('#grid .frame').focus()")
    for key in (" ", "ArrowRight", " "):
        browser.key(key)
    browser.until("document.querySelector('#chosen a') !== null")
    browser.run("document.querySelector('#chosen a').click()")
    browser.until("document.querySelectorAll('#view-compare video').length === 2")
    browser.run("document.querySelector('#view-compare button[aria-label=\"One frame on\"]').click()")
    times = browser.run(
        "[...document.querySelectorAll('#view-compare video')].map(video => video.currentTime)"
    )
    assert times[0] == times[1] > 0

    # One is opened, kept as a favourite, and its settings used again.
    browser.run("location.hash = '#clip/2'")
    browser.until("document.querySelector('dialog[open] .star') !== null")
    seed = browser.run("document.querySelector('dialog td').textContent")
    browser.run("document.querySelector('dialog .star').click()")
    link = "document.querySelector('dialog a[download]')"
    assert browser.run(f"fetch({link}.href).then(a => a.arrayBuffer()).then(b => b.byteLength)") > 1000
    assert browser.run(f"{link}.download") == f"a-red-circle-moving-left-img-src-x-onerror-alert-1-{seed}.mp4"
    browser.run("document.querySelector('dialog .main-action').click()")
    assert browser.run("document.querySelector('dialog').open") is False
    assert browser.run(
        "[document.getElementById('seed').value, document.getElementById('lock').checked]"
    ) == [seed, True]
    browser.run("location.hash = '#gallery'; document.getElementById('favourites').click()")
    browser.until("document.getElementById('found').textContent === '1 video'")
    # What was deleted while a page slept is gone when it begins anew.
    anew = "state.clips.set(99, state.clips.get(1)); await begin(); return [...state.clips.keys()];"
    found = browser.run(f"import('/server.js').then(async ({{ state, begin }}) => {{ {anew} }})")
    assert sorted(found) == [1, 2, 3, 4]
    # Nothing was refused by the page's own policy, and nothing failed.
    assert browser.errors == []


def test_a_region_is_painted_and_the_video_extended(address: str, browser: Any, tmp_path: Path) -> None:
    browser.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}]
    )
    browser.open(address)
    browser.until("document.getElementById('go')?.disabled === false")
    browser.run("document.querySelector('#latest .empty button').click()")
    browser.until("document.querySelectorAll('#latest .tile video').length === 4")
    # For who wants nothing to move, nothing does.
    assert browser.run("[...document.querySelectorAll('video')].every(video => video.paused)") is True
    browser.run("location.hash = '#edit/inpaint/1'")
    browser.until("document.querySelector('.stage canvas') !== null")
    main = "document.querySelector('.edit .main')"
    assert browser.run(f"{main}.disabled") is True
    assert browser.run("document.querySelector('.edit .cost').textContent") == "Paint over what is to change."
    box = browser.run("(({x, y, width, height}) => [x, y, width, height])"
                      "(document.querySelector('.stage canvas').getBoundingClientRect())")  # fmt: skip
    middle = (box[0] + box[2] / 2, box[1] + box[3] / 2)
    browser.drag((middle[0] - 90, middle[1]), middle, (middle[0] + 90, middle[1]))
    browser.until(
        f"{main}.disabled === false && document.querySelector('.edit .cost').textContent.includes('GFLOPs')"
    )
    browser.run(f"{main}.click()")
    browser.until(
        "location.hash === '#make' && document.querySelectorAll('#latest .tile video').length === 6"
    )
    browser.run("location.hash = '#clip/5'")
    browser.until("document.querySelector('dialog .family a') !== null")
    assert browser.run("document.querySelector('dialog .family a').getAttribute('href')") == "#clip/1"
    browser.run("document.querySelector('dialog a[href=\"#edit/extend/5\"]').click()")
    browser.until(f"{main}?.textContent === 'Extend: 2 videos' && {main}.disabled === false")
    browser.run(f"{main}.click()")
    browser.until("document.querySelectorAll('#latest .tile video').length === 8")
    recipe = read_recipe(tmp_path / "home" / "clips" / "000007.mp4")
    assert [recipe.mode, recipe.parents[0].mode, recipe.parents[0].parents[0].mode] == [
        "extend",
        "inpaint",
        "sample",
    ]
    rows = unpack_mask(recipe.parents[0].mask or "", 64, 64)
    # What was painted: a stroke through the middle, and nothing at the edge.
    assert rows[32][32]
    assert not any(rows[2])
    assert browser.errors == []


def test_a_file_is_uploaded_and_gone_on_from(address: str, browser: Any, tmp_path: Path) -> None:
    browser.open(f"{address}#gallery")
    browser.until("document.getElementById('upload-model')?.value === 'toy'")
    Image.new("RGB", (80, 48), (200, 40, 40)).save(tmp_path / "<b>me & you.png")
    (tmp_path / "no.mp4").write_bytes(b"#EXTM3U")
    browser.run("location.hash = '#gallery'; document.querySelector('#upload-open').open = true")
    line = "document.getElementById('upload-line').textContent"
    for name, said in (
        ("no.mp4", "no.mp4 is no mp4, mov, webm, gif, png, jpeg or webp"),
        ("<b>me & you.png", "<b>me & you.png is in the gallery."),
    ):
        browser.choose_file("document.getElementById('upload-file')", tmp_path / name)
        browser.run("document.getElementById('upload').requestSubmit()")
        browser.until(f"{line} === {said!r}")
    browser.until("document.querySelectorAll('#grid .tile').length === 1")
    assert browser.run("document.querySelector('#grid .title').textContent") == "<b>me & you.png"
    browser.run("location.hash = '#clip/1'")
    browser.until("document.querySelector('dialog a[href=\"#edit/animate/1\"]') !== null")
    assert "--upload ORIGINAL" in browser.run("document.querySelector('dialog').textContent")
    browser.run("location.hash = '#edit/animate/1'")
    main = "document.querySelector('.edit .main')"
    browser.until(f"{main} !== null")
    browser.run("document.getElementById('edit-prompt').value = 'a red circle moving left'")
    browser.run("document.getElementById('edit-prompt').dispatchEvent(new Event('input', {bubbles: true}))")
    browser.until(f"{main}.disabled === false")
    browser.run(f"{main}.click()")
    # The upload stands there too, and the two that were made from it.
    browser.until("document.querySelectorAll('#latest .tile video').length === 3")
    recipe = read_recipe(tmp_path / "home" / "clips" / "000002.mp4")
    assert [recipe.mode, recipe.parents[0].name] == ["animate", "<b>me & you.png"]
    # The one that was refused is a line in the browser's own log as well.
    assert [error for error in browser.errors if "400" not in error] == []


def test_a_model_that_cannot_be_read_blocks_no_other(browser: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "model"
    broken.mkdir(parents=True)
    (broken / "model_index.json").write_text("{}")
    worker = [sys.executable, str(_HERE / "fake_engine.py")]
    script = _SERVER.replace('["toy"]', f"[{str(broken)!r}, 'toy']")
    with started([sys.executable, "-c", script, str(tmp_path / "home"), *worker]) as server:
        browser.open(first_line(server))
        browser.until("import('/server.js').then(({ state }) => state.numModels === 2)")
        browser.until("document.getElementById('model-field').hidden === false")
        # From now on the choice has its place before there is anything to choose from: nothing moves.
        watch = browser.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)["identifier"]
        browser.call("Network.emulateNetworkConditions", offline=False, latency=60, **_UNLIMITED)
        browser.call("Page.reload")
        browser.until("window.seen?.length > 0 && document.getElementById('model').options.length === 2")
        assert set(browser.run("seen")) == {True}
        browser.call("Network.emulateNetworkConditions", offline=False, latency=0, **_UNLIMITED)
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=watch)
        browser.until("document.getElementById('go')?.disabled === false")
        browser.until("document.getElementById('model').options.length === 2")
        assert browser.run("document.getElementById('model').value") == "toy"
        browser.run("document.querySelector('#latest .empty button').click()")
        browser.until("document.querySelectorAll('#latest .tile video').length === 4")
        browser.run("location.hash = '#edit/extend/1'")
        browser.until("document.querySelector('.edit .main')?.disabled === false")
        # The one that cannot be used says why where it is chosen.
        browser.run("location.hash = '#make'; document.getElementById('model').value = 'broken'")
        browser.run("document.getElementById('model').dispatchEvent(new Event('change', { bubbles: true }))")
        assert browser.run("document.getElementById('go').disabled") is True
        # An example is of the model that is chosen.
        assert browser.run("document.querySelector('#latest .empty button')") is None
        assert "broken is damaged" in browser.run("document.getElementById('make').textContent")
    assert browser.errors == []


def test_a_mask_moves_on_the_page_as_it_does_when_it_is_sampled(address: str, browser: Any) -> None:
    browser.open(address)
    browser.until("document.getElementById('go')?.disabled === false")
    rng = np.random.default_rng(0)
    height, width, frames = 9, 12, 11
    masks = {}
    for frame in (1, 4, 8):
        top, left = int(rng.integers(0, 5)), int(rng.integers(0, 7))
        masks[frame] = np.zeros((height, width), bool)
        masks[frame][top : top + int(rng.integers(1, 6)), left : left + int(rng.integers(1, 6))] = True
    masks[10] = np.zeros((height, width), bool)
    given = [[frame, mask.astype(int).ravel().tolist()] for frame, mask in masks.items()]
    shown = browser.run(
        "import('/mask.js').then(({ maskAt }) => {"
        f" const masks = new Map({given}.map(([frame, mask]) => [frame, Uint8Array.from(mask)]));"
        f" return Array.from({{ length: {frames} }}, (_, t) => [...maskAt(masks, t, {width}, {height})]); }})"
    )
    packed = [(frame, pack_mask(mask.tolist())) for frame, mask in masks.items()]
    assert mask_path(packed, frames, height, width).reshape(frames, -1).int().tolist() == shown


def test_a_step_that_is_taken_again_begins_with_what_it_had(
    address: str, browser: Any, tmp_path: Path
) -> None:
    browser.open(address)
    browser.until("document.getElementById('go')?.disabled === false")
    asked = {
        "model": "toy",
        "prompt": "red",
        "frames": 9,
        "height": 64,
        "width": 64,
        "steps": 2,
        "guidance": 3,
    }
    shown = {
        "mode": "keyframes",
        "parents": [2, 1, 2],
        "keyframes": [3, 0, 5],
        "later": ["blue"],
        "prompt": "green",
    }
    for more, number in (({"count": 2}, 2), (shown, 3)):
        body = json.dumps({**asked, **more})
        browser.run(f"import('/server.js').then(({{ ask }}) => ask('/api/jobs', {body}))")
        browser.until(f"document.querySelectorAll('#latest .tile video').length === {number}")
    browser.run("location.hash = '#clip/3'")
    browser.until("document.querySelector('dialog[open] .main-action') !== null")
    browser.run("document.querySelector('dialog .main-action').click()")
    browser.until(
        "location.hash === '#edit/keyframes/2,1,2' && document.querySelector('.edit form') !== null"
    )
    found = browser.run(
        "[...document.querySelectorAll('.screen input')].map(key => key.value).concat("
        "document.getElementById('edit-prompt').value, document.querySelector('.segment textarea').value,"
        "document.getElementById('edit-steps').value)"
    )
    assert found == ["3", "0", "5", "green", "blue", "2"]
    assert browser.errors == []


def test_what_fails_is_told_and_a_killed_worker_comes_back(address: str, browser: Any) -> None:
    browser.open(address)
    browser.until("document.getElementById('go')?.disabled === false")
    browser.run("document.querySelector('input[name=count][value=\"1\"]').click()")
    for prompt in ("fail", "a red crash", "blue"):
        browser.run(f"document.getElementById('prompt').value = '{prompt}'")
        browser.run("document.getElementById('make').requestSubmit()")
        browser.until("document.getElementById('go').disabled === false")
    browser.until("document.querySelectorAll('#latest .tile video').length === 1")
    lines = browser.run("[...document.querySelectorAll('.why')].map(line => line.textContent)")
    assert lines[1] == "the prompt says <b>fail</b>: say something else"
    assert "the worker died while it made this, twice" in lines[0]
    assert browser.errors == []
