"""Folders that were named, and nothing beside them."""

from pathlib import Path

import pytest

from minisora.errors import UserError
from minisora.studio import folders as room
from minisora.studio.folders import Folders, run_id


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two folders of clips, and what is none."""
    root = tmp_path / "clips"
    for name in ("games/deep/a.mp4", "games/b.TXT", "ten/1.mov", "ten/2.png", "empty/readme.md", ".hidden/c.mp4",
                 "shards/s-0.tar"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.mp4").write_text("x")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    return root


def test_what_has_clips_is_listed_and_no_link_is_followed(clips: Path, tmp_path: Path) -> None:
    named = Folders([clips, clips / "ten"], tmp_path / "runs")
    found = {each.name: each.files for each in named.data_folders()}
    assert found == {"clips/games": 1, "ten": 2, "clips/shards": 1}
    ids = {each.id: each.path for each in named.data_folders()}
    assert all(len(id_) == 12 for id_ in ids)
    # The same in any order, so that a job that waits finds its folder after another start.
    assert ids.keys() == {
        each.id for each in Folders([clips / "ten", clips], tmp_path / "runs").data_folders()
    }
    for id_, path in ids.items():
        assert named.data_folder(id_).path == path
    for wrong in ("", "../elsewhere", str(tmp_path / "elsewhere"), "0" * 12):
        with pytest.raises(UserError, match="there is no such folder of clips here"):
            named.data_folder(wrong)
    # A folder that holds clips itself is one too.
    (clips / "own.gif").write_text("x")
    assert Folders([clips], tmp_path / "runs").data_folders()[0].name == "clips"


def test_a_large_folder_is_not_counted_to_its_end(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        (clips / "ten" / f"{number}.mp4").write_text("x")
    monkeypatch.setattr(room, "MOST_FILES", 7)
    found = {each.name: each.files for each in Folders([clips], tmp_path / "runs").data_folders()}
    assert found["clips/ten"] == 7


def test_the_worker_knows_what_was_named(clips: Path, tmp_path: Path) -> None:
    named = Folders([clips], tmp_path / "runs")
    with pytest.raises(UserError, match="cannot be read"):
        Folders.of(tmp_path)
    named.keep(tmp_path)
    again = Folders.of(tmp_path)
    assert (again.data, again.runs) == (named.data, named.runs)
    with pytest.raises(UserError, match=r"--data .*nowhere is not a folder"):
        Folders([tmp_path / "nowhere"], tmp_path / "runs").check()
    with pytest.raises(UserError, match=r"--runs .* is a file"):
        Folders([], clips / "ten" / "1.mov").check()
    # A disk that is taken out meanwhile takes its clips with it and nothing else.
    clips.rename(tmp_path / "taken out")
    assert Folders.of(tmp_path).data_folders() == []
    with pytest.raises(UserError, match="no such folder of clips"):
        Folders.of(tmp_path).data_folder("0" * 12)


def test_a_new_run_has_a_name_of_its_own(tmp_path: Path) -> None:
    named = Folders([], tmp_path / "runs")
    (tmp_path / "runs" / "games").mkdir(parents=True)
    (tmp_path / "runs" / "link").symlink_to(tmp_path)
    assert named.run_names() == ["games"]
    assert named.new_run("clips/games", []) == "games-2"
    assert named.new_run("clips/games", ["games-2", "games-3"]) == "games-4"
    assert named.new_run("clips/link", []) == "link-2"
    assert named.new_run("../../etc/pass wd\n<b>", []) == "pass-wd-b"
    assert named.new_run("клипы", []) == "run"
    for wrong in ("", ".", "..", "../games", "a/b", "a\0"):
        with pytest.raises(UserError, match="no name of a run"):
            named.run(wrong)
    assert run_id("games") != run_id("games-2")
