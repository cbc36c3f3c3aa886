"""The terminal: what keys send, what half blocks show, and that the terminal is as before, whatever happens."""

import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from minisora.cli import app
from minisora.errors import UserError
from minisora.player.terminal import Key, KeyReader, Picture, TerminalPlayer
from minisora.worlds.arena import ArenaSettings
from minisora.worlds.game import Beginning, Game
from minisora.worlds.play import Loop
from minisora.worlds.world import TrueWorld

termios = pytest.importorskip("termios", reason="terminals of Unix")


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"\x1b[A\x1bOD", [Key("ArrowUp", "down"), Key("ArrowLeft", "down")]),
        (b"wA 3", [Key("KeyW", "down"), Key("KeyA", "down"), Key("Space", "down"), Key("Digit3", "down")]),
        (b"\x03", [Key("Interrupt", "down")]),
        (b"\x1b[1;1:1C\x1b[1;1:3C", [Key("ArrowRight", "down"), Key("ArrowRight", "up")]),
        (b"\x1b[119;1:3u\x1b[32u", [Key("KeyW", "up"), Key("Space", "down")]),
        # Ctrl-C, with caps lock on; another key of the keypad, which is none of ours; a paste of what is no key.
        (b"\x1b[99;69u\x1b[57400u", [Key("Interrupt", "down")]),
        ("\u00e9\x00".encode(), []),
        (b"\x1bq", [Key("KeyQ", "down")]),
    ],
)
def test_what_a_terminal_sends_is_keys(sent: bytes, keys: list[Key]) -> None:
    assert KeyReader().read(sent) == keys
    reader = KeyReader()
    assert [key for byte in sent for key in reader.read(bytes([byte]))] == keys


def test_a_terminal_that_knows_when_keys_come_up_says_so() -> None:
    reader = KeyReader()
    assert reader.read(b"\x1b[?11u") == []
    assert reader.releases


def shown(drawn: str, rows: int, columns: int) -> np.ndarray:
    """What a terminal of half blocks shows: 2R C 3; black where nothing was drawn."""
    pixels = np.zeros((2 * rows, columns, 3), int)
    row = column = 0
    upper = lower = [0, 0, 0]
    for sequence, kind, block in re.findall(r"\x1b\[([0-9;]*)([Hm])|(▀)", drawn):
        numbers = [int(number) for number in sequence.split(";") if number]
        if block:
            pixels[2 * row, column], pixels[2 * row + 1, column] = upper, lower
            column += 1
        elif kind == "H":
            row, column = numbers[0] - 1, numbers[1] - 1
        elif numbers[:2] == [38, 2]:
            upper = numbers[2:]
        elif numbers[:2] == [48, 2]:
            lower = numbers[2:]
    return pixels


def test_half_blocks_show_each_pixel_and_two_worlds_side_by_side() -> None:
    frames = [torch.randint(0, 256, (3, 8, 6), dtype=torch.uint8) for _ in range(2)]
    pixels = shown(Picture().draw(frames, 14, 4), 4, 14)
    assert np.array_equal(pixels[:, :6], frames[0].permute(1, 2, 0))
    assert np.array_equal(pixels[:, 8:], frames[1].permute(1, 2, 0))
    large = shown(Picture().draw(frames[:1], 13, 9), 8, 12)
    assert np.array_equal(large, frames[0].permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1))
    small = shown(Picture().draw([torch.full((3, 8, 8), 77, dtype=torch.uint8)], 5, 30), 2, 5)
    assert (small == 77).all()


def test_only_what_changed_is_drawn_again() -> None:
    picture, frame = Picture(), torch.zeros(3, 8, 8, dtype=torch.uint8)
    picture.draw([frame], 80, 4)
    assert picture.draw([frame], 80, 4) == ""
    changed = frame.clone()
    changed[:, 5, 3] = 9
    assert picture.draw([changed], 80, 4) == "\x1b[3;4H\x1b[38;2;0;0;0m\x1b[48;2;9;9;9m▀\x1b[0m"


class Terminal:
    """A pseudo-terminal, and somebody who reads it to the end and acts when something appears."""

    def __init__(self) -> None:
        self.person, self.program = os.openpty()
        termios.tcsetwinsize(self.program, (36, 130))
        self.before = termios.tcgetattr(self.program)
        self.seen = b""
        self._steps: list[tuple[bytes, Callable[[], object]]] = []
        self._thread = threading.Thread(target=self._live, daemon=True)

    def when(self, appears: bytes, act: bytes | Callable[[], object]) -> None:
        """After what was named before."""
        self._steps.append((appears, act if callable(act) else lambda: os.write(self.person, act)))

    def start(self) -> None:
        self._thread.start()

    def _live(self) -> None:
        since = 0
        while True:
            try:
                self.seen += os.read(self.person, 65536)
            except OSError:
                return
            while self._steps and self._steps[0][0] in self.seen[since:]:
                since = len(self.seen)
                self._steps.pop(0)[1]()

    def end(self) -> None:
        assert termios.tcgetattr(self.program) == self.before
        os.close(self.program)
        self._thread.join(60)
        os.close(self.person)
        assert not self._steps
        assert self.seen.endswith(b"\x1b[<u\x1b[0m\x1b[?25h\x1b[?1049l")


def arena_loop() -> Loop:
    game = Game(TrueWorld(ArenaSettings(32, 32, walls=0)))
    game.begin(Beginning(1))
    loop = Loop(game, 60)
    loop.pause(True)
    return loop


def test_a_person_plays_saves_and_ends() -> None:
    terminal, loop, saved = Terminal(), arena_loop(), []

    def save() -> str:
        saved.append(loop.game.played().buttons)
        return "saved x.mp4"

    terminal.when(b"step 0", b"\x1b[D")
    terminal.when(b"left", b"d")
    terminal.when(b"right", b"v")
    terminal.when(b"saved x.mp4", b"n")
    terminal.when(b"seed 2", b"q")
    terminal.start()
    with loop:
        TerminalPlayer(loop, save, terminal.program, terminal.program).play()
    terminal.end()
    assert {"left", "right"} <= set(saved[0])
    assert b"key to picture" in terminal.seen


@pytest.mark.parametrize(
    ("act", "raised"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGINT), KeyboardInterrupt),
        (b"\x1b[99;5u", KeyboardInterrupt),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), SystemExit),
        (lambda: os.kill(os.getpid(), signal.SIGHUP), SystemExit),
    ],
)
def test_the_terminal_is_as_before_when_it_is_interrupted(
    act: bytes | Callable[[], object], raised: type[BaseException]
) -> None:
    terminal, loop = Terminal(), arena_loop()
    handlers = signal.getsignal(signal.SIGTERM)
    terminal.when(b"step 0", act)
    terminal.start()
    with loop, pytest.raises(raised):
        TerminalPlayer(loop, str, terminal.program, terminal.program).play()
    terminal.end()
    assert signal.getsignal(signal.SIGTERM) == handlers


def test_the_terminal_is_as_before_when_the_world_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, loop = Terminal(), arena_loop()

    def broken(button: str) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(loop.game, "step", broken)
    terminal.when(b"step 0", b"w")
    terminal.start()
    with loop, pytest.raises(RuntimeError, match="on purpose"):
        TerminalPlayer(loop, str, terminal.program, terminal.program).play()
    terminal.end()


def test_what_is_no_terminal_is_refused_in_a_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["world", "play", "--terminal", "--out", str(tmp_path)])
    assert isinstance(result.exception, UserError)
    assert "leave --terminal out to play in the browser" in str(result.exception)
