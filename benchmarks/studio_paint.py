"""When a view of the studio is first seen, and how far it jumps: in a headless Chromium, over loopback.

    python benchmarks/studio_paint.py --json FILE

Each view is loaded `--loads` times in a window of 1280 x 812 and of 375 x 812 pixels, with nothing kept of the loads
before. Timed is the first contentful paint, from the start of the navigation; beside it stands the worst cumulative
layout shift. The studio has a few videos, made by the engine of the tests: what is measured is the page.
"""

import argparse
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from studio_client import ASKED, FAKE, Studio, shares

from minisora.files import write_json
from minisora.flops.device import describe_device

WIDTHS, HEIGHT = (1280, 375), 812
VIDEOS = 8
# Each view, and what is there when all of it is.
VIEWS = {
    "make": f"document.querySelectorAll('#latest .tile video').length === {VIDEOS}",
    "gallery": f"document.querySelectorAll('#grid .tile').length === {VIDEOS}",
    "clip/1": "document.querySelector('dialog[open] .star') !== null",
    "compare/1,2": "document.querySelectorAll('#view-compare video').length === 2",
    "edit/inpaint/1": "document.querySelector('.edit .main') !== null",
    "train": "Boolean(document.querySelector('.train form')?.offsetParent)",
    "worlds": "document.querySelectorAll('.world').length > 0",
}
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
_SHIFT = """
new Promise((done) => {
  let sum = 0;
  const add = (each) => { sum += each.hadRecentInput ? 0 : each.value; };
  const watch = new PerformanceObserver((list) => list.getEntries().forEach(add));
  watch.observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(sum), 100);
})
"""


def measure(studio: Studio, browser: Any, loads: int) -> list[dict[str, Any]]:
    """Every view at every width, so many times."""
    rows = []
    address = f"http://127.0.0.1:{studio.port}"
    browser.open(f"{address}/?token={studio.token}")
    browser.until("document.getElementById('go')?.disabled === false")
    browser.call("Network.enable")
    for width in WIDTHS:
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=HEIGHT, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        for view, ready in VIEWS.items():
            paints, shifts = [], []
            for _ in range(loads):
                # A change behind the # alone would load nothing.
                browser.open("about:blank")
                browser.until("location.href === 'about:blank'")
                browser.call("Network.clearBrowserCache")
                browser.open(f"{address}/#{view}")
                browser.until(ready)
                paints.append(browser.until(_PAINT))
                time.sleep(0.1)
                shifts.append(browser.run(_SHIFT))
            rows.append({"view": view, "width": width, "milliseconds": shares(paints), "shift": max(shifts)})
    return rows


def main() -> None:
    """Run it and write what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loads", type=int, default=10)
    parser.add_argument("--json", type=Path, required=True, help="write the result here")
    parser.add_argument("--note", default="", help="what else ran on the machine")
    arguments = parser.parse_args()
    sys.path.append(str(FAKE.parents[1] / "driven"))
    from chromium import Browser, find_chromium

    if find_chromium() is None:
        parser.error("there is no Chromium: install it, such as by apt-get install chromium")
    with tempfile.TemporaryDirectory() as place:
        studio = Studio(Path(place) / "home", step_seconds=0)
        try:
            studio.ask("POST", "/api/jobs", {**ASKED, "steps": 4, "count": VIDEOS})
            studio.wait(lambda: studio.ask("GET", "/api/clips")[1]["total"] == VIDEOS, "the videos are made")
            with Browser(Path(place) / "profile") as browser:
                rows = measure(studio, browser, arguments.loads)
        finally:
            studio.close()
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_device("cpu", torch.float32), "note": arguments.note, "loads": arguments.loads,
    }  # fmt: skip
    write_json(arguments.json, {**about, "views": rows})
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
