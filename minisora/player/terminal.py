"""Play in a terminal: half blocks of 24-bit colour, arrows and WASD, and the terminal as it was when it ends.

A terminal tells when a key goes down, and few tell when it comes up (those that know the Kitty keyboard protocol,
https://sw.kovidgoyal.net/kitty/keyboard-protocol/, which is asked for). In the others a key counts as held for as long
as it repeats.

Letters: H height, W width of a frame; R rows and C columns of characters, each of which shows two pixels, one above
the other.
"""

import math
import os
import re
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from minisora.errors import UserError
from minisora.limits import seed_after
from minisora.screen import plain
from minisora.worlds.game import drift
from minisora.worlds.play import Loop, Shown, keys

# Another screen, no cursor; keys with their releases (Kitty's flags 1, 2 and 8), and whether the terminal knows them.
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[>11u\x1b[?u"
_LEAVE = b"\x1b[<u\x1b[0m\x1b[?25h\x1b[?1049l"
# What is drawn appears at once, in terminals that know how.
_TOGETHER, _SHOW = "\x1b[?2026h", "\x1b[?2026l"
# Seconds that a key counts as held, where nothing tells that it came up: keyboards repeat 20 times a second or more.
_HOLD = 0.12
# Below the picture.
_LINES = 2
_BETWEEN = 2  # columns, of the dream and the true world

_SEQUENCE = re.compile(rb"\x1b\[([0-9:;?]*)([A-Za-z~])|\x1bO([A-D])|([\x20-\x7e\x03])|.", re.S)
_ARROWS = {"A": "ArrowUp", "B": "ArrowDown", "C": "ArrowRight", "D": "ArrowLeft"}
_CTRL = 4  # of Kitty's modifiers, less one


class Key(NamedTuple):
    """What a key did, by the name that browsers give to it: "ArrowUp", "KeyW", "Space", "Digit1", "Interrupt"."""

    name: str
    does: Literal["down", "up"]


class KeyReader:
    """What a terminal sends -> keys.

    `releases` says whether it is known to tell when a key comes up.
    """

    def __init__(self) -> None:
        self.releases = False
        self._rest = b""

    def read(self, sent: bytes) -> list[Key]:
        """The keys in some bytes; the beginning of a sequence waits for its end."""
        sent, self._rest = self._rest + sent, b""
        if cut := re.search(rb"\x1b(\[[0-9:;?]*|O)?$", sent):
            sent, self._rest = sent[: cut.start()], sent[cut.start() :]
        found = (self._key(match) for match in _SEQUENCE.finditer(sent))
        return [key for key in found if key is not None]

    def _key(self, match: re.Match[bytes]) -> Key | None:
        if match[4]:
            return Key(_named(match[4][0]), "down")
        if match[3]:
            return Key(_ARROWS[match[3].decode()], "down")
        if match[2] is None:
            return None
        numbers, kind = match[1].decode(), match[2].decode()
        # An answer of the terminal's, and no key.
        if numbers.startswith("?"):
            self.releases = self.releases or kind == "u"
            return None
        code, _, after = numbers.partition(";")
        modifiers, _, event = after.partition(";")[0].partition(":")
        does: Literal["down", "up"] = "up" if event == "3" else "down"
        if kind in _ARROWS:
            return Key(_ARROWS[kind], does)
        number = int(code.partition(":")[0] or 0)
        if kind != "u" or number > 0x7E:
            return None
        if (int(modifiers or 1) - 1) & _CTRL:
            return {"c": Key("Interrupt", does), "z": Key("Suspend", does)}.get(chr(number))
        return Key(_named(number), does)


def _named(code: int) -> str:
    character = chr(code).upper()
    if character.isdigit():
        return f"Digit{character}"
    return {" ": "Space", "\x03": "Interrupt"}.get(character, f"Key{character}")


class Picture:
    """Frames as half blocks; of what is drawn again only the lines' parts that changed."""

    def __init__(self) -> None:
        self._drawn: np.ndarray | None = None

    def forget(self) -> None:
        """The screen was cleared: everything is drawn anew."""
        self._drawn = None

    def draw(self, frames: list[Tensor], columns: int, rows: int) -> str:
        """What makes a terminal show frames side by side, from its upper left corner.

        Args:
            frames: `3 H W` uint8 each, of one size.
            columns, rows: of characters that there are.
        """
        pixels = _fitted(frames, columns, 2 * rows)  # 2R C 3
        cells = np.concatenate([pixels[0::2], pixels[1::2]], axis=2)  # R C 6
        before = self._drawn if self._drawn is not None and self._drawn.shape == cells.shape else None
        self._drawn = cells
        lines = []
        for row, line in enumerate(cells):
            changed = np.flatnonzero((line != before[row]).any(axis=1)) if before is not None else None
            if changed is None:
                lines.append(_line(row, 0, line))
            elif len(changed):
                first, last = int(changed[0]), int(changed[-1]) + 1
                lines.append(_line(row, first, line[first:last]))
        return "".join(lines) + ("\x1b[0m" if lines else "")


def _fitted(frames: list[Tensor], width: int, height: int) -> np.ndarray:
    """Frames side by side, as large as fits: `H W 3` uint8 with an even height."""
    own_height, own_width = frames[0].shape[1:]
    room = (width - _BETWEEN * (len(frames) - 1)) // len(frames)
    scale = min(room / own_width, height / own_height)
    # Whole pixels stay crisp.
    scale = float(int(scale)) if scale >= 1 else scale
    size = (max(2, int(own_height * scale) // 2 * 2), max(1, int(own_width * scale)))
    batch = torch.stack(frames).float()
    resized = (
        functional.interpolate(batch, size=size, mode="nearest")
        if scale >= 1
        else functional.interpolate(batch, size=size, mode="bilinear", antialias=True)
    )
    pixels = resized.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()  # B H W 3
    gap = np.zeros((size[0], _BETWEEN, 3), np.uint8)
    parts = [part for each in pixels for part in (gap, each)][1:]
    return np.concatenate(parts, axis=1)


def _line(row: int, column: int, cells: np.ndarray) -> str:
    """Characters of a line (C 6: upper RGB, lower RGB) from a column on; a colour is named where it changes."""
    parts, upper, lower = [f"\x1b[{row + 1};{column + 1}H"], None, None
    for cell in cells.tolist():
        if cell[:3] != upper:
            upper = cell[:3]
            parts.append("\x1b[38;2;{};{};{}m".format(*upper))
        if cell[3:] != lower:
            lower = cell[3:]
            parts.append("\x1b[48;2;{};{};{}m".format(*lower))
        parts.append("▀")
    return "".join(parts)


class TerminalPlayer:
    """A person at a terminal.

    Args:
        loop: the game; entered.
        save: writes what was played and says where.
        source, target: descriptors of the terminal, to read from and to write to.
    """

    def __init__(self, loop: Loop, save: Callable[[], str], source: int, target: int) -> None:
        self.loop, self.save = loop, save
        self.source, self.target = source, target
        self.reader = KeyReader()
        self.picture = Picture()
        self.keys = keys(loop.game.world.buttons)
        self._said = ""
        self._lines: list[str] = []
        self._size = (0, 0)
        self._drawn = 0
        self._presses: dict[int, float] = {}
        self._press = 0
        self._latency: float | None = None
        # Buttons that are held, and when each counts as up, where nothing tells.
        self._held: dict[str, float] = {}
        self._ended = False

    def play(self) -> None:
        """Until the person ends it.

        Raises:
            UserError: it is no terminal.
        """
        heard, wake = os.pipe()
        os.set_blocking(wake, False)

        def woken() -> None:
            # A full pipe wakes as well.
            with suppress(BlockingIOError):
                os.write(wake, b".")

        self.loop.on_picture = woken
        try:
            with _terminal(self.source, self.target, self._resumed, woken):
                self._draw()
                while not self._ended:
                    ready, _, _ = select.select([self.source, heard], [], [], self._next_release())
                    if heard in ready:
                        os.read(heard, 4096)
                    if self.source in ready:
                        self._read()
                    self._release()
                    self._draw()
        finally:
            self.loop.on_picture = lambda: None
            os.close(heard)
            os.close(wake)

    def _resumed(self, suspended: bool) -> None:
        """The process was stopped and goes on, or is about to be stopped."""
        self.loop.pause(True)
        if not suspended:
            self._size = (0, 0)

    def _read(self) -> None:
        try:
            sent = os.read(self.source, 4096)
        except OSError:
            # The terminal is gone.
            sent = b""
        if not sent:
            self._ended = True
        for key in self.reader.read(sent):
            if key.name == "Interrupt":
                raise KeyboardInterrupt
            if button := self.keys.get(key.name):
                self._hold(button, key)
            elif key.does == "down":
                self._command(key.name)

    def _hold(self, button: str, key: Key) -> None:
        if key.does == "up":
            self._held.pop(button, None)
            self.loop.release(button)
            return
        if button not in self._held:
            self._press += 1
            self._presses[self._press] = time.monotonic()
        self._held[button] = math.inf if self.reader.releases else time.monotonic() + _HOLD
        self.loop.press(button, self._press)

    def _next_release(self) -> float | None:
        """Seconds until a key counts as up; None: no key will."""
        until = min(self._held.values(), default=math.inf)
        return None if until == math.inf else max(0.0, until - time.monotonic())

    def _release(self) -> None:
        for button in [name for name, until in self._held.items() if until <= time.monotonic()]:
            del self._held[button]
            self.loop.release(button)

    def _command(self, key: str) -> None:
        begun = self.loop.game.beginning
        if key == "KeyQ":
            self._ended = True
        elif key == "KeyR":
            self.loop.begin(begun)
        elif key == "KeyN":
            self.loop.begin(replace(begun, seed=seed_after(begun.seed, 1)))
        elif key in ("Space", "KeyP"):
            self._said = "paused: any button goes on" if self.loop.pause() else ""
        elif key == "KeyV":
            self.loop.pause(True)
            try:
                self._said = self.save()
            except UserError as error:
                self._said = str(error)
        elif key == "Suspend":
            os.kill(os.getpid(), signal.SIGTSTP)

    def _draw(self) -> None:
        shown = self.loop.shown
        size = os.get_terminal_size(self.target)
        # Of some terminals on a line the size is not known.
        size = size if all(size) else shutil.get_terminal_size()
        parts = []
        if tuple(size) != self._size:
            self._size = (size[0], size[1])
            self.picture.forget()
            self._lines = []
            parts.append("\x1b[0m\x1b[2J")
        columns, rows = self._size
        frames = [shown.frame] if shown.truth is None else [shown.frame, shown.truth]
        parts.append(self.picture.draw(frames, columns, max(1, rows - _LINES)))
        lines = [self._status(shown)[:columns], self._help()[:columns]]
        if lines != self._lines:
            self._lines = lines
            top = rows - _LINES + 1
            parts += [f"\x1b[{top + place};1H\x1b[0m{line}\x1b[K" for place, line in enumerate(lines)]
        if any(parts):
            _write(self.target, (_TOGETHER + "".join(parts) + _SHOW).encode())
        self._answered(shown)

    def _answered(self, shown: Shown) -> None:
        """From a key to the picture that answers it, in seconds: of the last one."""
        if shown.number == self._drawn:
            return
        self._drawn = shown.number
        for press in [number for number in self._presses if number <= shown.press]:
            self._latency = time.monotonic() - self._presses.pop(press)

    def _status(self, shown: Shown) -> str:
        parts = [f"step {shown.step}", f"seed {self.loop.game.beginning.seed}"]
        if shown.fps is not None:
            parts.append(f"{shown.fps:.1f} frames/s")
        if self._latency is not None:
            parts.append(f"key to picture {1e3 * self._latency:.0f} ms")
        if shown.truth is not None:
            parts.append(f"left the dream, right the true world: {drift(shown.frame, shown.truth):.1f} dB")
        if shown.off is not None:
            parts.append("player lost" if shown.off == math.inf else f"player {shown.off:.1f} px off")
        if shown.button is not None:
            parts.append(shown.button)
        return plain("   ".join(parts))

    def _help(self) -> str:
        if said := self.loop.complaint or self._said:
            return plain(said)
        arrows = {"ArrowLeft", "ArrowUp"} & self.keys.keys()
        held = "arrows or WASD" if arrows else "digits"
        space = f"space: {self.keys['Space']}   p" if "Space" in self.keys else "space"
        return f"{held}: play   {space}: pause   r: again   n: next seed   v: save   q: end"


@contextmanager
def _terminal(
    source: int, target: int, resumed: Callable[[bool], None], resized: Callable[[], None]
) -> Iterator[None]:
    """A terminal that gives keys at once and shows another screen; whatever happens, it is as before afterwards.

    Args:
        source, target: descriptors.
        resumed: called with True before the process is stopped (Ctrl-Z), and with False when it goes on.
        resized: called when its size has changed.
    """
    import termios
    import tty

    before = termios.tcgetattr(source)

    def enter() -> None:
        tty.setcbreak(source)
        _write(target, _ENTER)

    def leave() -> None:
        # Of a terminal that was closed nothing is left to mend.
        with suppress(OSError):
            _write(target, _LEAVE)
        with suppress(termios.error):
            termios.tcsetattr(source, termios.TCSAFLUSH, before)

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def suspend(number: int, frame: FrameType | None) -> None:
        resumed(True)
        leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        enter()
        resumed(False)
        resized()

    wanted = {
        signal.SIGTERM: stop,
        signal.SIGHUP: stop,
        signal.SIGTSTP: suspend,
        signal.SIGWINCH: lambda number, frame: resized(),
    }
    handlers = {number: signal.getsignal(number) for number in wanted}
    try:
        for number, handler in wanted.items():
            signal.signal(number, handler)
        enter()
        yield
    finally:
        leave()
        for number, known in handlers.items():
            signal.signal(number, known)


def _write(target: int, sent: bytes) -> None:
    while sent:
        sent = sent[os.write(target, sent) :]


def check_terminal() -> None:
    """Refuse to play where there is no terminal; raises UserError."""
    remedy = "run it in one, or leave --terminal out to play in the browser"
    try:
        import termios  # noqa: F401
    except ImportError as error:
        raise UserError(f"--terminal needs a terminal of Unix: {remedy}") from error
    for stream, name in ((sys.stdin, "input"), (sys.stdout, "output")):
        if not stream.isatty():
            raise UserError(f"--terminal needs a terminal, and the {name} is none: {remedy}")
    if os.environ.get("TERM", "") in ("", "dumb"):
        raise UserError(
            f"--terminal needs a terminal with colours, not TERM={os.environ.get('TERM', '')}: {remedy}"
        )
