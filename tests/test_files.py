from collections.abc import Callable
from pathlib import Path

import pytest

from minisora.files import replace_folder, same_file, write_json, write_whole


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
