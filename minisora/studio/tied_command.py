"""A command of minisora that does not outlive who started it: when its standard input closes, it is asked to stop.

    python -m minisora.studio.tied_command LOCK COMMAND ...

The system closes the input however the starter ended. A training then saves and ends, as at Ctrl-C. LOCK is a file that
is held meanwhile, so that no two work in one folder; "-" holds none.
"""

import os
import runpy
import signal
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from minisora.screen import plain

# Seconds between being asked to stop, being asked again, and being ended.
_PATIENCE = 60.0
# Seconds that the one before may take to save and end.
_WAIT = 90.0
# Letters of a line that says why.
_MOST_LETTERS = 1000


def why_it_ended(said: str) -> str:
    """Why a command failed, by the end of what it said: its error, else its last line; empty where it said nothing."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return plain((errors or lines or [""])[-1])[:_MOST_LETTERS]


def stop_with_starter() -> None:
    """Ask this process to stop as soon as its standard input closes."""

    def wait() -> None:
        # Not by way of sys.stdin, whose lock would break the end of this process.
        while os.read(0, 1):
            pass
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_PATIENCE)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: list[str]) -> None:
    """Run a command under a lock."""
    lock, *command = arguments
    stop_with_starter()
    if lock != "-":
        Path(lock).parent.mkdir(parents=True, exist_ok=True)
    try:
        with nullcontext() if lock == "-" else FileLock(lock, timeout=_WAIT):
            sys.argv = ["minisora", *command]
            runpy.run_module("minisora", run_name="__main__", alter_sys=True)
    except Timeout:
        print("error: this run is still being trained by another studio: end that one", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
