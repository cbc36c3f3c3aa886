import sqlite3
from pathlib import Path
from typing import Any

import pytest

from minisora.errors import UserError
from minisora.studio import job_store
from minisora.studio.job_store import MOST_DEATHS, JobStore

CLIP = {"words": "A red Circle", "recipe": {"model": "toy", "size": [9, 64, 64], "seed": 1}, "width": 64, "height": 64,
        "frames": 9, "fps": 8.0, "seconds": 2.0, "flops": 1e9}  # fmt: skip


def _order(store: JobStore) -> list[int]:
    return [job["id"] for job in store.open_jobs() if job["state"] == "queued"]


def _make(store: JobStore, count: int, asked: Any, words: str = "a red circle") -> list[int]:
    numbers = store.add_jobs([asked(seed) for seed in range(count)], 3)
    for number in numbers:
        assert store.take()
        store.finish(number, {**CLIP, "words": words})
    return numbers


def test_a_job_goes_its_way(store: JobStore, asked: Any) -> None:
    first, second = store.add_jobs([asked(0), asked(1)], 3)
    job = store.take()
    assert job is not None
    assert (job["id"], job["state"], job["batch"], job["request"]) == (first, "running", first, asked(0))
    store.tell_step(first, 2, b"picture")
    assert store.preview(first) == b"picture"
    store.finish(first, CLIP)
    done = store.job(first)
    assert done is not None
    assert (done["state"], done["step"], done["forming"]) == ("done", 3, False)
    clip = store.clip(first)
    assert clip is not None
    assert (clip["batch"], clip["recipe"]["seed"], clip["favourite"]) == (first, 1, False)
    assert store.take()["id"] == second  # type: ignore[index]
    store.end(second, "it did not fit")
    assert [(job["state"], job["error"]) for job in store.open_jobs()] == [("failed", "it did not fit")]
    assert store.take() is None
    again = store.retry(second)
    assert again is not None
    assert store.job(again)["request"] == asked(1)  # type: ignore[index]
    assert store.retry(first) is None


def test_cancelling_takes_out_of_the_queue_or_stops_what_runs(store: JobStore, asked: Any) -> None:
    first, second = store.add_jobs([asked(0), asked(1)], 3)
    store.take()
    assert store.cancel(second)
    assert store.cancel(first)
    assert store.is_cancelled(first)
    assert store.take() is None
    store.end(first, None)
    assert {job["state"] for job in store.open_jobs()} == {"cancelled"}
    assert not store.cancel(first)
    assert not store.cancel(77)


def test_the_order_can_be_changed_by_any_move(store: JobStore, asked: Any) -> None:
    a, b, c, d = store.add_jobs([asked(seed) for seed in range(4)], 3)
    assert store.move(d, a)
    assert _order(store) == [d, a, b, c]
    assert store.move(d, None)
    assert _order(store) == [a, b, c, d]
    assert store.move(a, c)
    assert _order(store) == [b, a, c, d]
    store.take()
    # What runs, what never was, and a job before itself.
    for job, before in ((b, None), (c, b), (99, None), (c, 99), (c, c)):
        assert not store.move(job, before)
    assert _order(store) == [a, c, d]


def test_what_ran_when_all_was_killed_is_queued_again_in_its_place(store: JobStore, asked: Any) -> None:
    numbers = store.add_jobs([asked(seed) for seed in range(3)], 3)
    store.take()
    store.tell_step(numbers[0], 2, b"x")
    other = JobStore(store.home)
    other.requeue()
    job = other.job(numbers[0])
    assert job is not None
    assert (job["state"], job["step"], job["forming"]) == ("queued", 0, False)
    assert _order(other) == numbers
    other.take()
    other.cancel(numbers[0])
    other.requeue()
    assert _order(other) == numbers[1:]
    other.close()


def test_what_was_written_for_a_job_that_is_not_kept_goes(store: JobStore, asked: Any) -> None:
    def write() -> tuple[int, list[Path]]:
        job = store.take()
        assert job is not None
        files = [store.clip_file(job["id"], suffix) for suffix in (".mp4", ".png")]
        for file in files:
            file.write_bytes(b"made")
        return job["id"], files

    store.add_jobs([asked(seed) for seed in range(3)], 3)
    # The worker dies between file and gallery: once, and it is made again in its place; twice, and it has failed.
    _, files = write()
    store.note_death()
    assert all(file.is_file() for file in files)
    assert write()[1] == files
    store.note_death()
    assert not any(file.exists() for file in files)
    number, files = write()
    store.cancel(number)
    store.requeue()
    assert not any(file.exists() for file in files)
    number, files = write()
    store.end(number, "it failed")
    assert not any(file.exists() for file in files)


def test_a_job_that_kills_its_worker_is_tried_twice(store: JobStore, asked: Any) -> None:
    bad, good = store.add_jobs([asked(0), asked(1)], 3)
    for _ in range(MOST_DEATHS):
        assert store.take()["id"] == bad  # type: ignore[index]
        store.note_death()
    job = store.job(bad)
    assert job is not None
    assert job["state"] == "failed"
    assert "twice" in job["error"]
    assert store.take()["id"] == good  # type: ignore[index]


def test_a_page_that_was_away_is_told_what_changed_and_no_more(store: JobStore, asked: Any) -> None:
    numbers = _make(store, 2, asked)
    known = store.version
    assert store.changes(known) == {"version": known, "jobs": [], "clips": [], "gone": []}
    (third,) = store.add_jobs([asked(2)], 3)
    for step in range(3):
        store.tell_step(third, step)
    store.set_favourite(numbers[0], True)
    store.delete_clip(numbers[1])
    changes = store.changes(known)
    assert changes is not None
    assert [job["id"] for job in changes["jobs"]] == [third]
    assert [(clip["id"], clip["favourite"]) for clip in changes["clips"]] == [(numbers[0], True)]
    assert changes["gone"] == [numbers[1]]
    assert changes["version"] == store.version
    # All of it would be too much.
    assert store.changes(0, most=1) is None


def test_the_gallery_is_searched_by_words(store: JobStore, asked: Any) -> None:
    circles = _make(store, 3, asked, "a red CIRCLE moving left")
    squares = _make(store, 2, asked, "a blue square; drop table clips -- % _")
    assert store.clips()[0] == 5
    assert [clip["id"] for clip in store.clips(limit=2)[1]] == squares[::-1]
    assert [clip["id"] for clip in store.clips(offset=3, limit=9)[1]] == circles[:2][::-1]
    assert store.clips(search="Circle RED")[0] == 3
    assert store.clips(search="circle blue")[0] == 0
    assert store.clips(search="%")[0] == 2
    assert store.clips(search="' OR 1=1 --")[0] == 0
    store.set_favourite(circles[0], True)
    assert [clip["id"] for clip in store.clips(favourites=True)[1]] == circles[:1]


def test_a_removed_clip_is_gone_with_its_files(store: JobStore, asked: Any) -> None:
    (number,) = _make(store, 1, asked)
    files = [store.clip_file(number, suffix) for suffix in (".mp4", ".png")]
    for file in files:
        file.write_bytes(b"x")
    assert store.delete_clip(number)
    assert not store.delete_clip(number)
    assert not any(file.exists() for file in files)
    assert store.clip(number) is None
    # Its number is never given again.
    assert store.add_jobs([asked(1)], 3)[0] > number


def test_a_clip_knows_where_it_came_from_and_what_became_of_it(store: JobStore, asked: Any) -> None:
    first, second = _make(store, 2, asked)
    # In the order in which they were given: from the second to the first is another video.
    order = [second, first, second]
    (third,) = store.add_jobs([{**asked(3), "parents": order}], 3)
    store.take()
    store.finish(third, {**CLIP, "parents": order})
    assert store.family(third) == (order, [])
    assert store.family(first) == ([], [third])
    store.delete_clip(first)
    assert store.family(third) == ([second, second], [])


def test_more_than_can_be_made_is_refused(
    store: JobStore, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_store, "MOST_WAITING", 3)
    store.add_jobs([asked(0), asked(1)], 3)
    known = store.version
    with pytest.raises(UserError, match="2 videos wait already"):
        store.add_jobs([asked(2), asked(3)], 3)
    assert len(_order(store)) == 2
    assert store.version == known


def test_a_change_that_breaks_off_leaves_nothing_and_no_lock(store: JobStore, asked: Any) -> None:
    (job,) = store.add_jobs([asked(0)], 3)
    store.take()
    known = store.version
    # The clip is written before its parents are; a parent that is no number ends it in between.
    with pytest.raises(sqlite3.Error):
        store.finish(job, {**CLIP, "parents": [{}]})
    assert (store.version, store.clip(job)) == (known, None)
    other = JobStore(store.home)
    assert other.cancel(job)
    other.close()


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --home"):
        JobStore(tmp_path / "file")
    (tmp_path / "studio.sqlite").write_bytes(b"no database, whatever it is" * 100)
    with pytest.raises(UserError, match="choose another --home"):
        JobStore(tmp_path)
    later = tmp_path / "later"
    JobStore(later).close()
    db = sqlite3.connect(later / "studio.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(UserError, match="of a later minisora"):
        JobStore(later)
