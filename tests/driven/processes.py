"""Processes that a test starts: none is waited for without a bound, and each ends with all that it started."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

# Seconds in which anything starts, on a machine that is busy with others; and in which what was asked to end has ended.
STARTS, ENDS = 180.0, 30.0


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, whose output is read as text; asked to end, and then made to, at the end."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDS)
        end_all(process)
        assert process.stdout is not None
        process.stdout.close()


def first_line(process: subprocess.Popen[str], seconds: float = STARTS) -> str:
    """The next line that a process says; one that says none in time is ended, and fails the test."""
    timer = threading.Timer(seconds, end_all, [process])
    timer.start()
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    timer.cancel()
    assert line, f"{process.args} said nothing in {seconds:g} s, or ended (code {process.poll()})"
    return line


def finish(command: Sequence[str], seconds: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run`, which at its time limit waits on for whatever the command had started.

    Raises:
        TimeoutExpired: it took longer; it has ended, with all that it started.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        end_all(process)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def end_all(process: subprocess.Popen[str]) -> None:
    """End a process that leads a session, and what is left of those that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(ENDS)
