import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from minisora.files import read_json, replace_folder, same_file, settle_folder, whole, write_json, write_whole

KILLED = """
import os, signal, sys
from pathlib import Path
from minisora.files import whole
with whole(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_that_cannot_be_finished_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "numbers.json"
    write_json(file, {"a": 1})

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(file, "half")
    monkeypatch.undo()
    assert file.read_text() == '{\n "a": 1\n}\n'
    assert [item.name for item in tmp_path.iterdir()] == ["numbers.json"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", float("nan"))
    assert not list(tmp_path.iterdir())


def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    folder = tmp_path / "model"

    def write(content: str) -> Callable[[Path], None]:
        def fill(partial: Path) -> None:
            partial.mkdir()
            (partial / content).write_text(content)
            if content == "bad":
                raise OSError(28, "No space left on device")

        return fill

    replace_folder(folder, write("first"))
    with pytest.raises(OSError, match="No space"):
        replace_folder(folder, write("bad"))
    assert [item.name for item in folder.iterdir()] == ["first"]
    folder.rename(tmp_path / ".model.old")  # as a stop between the two renames leaves it
    with pytest.raises(OSError, match="No space"):
        replace_folder(folder, write("bad"))
    assert [item.name for item in folder.iterdir()] == ["first"]
    replace_folder(folder, write("second"))
    assert [item.name for item in folder.iterdir()] == ["second"]
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def test_the_same_file_is_found_behind_a_link(tmp_path: Path) -> None:
    file, link, other = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for each in (file, other):
        each.write_text("")
    link.symlink_to(file)
    assert same_file(file, [tmp_path / "gone", other, link]) == link
    assert same_file(file, [other]) is None
    assert same_file(tmp_path / "gone", [tmp_path / "gone"]) is None


def test_what_a_killed_process_left_goes_with_the_next_file_of_that_folder(tmp_path: Path) -> None:
    kept = tmp_path / ".mine.123.partial"  # no process of this machine wrote it
    kept.write_text("mine")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")], check=False)
    assert done.returncode == -9
    (left,) = (each for each in tmp_path.iterdir() if each != kept)
    assert left.name.startswith(".a.")
    alive = tmp_path / left.name.replace(left.name.split("-")[1].split(".")[0], str(os.getppid()))
    alive.write_text("another process writes this")
    write_whole(tmp_path / "b", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([kept, alive, tmp_path / "b"])


def test_a_full_disk_names_the_file_and_leaves_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_whole(file, "before")

    def fill() -> None:
        with whole(file) as partial:
            partial.write_text("ha")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` raises it: without a name

    with pytest.raises(OSError, match="No space left") as raised:
        fill()
    assert raised.value.filename == str(file)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.json", "before")]


@pytest.mark.parametrize("moment", ["writing", "between the renames", "before the old one goes"])
def test_a_folder_is_the_old_or_the_new_one_wherever_its_replacement_was_killed(
    moment: str, tmp_path: Path
) -> None:
    folder, partial, old = (tmp_path / name for name in ("model", ".model.partial", ".model.old"))
    present = {
        "writing": (folder, partial),
        "between the renames": (old, partial),
        "before the old one goes": (folder, old),
    }
    for each in present[moment]:
        each.mkdir()
        (each / "name").write_text(each.name)
    settle_folder(folder)
    assert [each.name for each in tmp_path.iterdir()] == ["model"]
    assert (folder / "name").read_text() == (".model.old" if moment == "between the renames" else "model")


def test_json_nested_too_deeply_is_no_json(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(file)
