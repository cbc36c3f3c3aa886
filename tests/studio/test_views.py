"""Every view of the studio as it is first seen: nothing that axe-core calls a fault, and nothing that jumps.

axe-core is looked for as Node looks for it: in node_modules of this folder, or in a folder that NODE_PATH names.
Pictures of each view, wide and narrow, light and dark, are kept where MINISORA_PICTURES names a folder.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from chromium import Browser
from needs import NEEDS_CHROMIUM, NEEDS_SERVER
from processes import first_line, started

from minisora.studio.folders import run_id

_HERE = Path(__file__).parent


def _axe() -> Path | None:
    """The file of axe-core, if this machine has it."""
    named = [Path(each) for each in os.environ.get("NODE_PATH", "").split(os.pathsep) if each]
    files = [place / "axe-core" / "axe.min.js" for place in (Path("node_modules"), *named)]
    return next((file for file in files if file.is_file()), None)


pytestmark = [
    pytest.mark.slow,
    NEEDS_CHROMIUM,
    NEEDS_SERVER,
    pytest.mark.skipif(
        _axe() is None, reason="needs axe-core: npm install axe-core, or NODE_PATH to where it is"
    ),
]
# The doctor's visit is not a real one, as neither the training nor the maker of videos is.
_SERVER = """
import sys
from pathlib import Path
from minisora.studio import folder_checks
from minisora.studio.run_studio import run_studio
home, doctor, *worker = sys.argv[1:]
folder_checks.COMMAND = (sys.executable, "-c", doctor)
place = Path(home).parent
run_studio(["toy"], Path(home), None, 0, lambda address: print(address, flush=True), worker,
           data=[place / "clips"], runs=place / "runs")
"""
_DOCTOR = """
import json
part = {"usable": 12, "files": 13, "kept": 12, "clip": {"frames": 17, "height": 64, "width": 64, "fps": 8.0},
        "seconds": [2.0, 3.0], "without_caption": 0, "dropped": ["bad.mp4: no video"], "num_dropped": 1,
        "words": "usable: 12 clips"}
other = part | {"usable": 30, "clip": {"frames": 17, "height": 48, "width": 80, "fps": 15.0}}
print(json.dumps({"found": {"clips": part, "suggested": other, "reasons": "", "sets": {"clip.fps": 15}}}))
"""
SIZES = ((1280, 812), (375, 812))
# Sum of the layout shifts of a view that no key or button caused; 0.1 is what is called good.
MOST_SHIFT = 0.02
# Milliseconds until anything is answered, so that what was there before is painted without it.
LATE = 60
_SHIFTS = """
new Promise((done) => {
  const found = [];
  const watch = new PerformanceObserver((list) => found.push(...list.getEntries()));
  watch.observe({ type: "layout-shift", buffered: true });
  const name = ({ node }) => node?.id || node?.className || node?.nodeName;
  setTimeout(() => done(found.concat(watch.takeRecords()).filter((each) => !each.hadRecentInput)
    .map((each) => ({ value: each.value, of: each.sources.map(name).join(", ") }))), 100);
})
"""
_AXE = """
axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations.map((each) =>
  `${each.impact}, ${each.id}: ${each.nodes.map((node) => node.target.join(" ")).join(", ")}`))
"""


class Look:
    """At a studio, by a browser. `faults` has what was found.

    Args:
        browser: one that was let in.
        place: folder of the studio's home, its clips and its runs.
    """

    def __init__(self, browser: Any, place: Path):
        self.browser, self.place = browser, place
        self.faults: list[str] = []
        parts = urlsplit(browser.run("location.href"))
        self._address = f"{parts.scheme}://{parts.netloc}"
        axe = _axe()
        assert axe is not None
        self._axe = axe.read_text()
        pictures = os.environ.get("MINISORA_PICTURES")
        self._pictures = Path(pictures) if pictures else None

    def at(self, view: str, ready: str, then: str = "") -> None:
        """Load a view anew, wide and narrow, and hold it against the rules, dark and light.

        Args:
            view: what follows the address of the studio.
            ready: true when all of it is there.
            then: done before axe-core looks.
        """
        browser = self.browser
        for width, height in SIZES:
            browser.call(
                "Emulation.setDeviceMetricsOverride",
                width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
            )  # fmt: skip
            # A change behind the # alone would load nothing.
            browser.open("about:blank")
            browser.until("location.href === 'about:blank'")
            browser.open(f"{self._address}/{view}")
            browser.until(ready)
            browser.until("[...document.querySelectorAll('video')].every((each) => each.readyState > 1)")
            time.sleep(0.2)
            shifts = browser.run(_SHIFTS)
            if (total := sum(each["value"] for each in shifts)) > MOST_SHIFT:
                self.faults.append(f"{view} at {width}: shifts by {total:.3f}: {shifts}")
            if browser.run("document.documentElement.scrollWidth") > width:
                self.faults.append(f"{view} at {width}: scrolls sideways")
            if then:
                browser.run(then)
            browser.run(f"{self._axe}; null")
            for scheme in ("light", "dark"):
                features = [{"name": "prefers-color-scheme", "value": scheme}]
                browser.call("Emulation.setEmulatedMedia", features=features)
                self.faults += [f"{view} at {width}, {scheme}: {each}" for each in browser.run(_AXE)]
                if self._pictures is not None:
                    name = view.strip("#/").replace("/", "-").replace(",", "_")
                    browser.picture(self._pictures / f"view-{name}-{width}-{scheme}.png")


@pytest.fixture
def look(tmp_path: Path) -> Iterator[Look]:
    """At a studio in which nothing was made yet."""
    (tmp_path / "clips" / "games").mkdir(parents=True)
    (tmp_path / "clips" / "games" / "a.mp4").write_text("x")
    worker = [sys.executable, str(_HERE / "fake_engine.py")]
    command = [sys.executable, "-c", _SERVER, str(tmp_path / "home"), _DOCTOR, *worker]
    with (
        started(command, env={**os.environ, "FAKE_SECONDS": "0"}) as server,
        Browser(tmp_path / "profile") as browser,
    ):
        browser.open(first_line(server))
        browser.until("document.getElementById('go')?.disabled === false")
        browser.call("Network.enable")
        slow = {"latency": LATE, "downloadThroughput": -1, "uploadThroughput": -1}
        browser.call("Network.emulateNetworkConditions", offline=False, **slow)
        yield Look(browser, tmp_path)


def there(selector: str, count: int = 1) -> str:
    return f"document.querySelectorAll('{selector}').length >= {count}"


def press(selector: str) -> str:
    return f"document.querySelectorAll('{selector}').forEach((each) => each.click())"


def test_no_view_has_a_fault_and_none_jumps(look: Look) -> None:
    browser, place = look.browser, look.place
    # Empty, as on the first day.
    look.at("#make", there("#latest .empty button"))
    look.at(
        "#gallery",
        "document.getElementById('gallery-empty')?.hidden === false",
        press("#upload-open summary"),
    )
    look.at("#train", there(".train .empty button"))
    look.at("#train/world", there(".train .empty button"))
    look.at("#worlds", there(".teach:not([hidden]) pre"))
    look.at("#edit/extend/", there(".edit, #view-edit .empty a"))

    # Full: videos, a run that is done, a world.
    lock, run = place / "runs.lock", place / "runs" / "shapes"
    trainer = [
        sys.executable,
        str(_HERE / "fake_trainer.py"),
        str(lock),
        "train",
        "--out",
        str(run),
        "--minutes",
        "5",
    ]
    with subprocess.Popen(
        trainer, env={**os.environ, "FAKE_SECONDS": "0"}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.wait(100) == 0
    (place / "runs" / "garden" / "world").mkdir(parents=True)
    about = {"height": 64, "width": 64, "fps": 10, "steps": 2}
    (place / "runs" / "garden" / "world" / "world.json").write_text(json.dumps(about))
    browser.run("location.hash = '#make'")
    browser.until(there("#latest .empty button"))
    browser.run(press("#latest .empty button"))
    browser.until(there("#latest .tile video", 4))

    look.at("#make", there("#latest .tile video", 4))
    look.at("#gallery", there("#grid .tile", 4), press("#grid .pick input"))
    look.at("#clip/2", there("dialog[open] .star"))
    look.at("#compare/1,2,3", there("#view-compare video", 3))
    for mode, ids in (("extend", "2"), ("animate", "2"), ("restyle", "2"), ("inpaint", "2"), ("trim", "2"),
                      ("connect", "1,2"), ("keyframes", "1,2,3")):  # fmt: skip
        look.at(f"#edit/{mode}/{ids}", there(".edit .main"))
    look.at("#train", there(".run-row"))
    look.at(f"#train/{run_id('shapes')}", there(".curve svg", 2))
    look.at("#worlds", there(".world", 2))
    assert not look.faults, "\n".join(look.faults)
    # The page of a world, of one that is always there; on a busy machine it takes a while to start.
    browser.run("[...document.querySelectorAll('.world button')][0].click()")
    browser.wait(lambda: browser.run("location.pathname === '/world/'"), "the arena starts", 400)
    look.at("world/", there("#game:not([hidden]) #pad button", 2))
    assert not look.faults, "\n".join(look.faults)
    assert browser.errors == []


def test_the_button_that_makes_videos_is_seen_at_once(look: Look) -> None:
    """In a window of a laptop, also of one that is low: there the rest of the form goes by behind it."""
    browser = look.browser
    bottom = "document.getElementById('go').getBoundingClientRect().bottom"
    for height in (812, 600):
        browser.call(
            "Emulation.setDeviceMetricsOverride", width=1280, height=height, deviceScaleFactor=1, mobile=False
        )
        browser.until(f"innerHeight === {height} && {bottom} > 0 && {bottom} <= {height}")
