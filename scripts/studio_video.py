"""Writes the README's picture of the studio: a person at its page, filmed in a headless Chromium.

python scripts/studio_video.py    two minutes on one core; needs Chromium

The model is the shipped one, the first four seeds are 0 to 3, and what is seen is what it made: nothing was chosen.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from minisora.files import whole

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
OUT = RESULTS / "studio.gif"
WIDTH, HEIGHT, COLORS = 1000, 640, 96
MOST_BYTES = 2_000_000
_SERVER = """
import sys
from pathlib import Path
from minisora.studio.run_studio import run_studio
run_studio(["toy"], Path(sys.argv[1]), None, 0, lambda address: print(address, flush=True))
"""


class Film:
    """Pictures of the page, one after another, each shown for some milliseconds."""

    def __init__(self, browser: Any, folder: Path):
        self.browser, self._file = browser, folder / "frame.png"
        self._pictures: list[Image.Image] = []
        self._times: list[int] = []

    def shot(self, milliseconds: int = 120) -> None:
        """What is seen now."""
        self.browser.picture(self._file)
        with Image.open(self._file) as image:
            self._pictures.append(image.convert("RGB"))
        self._times.append(milliseconds)

    def shots(self, count: int, between: Callable[[int], object] = lambda _: None) -> None:
        """Some pictures, with what happens before each of them."""
        for number in range(count):
            between(number)
            self.shot()

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        return self.browser.run(script)

    def until(self, script: str) -> Any:
        """Wait for an expression to become true."""
        return self.browser.wait(lambda: self.browser.run(script), script, 600)

    def write(self, out: Path) -> None:
        """The gif; its colours are those of all pictures together."""
        every = Image.new("RGB", (WIDTH, HEIGHT * len(self._pictures[::6])))
        for number, picture in enumerate(self._pictures[::6]):
            every.paste(picture, (0, HEIGHT * number))
        palette = every.quantize(COLORS)
        first, *rest = [
            picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in self._pictures
        ]
        with whole(out) as partial:
            first.save(
                partial,
                format="GIF",
                save_all=True,
                append_images=rest,
                duration=self._times,
                loop=0,
                optimize=True,
            )


def walk(film: Film) -> None:
    """Words, four videos as they form, one of them inpainted, and both compared."""
    film.until("document.getElementById('go')?.disabled === false")
    film.run("document.getElementById('lock').click(); document.getElementById('seed').value = 0")
    film.run("document.getElementById('prompt').focus()")
    film.shot(700)
    for word in ("a ", "red ", "circle ", "moving ", "left"):
        film.browser.type(word)
        film.shot(220)
    film.shot(900)
    film.run("document.getElementById('go').click()")
    film.until("document.querySelectorAll('#latest .tile').length === 4")
    done = "document.querySelectorAll('#latest .tile video').length === 4"
    # As many pictures as show how they form, on a machine of any speed.
    before = -1
    while not film.run(done):
        step = film.run(
            "[...document.querySelectorAll('#latest progress')].reduce((sum, bar) => sum + bar.value, 0)"
        )
        if abs(step - before) >= 4:
            film.shot(100)
            before = step
    film.until("[...document.querySelectorAll('video')].every(video => video.readyState > 2)")
    _play(film, "#latest video", 2)
    film.run("location.hash = '#edit/inpaint/1'")
    film.until("document.querySelector('.stage canvas') !== null")
    film.run(f"{_field('edit-prompt')}.value = 'a green circle moving left'")
    film.run(f"{_field('edit-prompt')}.dispatchEvent(new Event('input', {{ bubbles: true }}))")
    film.run("document.querySelector('input[name=edit-count][value=\"1\"]').click()")
    film.run("window.scrollTo(0, 0)")
    film.shot(900)
    box = film.run("(({x, y, width, height}) => [x, y, width, height])"
                   "(document.querySelector('.stage canvas').getBoundingClientRect())")  # fmt: skip
    # The brush as wide as it goes, over the middle where the circle passes.
    film.run("(size => { size.value = size.max; size.dispatchEvent(new Event('input')); })"
             "(document.querySelectorAll('.stage label.slide input')[1])")  # fmt: skip
    for share in (0.15, 0.35, 0.55, 0.75, 0.9):
        place = (box[0] + share * box[2], box[1] + 0.45 * box[3])
        film.browser.drag(place, (place[0] + 5, place[1]))
        film.shot(250)
    film.shot(700)
    film.until("document.querySelector('.edit .main').disabled === false")
    film.run("document.querySelector('.edit .main').click()")
    film.until("document.querySelectorAll('#latest .tile video').length === 5")
    film.run("location.hash = '#compare/1,5'")
    film.until("document.querySelectorAll('#view-compare video').length === 2")
    film.until("[...document.querySelectorAll('#view-compare video')].every(video => video.readyState > 2)")
    film.run("window.scrollTo(0, 0)")
    # Paused, so that each picture is of the next frame.
    film.run("document.querySelector('.transport button[aria-label=\"One frame on\"]').click()")
    film.shots(34, lambda _: _next(film))
    film.shot(1200)


def _field(name: str) -> str:
    return f"document.getElementById({json.dumps(name)})"


def _next(film: Film) -> None:
    film.run("document.querySelector('.transport button[aria-label=\"One frame on\"]').click()")
    film.until("[...document.querySelectorAll('#view-compare video')].every(video => !video.seeking)")


def _play(film: Film, videos: str, times: int) -> None:
    """Every frame of some videos, sought one by one."""
    film.run(f"for (const video of document.querySelectorAll('{videos}')) video.pause()")

    def seek(frame: int) -> None:
        film.run(
            f"for (const v of document.querySelectorAll('{videos}')) v.currentTime = ({frame % 17} + 0.5) / 8"
        )
        film.until(f"[...document.querySelectorAll('{videos}')].every(video => !video.seeking)")

    film.shots(17 * times, seek)


def main() -> int:
    """Film it; the exit code."""
    sys.path.append(str(ROOT / "tests" / "driven"))
    from chromium import Browser, find_chromium
    from processes import first_line, started

    if find_chromium() is None:
        print("error: there is no Chromium: install it, such as by apt-get install chromium", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            started([sys.executable, "-c", _SERVER, str(folder / "home")]) as server,
            Browser(folder / "profile") as browser,
        ):
            browser.call(
                "Emulation.setDeviceMetricsOverride",
                width=WIDTH,
                height=HEIGHT,
                deviceScaleFactor=1,
                mobile=False,
            )
            browser.open(first_line(server))
            film = Film(browser, folder)
            begin = time.monotonic()
            walk(film)
            film.write(OUT)
    size = OUT.stat().st_size
    print(f"wrote {OUT.relative_to(ROOT)}: {size:,} bytes, {time.monotonic() - begin:.0f} s")
    if size > MOST_BYTES:
        print(f"error: more than {MOST_BYTES:,} bytes: take fewer colours", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
