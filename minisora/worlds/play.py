"""Play a game: keys that are held become a button for each step, and steps follow each other at a steady pace.

`Loop` plays in a thread of its own; whoever looks on takes the latest picture (`shown`) and so misses the late ones.
`Keys` and `Pace` decide what is pressed and when; they know no clock but the one that they are told.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from torch import Tensor

from minisora.errors import UserError
from minisora.limits import check_number
from minisora.worlds.game import Beginning, Game

MAX_FPS = 60.0
# Pictures over which the frame rate is measured.
_RATE_OVER = 20

# Keys (by the names that browsers give to their places on a keyboard) and the buttons that they hold, where there are.
_KEYS = {
    "ArrowUp": ("up", "jump"),
    "KeyW": ("up", "jump"),
    "ArrowDown": ("down",),
    "KeyS": ("down",),
    "ArrowLeft": ("left",),
    "KeyA": ("left",),
    "ArrowRight": ("right",),
    "KeyD": ("right",),
    "Space": ("fire", "jump"),
}


def keys(buttons: Iterable[str]) -> dict[str, str]:
    """Which key holds which button: arrows and WASD, the space bar, and digits for all in their order.

    The first is 1, unless it is code 0, which nobody named.
    """
    names = list(buttons)
    held = {key: name for key, wished in _KEYS.items() for name in wished[::-1] if name in names}
    first = 0 if names[:1] == ["code 0"] else 1
    return held | {f"Digit{place}": name for place, name in enumerate(names, first) if place <= 9}


@dataclass(frozen=True)
class Shown:
    """A picture of a game.

    Args:
        number: counts all pictures of a loop, from 1.
        step: counts from the beginning of the game, which is 0.
        frame: `3 H W`.
        truth: the same moment in the true world; None where there is none.
        button: that led here; None at the beginning.
        press: the number of the last key press that it answers.
        fps: pictures a second, measured; None before there are some.
        seconds: that the step took.
        late: how many beats were missed so far, as steps took too long.
        off: as of `Game`.
    """

    number: int
    step: int
    frame: Tensor
    truth: Tensor | None
    button: str | None
    press: int = 0
    fps: float | None = None
    seconds: float = 0.0
    late: int = 0
    off: float | None = None


class Keys:
    """Keys that are held, and the button that this makes for a step.

    Args:
        buttons: names of the world's buttons; other names are not taken.
    """

    def __init__(self, buttons: Iterable[str]) -> None:
        self._buttons = frozenset(buttons)
        self._held: list[str] = []
        self._tapped: str | None = None
        self._press = 0
        # Whether something was pressed since the last step.
        self.fresh = False

    def press(self, button: str, number: int = 0) -> None:
        """A key went down. `number` counts presses, to know later which picture answers it."""
        if button not in self._buttons:
            return
        # A key that is held repeats.
        if button not in self._held:
            self._held.append(button)
            self._tapped, self._press, self.fresh = button, number, True

    def release(self, button: str | None = None) -> None:
        """A key went up; None: all of them."""
        self._held = [held for held in self._held if button not in (None, held)]

    @property
    def pending(self) -> bool:
        """Whether `take` would give a button."""
        return bool(self._held or self._tapped)

    def take(self) -> tuple[str | None, int]:
        """The button for the next step, None for none, and the number of the last press.

        What was pressed last counts, both of two keys where a button is named so ("jump left"). A key that was tapped
        between two steps counts for one.
        """
        held, self.fresh = self._held, False
        button = held[-1] if held else self._tapped
        self._tapped = None
        if len(held) > 1:
            first, last = held[-2:]
            both = (f"{last} {first}", f"{first} {last}", last + first, first + last)
            button = next((name for name in both if name in self._buttons), button)
        return button, self._press


class Pace:
    """When the next step is due: at a steady beat, but for a key that was just pressed, which is answered sooner.

    A press brings the step forward to half a beat after the last one. So a key is answered within half a beat, and
    nobody who hammers on keys makes the world more than twice as fast.

    Args:
        fps: beats a second.

    Raises:
        UserError: not above 0, or above `MAX_FPS`.
    """

    def __init__(self, fps: float) -> None:
        check_number("fps", fps, 0.0, MAX_FPS, above=True)
        self.beats, self.period = fps, 1 / fps
        self.late = 0
        self._due: float | None = None
        self._last = 0.0
        self._times: deque[float] = deque(maxlen=_RATE_OVER + 1)

    def left(self, now: float, *, fresh: bool) -> float:
        """Seconds until the next step is due, 0 or below if it is.

        Args:
            now: seconds of a clock.
            fresh: a key was just pressed.
        """
        if self._due is None:
            return 0.0
        return (min(self._due, self._last + self.period / 2) if fresh else self._due) - now

    def stepped(self, now: float) -> None:
        """A step begins now. Beats that went by without one are missed, not made up for."""
        due = self._due
        if due is not None and now >= due:
            missed = int((now - due) / self.period)
            self.late += missed
            self._due = due + (missed + 1) * self.period
        else:
            self._due = now + self.period
        self._last = now
        self._times.append(now)

    def rest(self) -> None:
        """The world stands still for a while: what follows is not late."""
        self._due = None
        self._times.clear()

    @property
    def fps(self) -> float | None:
        """Steps a second over the last ones; None before there are two."""
        if len(self._times) < 2 or self._times[-1] <= self._times[0]:
            return None
        return (len(self._times) - 1) / (self._times[-1] - self._times[0])


class Loop:
    """Plays a game in a thread of its own, from `__enter__` to `__exit__`.

    All methods may be called from any thread. Where a beginning does not fit, the game goes on and `complaint` says
    why; where a step fails, the loop ends, and `shown` raises what happened.

    Args:
        game: to play; begun.
        fps: steps a second; None: the world's own pace.
        on_picture: called in the loop's thread when there is another picture, or none will come; must not take long.

    Raises:
        UserError: as of `Pace`.
    """

    def __init__(
        self, game: Game, fps: float | None = None, on_picture: Callable[[], object] = lambda: None
    ) -> None:
        self.game = game
        self.on_picture = on_picture
        self.keys = Keys(game.world.buttons)
        self.complaint = ""
        # A world may have been recorded faster than a person plays.
        self._pace = Pace(fps or min(game.world.fps, MAX_FPS))
        self._changed = threading.Condition()
        self._paused = self._stopped = False
        self._waits = game.idle is None
        self._next: Beginning | None = None
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)
        self._shown = Shown(1, 0, *game.now, None, off=game.off)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def press(self, button: str, number: int = 0) -> None:
        """As `Keys.press`; a pause ends."""
        with self._changed:
            self.keys.press(button, number)
            self._paused = False
            self._changed.notify_all()

    def release(self, button: str | None = None) -> None:
        """As `Keys.release`."""
        with self._changed:
            self.keys.release(button)

    def pause(self, paused: bool | None = None) -> bool:
        """Stand still, or go on; None: the other of the two. Returns whether it stands still."""
        with self._changed:
            self._paused = not self._paused if paused is None else paused
            self.keys.release()
            self._changed.notify_all()
            return self._paused

    @property
    def paused(self) -> bool:
        """Whether it stands still until a button is pressed."""
        with self._changed:
            return self._paused

    def wait_for_keys(self, wait: bool) -> None:
        """Stand still while no key is held, or go on by itself, as it does at first where the world has `IDLE`."""
        with self._changed:
            self._waits = wait or self.game.idle is None
            self._changed.notify_all()

    def begin(self, beginning: Beginning) -> None:
        """Begin again, at the next step."""
        with self._changed:
            self._next, self._paused = beginning, False
            self.keys.release()
            self._changed.notify_all()

    @property
    def fps(self) -> float:
        """The pace, steps a second."""
        return self._pace.beats

    def set_fps(self, fps: float) -> None:
        """Another pace; raises UserError as `Pace`."""
        pace = Pace(fps)
        with self._changed:
            self._pace = pace
            self._changed.notify_all()

    @property
    def shown(self) -> Shown:
        """The latest picture; where a step failed, this raises what happened."""
        with self._changed:
            if self._failed is not None:
                raise self._failed
            return self._shown

    def _run(self) -> None:
        try:
            while self._until_due():
                self.beat()
        except Exception as error:
            with self._changed:
                self._failed = error
            self.on_picture()

    def _until_due(self) -> bool:
        """Wait until a step is due; False when the loop has ended."""
        with self._changed:
            while not self._stopped:
                if self._next is not None:
                    return True
                if self._paused or (self._waits and not self.keys.pending):
                    self._pace.rest()
                    self._changed.wait()
                    continue
                left = self._pace.left(time.monotonic(), fresh=self.keys.fresh)
                if left <= 0:
                    return True
                self._changed.wait(left)
            return False

    def beat(self) -> None:
        """One step, or a beginning, and its picture."""
        with self._changed:
            beginning, self._next = self._next, None
            button, press = self.keys.take()
            began = time.monotonic()
            self._pace.stepped(began)
        if beginning is not None:
            button = None
            try:
                self.game.begin(beginning)
                self.complaint = ""
            except UserError as error:
                self.complaint = str(error)
        else:
            button = button or self.game.idle
            if button is None:
                return
            self.game.step(button)
        with self._changed:
            self._shown = Shown(
                self._shown.number + 1,
                self.game.steps,
                *self.game.now,
                button,
                press,
                self._pace.fps,
                time.monotonic() - began,
                self._pace.late,
                self.game.off,
            )
        self.on_picture()
