"""Jobs and clips in SQLite: what was asked for is kept before it is answered, and each video is made once.

    queued -> running -> done | failed | cancelled
    queued -> cancelled;  running -> queued where the worker was killed, of a training -> cancelled

A job makes a video; or its request has a "kind" (`minisora.studio.training_job`): it trains a run, or reads its model.
The steps of a training are seconds.

Every change of a row takes the next number of one counter (`version`). A page that knows all up to a number asks for
what changed since, after however long: nothing is missed, and nothing has to be kept for it.

A clip has the number of its job, and its file is named by it: a worker that was killed between writing the file and
saying so writes the same file again.

HOME/studio.sqlite     jobs and clips
    /clips/000012.mp4  the video of job 12, with its recipe inside
    /clips/000012.png  its picture in the gallery
    /uploads/...       files that were sent, until the worker has made a clip of each
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minisora.errors import UserError

# Deaths of the worker over one job, after which it is not tried again.
MOST_DEATHS = 2
# Waiting jobs; more would be a mistake.
MOST_WAITING = 500
_SCHEMA = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  state TEXT NOT NULL DEFAULT 'queued',
  batch INTEGER NOT NULL,              -- the first job of those that were asked for together
  place REAL NOT NULL,                 -- in the queue: the least is next
  request TEXT NOT NULL,               -- JSON: model and what its engine takes
  step INTEGER NOT NULL DEFAULT 0,     -- done of `steps`
  steps INTEGER NOT NULL,
  preview BLOB,                        -- PNG of what forms
  cancel INTEGER NOT NULL DEFAULT 0,   -- asked for while it runs
  deaths INTEGER NOT NULL DEFAULT 0,
  error TEXT,
  asked REAL NOT NULL, started REAL, finished REAL,
  version INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_state ON jobs (state, place);
CREATE INDEX IF NOT EXISTS jobs_version ON jobs (version);
CREATE INDEX IF NOT EXISTS jobs_trained ON jobs (json_extract(request, '$.run'))
  WHERE json_extract(request, '$.kind') = 'train';
CREATE TABLE IF NOT EXISTS clips (
  id INTEGER PRIMARY KEY,              -- of its job
  batch INTEGER NOT NULL,
  words TEXT NOT NULL,                 -- what a search looks in, lower-case
  recipe TEXT NOT NULL,
  width INTEGER NOT NULL, height INTEGER NOT NULL, frames INTEGER NOT NULL, fps REAL NOT NULL,
  seconds REAL NOT NULL,               -- that it took
  flops REAL,                          -- that it cost; NULL: not counted
  made REAL NOT NULL,
  favourite INTEGER NOT NULL DEFAULT 0,
  deleted INTEGER NOT NULL DEFAULT 0,
  version INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS clips_shown ON clips (deleted, id);
CREATE INDEX IF NOT EXISTS clips_version ON clips (version);
CREATE TABLE IF NOT EXISTS origins (  -- what a clip was made from
  clip INTEGER NOT NULL, parent INTEGER NOT NULL, PRIMARY KEY (clip, parent)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS origins_parent ON origins (parent);
CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS told (name TEXT PRIMARY KEY);  -- models that the worker of now has read
CREATE TABLE IF NOT EXISTS counter (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL);
INSERT OR IGNORE INTO counter VALUES (1, 0);
"""
_JOB = "id, state, batch, place, request, step, steps, preview IS NOT NULL AS forming, error, asked, started, finished"
_CLIP = "id, batch, recipe, width, height, frames, fps, seconds, flops, made, favourite"


class JobStore:
    """The folder of a studio, as one process sees it; not for several threads.

    Args:
        home: the folder; made if need be.

    Raises:
        UserError: it cannot be opened, or is of a later minisora.
    """

    def __init__(self, home: Path):
        self.home, self.clips_folder = home, home / "clips"
        self.uploads_folder = home / "uploads"
        try:
            self.uploads_folder.mkdir(parents=True, exist_ok=True)
            self.clips_folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(home / "studio.sqlite", timeout=10, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            # What was said to be done is done after a loss of power too.
            self._db.execute("PRAGMA synchronous = FULL")
            found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if found > _SCHEMA:
                raise UserError(f"{home} is of a later minisora: update it, or choose another --home")
            self._db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_SCHEMA}; COMMIT;")
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"cannot open the studio in {home} ({error}): choose another --home") from error

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextmanager
    def _change(self) -> Iterator[int]:
        """A transaction that writes; gives the version of its changes."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            row = self._db.execute("UPDATE counter SET version = version + 1 RETURNING version").fetchone()
            yield int(row[0])

    # What a page asks for.

    def add_jobs(self, requests: Sequence[dict[str, Any]], steps: int) -> list[int]:
        """Queue jobs that belong together, behind all others; returns their numbers.

        Raises:
            UserError: too many wait.
        """
        with self._change() as version:
            waiting = self._db.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()[0]
            if waiting + len(requests) > MOST_WAITING:
                raise UserError(f"{waiting} videos wait already: let some be made, or cancel some")
            last = self._db.execute("SELECT coalesce(max(place), 0) FROM jobs").fetchone()[0]
            numbers: list[int] = []
            for offset, request in enumerate(requests, 1):
                row = self._db.execute(
                    "INSERT INTO jobs (batch, place, request, steps, asked, version) VALUES (?, ?, ?, ?, ?, ?) "
                    "RETURNING id",
                    (
                        numbers[0] if numbers else 0,
                        last + offset,
                        json.dumps(request),
                        steps,
                        time.time(),
                        version,
                    ),
                ).fetchone()
                numbers.append(int(row[0]))
            self._db.execute("UPDATE jobs SET batch = id WHERE batch = 0")
        return numbers

    def keep_uploads(self) -> None:
        """Remove files that were sent and that no open job needs; only while nobody sends any."""
        needed = {
            json.loads(row["request"]).get("file")
            for row in self._db.execute("SELECT request FROM jobs WHERE state IN ('queued', 'running')")
        }
        for file in self.uploads_folder.iterdir():
            if file.name not in needed:
                file.unlink(missing_ok=True)

    def cancel(self, job: int) -> bool:
        """Take a job out of the queue, or tell the worker to stop it; False: it had ended, or never was."""
        with self._change() as version:
            changed = self._db.execute(
                "UPDATE jobs SET cancel = 1, version = ?, finished = CASE state WHEN 'queued' THEN ? END, "
                "state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END "
                "WHERE id = ? AND state IN ('queued', 'running')",
                (version, time.time(), job),
            ).rowcount
        return bool(changed)

    def retry(self, job: int) -> int | None:
        """Ask again for what failed or was cancelled, as a new job; None: it did not."""
        row = self._db.execute(
            "SELECT request, steps FROM jobs WHERE id = ? AND state IN ('failed', 'cancelled')", (job,)
        ).fetchone()
        request = json.loads(row["request"]) if row else {}
        # Of an upload the file is gone.
        return self.add_jobs([request], row["steps"])[0] if row and "file" not in request else None

    def move(self, job: int, before: int | None) -> bool:
        """Put a waiting job before another waiting one, or last; False: one of them does not wait."""
        with self._change() as version:
            order = [
                int(row[0])
                for row in self._db.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY place, id")
            ]
            if job not in order or (before is not None and before not in order) or job == before:
                return False
            places = [
                row[0]
                for row in self._db.execute(
                    "SELECT place FROM jobs WHERE state = 'queued' ORDER BY place, id"
                )
            ]
            old = list(order)
            order.remove(job)
            order.insert(len(order) if before is None else order.index(before), job)
            for place, was, now in zip(places, old, order, strict=True):
                if was != now:
                    self._db.execute(
                        "UPDATE jobs SET place = ?, version = ? WHERE id = ?", (place, version, now)
                    )
        return True

    def set_favourite(self, clip: int, favourite: bool) -> bool:
        """Mark a clip; False: there is none."""
        with self._change() as version:
            return bool(
                self._db.execute(
                    "UPDATE clips SET favourite = ?, version = ? WHERE id = ? AND NOT deleted",
                    (favourite, version, clip),
                ).rowcount
            )

    def delete_clip(self, clip: int) -> bool:
        """Remove a clip and its files; False: there is none."""
        with self._change() as version:
            changed = self._db.execute(
                "UPDATE clips SET deleted = 1, version = ? WHERE id = ? AND NOT deleted", (version, clip)
            ).rowcount
        if changed:
            self._remove_files([clip])
        return bool(changed)

    def _remove_files(self, clips: Iterable[int]) -> None:
        """Of clips that are not kept. One may have been written when its worker died, and was in no gallery yet."""
        for clip in clips:
            for suffix in (".mp4", ".png"):
                self.clip_file(clip, suffix).unlink(missing_ok=True)

    # What a page shows.

    @property
    def version(self) -> int:
        """The number of the last change."""
        return int(self._db.execute("SELECT version FROM counter").fetchone()[0])

    def open_jobs(self) -> list[dict[str, Any]]:
        """Jobs that run or wait, in their order, and the last that ended otherwise than well."""
        jobs = self._db.execute(
            f"SELECT {_JOB} FROM jobs WHERE state IN ('queued', 'running') ORDER BY place, id"
        )
        ended = self._db.execute(
            f"SELECT {_JOB} FROM jobs WHERE state IN ('failed', 'cancelled') ORDER BY id DESC LIMIT 20"
        )
        return [_job(row) for row in (*jobs, *ended)]

    def job(self, job: int) -> dict[str, Any] | None:
        """One job."""
        row = self._db.execute(f"SELECT {_JOB} FROM jobs WHERE id = ?", (job,)).fetchone()
        return _job(row) if row else None

    def trainings(self) -> dict[str, dict[str, Any]]:
        """The last job of each run that was trained here, by the name of the run."""
        rows = self._db.execute(
            f"SELECT {_JOB} FROM jobs WHERE id IN (SELECT max(id) FROM jobs WHERE json_extract(request, '$.kind') = "
            "'train' GROUP BY json_extract(request, '$.run'))"
        )
        return {job["request"]["run"]: job for job in map(_job, rows)}

    def preview(self, job: int) -> bytes | None:
        """The PNG of what forms."""
        row = self._db.execute("SELECT preview FROM jobs WHERE id = ?", (job,)).fetchone()
        return bytes(row[0]) if row and row[0] is not None else None

    def changes(self, since: int, most: int = 200) -> dict[str, Any] | None:
        """Jobs and clips that changed after a version, and the version now; None: more than a page should be sent."""
        with self._db:
            self._db.execute("BEGIN")
            version = self.version
            jobs = self._db.execute(
                f"SELECT {_JOB} FROM jobs WHERE version > ? LIMIT ?", (since, most + 1)
            ).fetchall()
            clips = self._db.execute(
                f"SELECT {_CLIP}, deleted FROM clips WHERE version > ? LIMIT ?", (since, most + 1)
            ).fetchall()
        if len(jobs) > most or len(clips) > most:
            return None
        return {
            "version": version,
            "jobs": [_job(row) for row in jobs],
            "clips": [_clip(row) for row in clips if not row["deleted"]],
            "gone": [row["id"] for row in clips if row["deleted"]],
        }

    def clips(
        self, offset: int = 0, limit: int = 60, search: str = "", favourites: bool = False
    ) -> tuple[int, list[dict[str, Any]]]:
        """How many clips there are with every word of a search, and some of them, the newest first."""
        where, values = ["NOT deleted"], []
        if favourites:
            where.append("favourite")
        for word in search.lower().split()[:20]:
            where.append("instr(words, ?) > 0")
            values.append(word)
        condition = " AND ".join(where)
        total = self._db.execute(f"SELECT count(*) FROM clips WHERE {condition}", values).fetchone()[0]
        rows = self._db.execute(
            f"SELECT {_CLIP} FROM clips WHERE {condition} ORDER BY id DESC LIMIT ? OFFSET ?",
            [*values, limit, offset],
        )
        return int(total), [_clip(row) for row in rows]

    def clip(self, clip: int) -> dict[str, Any] | None:
        """One clip."""
        row = self._db.execute(f"SELECT {_CLIP} FROM clips WHERE id = ? AND NOT deleted", (clip,)).fetchone()
        return _clip(row) if row else None

    def family(self, clip: int) -> tuple[list[int], list[int]]:
        """What a clip was made from, as it was asked for, and what was made from it; of those that are still there."""
        row = self._db.execute("SELECT request FROM jobs WHERE id = ?", (clip,)).fetchone()
        asked = json.loads(row["request"]).get("parents", []) if row else []
        children = self._db.execute(
            "SELECT clip FROM origins JOIN clips ON id = clip WHERE parent = ? AND NOT deleted ORDER BY id",
            (clip,),
        )
        return [each for each in asked if self.clip(each) is not None], [row[0] for row in children]

    def clip_file(self, clip: int, suffix: str) -> Path:
        """Where a clip's video (.mp4) or picture (.png) is."""
        return self.clips_folder / f"{int(clip):06d}{suffix}"

    def speeds(self, last: int = 200) -> list[tuple[str, tuple[int, int, int], float, float]]:
        """Of the last clips whose cost was counted: model, size, FLOPs and seconds."""
        rows = self._db.execute(
            "SELECT recipe, flops, seconds FROM clips WHERE flops IS NOT NULL AND seconds > 0 ORDER BY id DESC LIMIT ?",
            (last,),
        )
        found = []
        for row in rows:
            recipe = json.loads(row["recipe"])
            found.append((recipe["model"], tuple(recipe["size"]), row["flops"], row["seconds"]))
        return found

    def model_names(self) -> list[str]:
        """Of the models that the worker has told of: asked for often, so without their facts."""
        return [str(row["name"]) for row in self._db.execute("SELECT name FROM models ORDER BY rowid")]

    def models(self) -> dict[str, dict[str, Any]]:
        """What the worker has told of its models, by name."""
        return {
            row["name"]: json.loads(row["facts"])
            for row in self._db.execute("SELECT * FROM models ORDER BY rowid")
        }

    # What the worker does.

    def tell_model(self, name: str, facts: dict[str, Any]) -> None:
        """Keep what a page has to know of a model."""
        with self._change():
            self._db.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", (name, json.dumps(facts)))
            self._db.execute("INSERT OR IGNORE INTO told VALUES (?)", (name,))

    def told(self) -> list[str]:
        """Names of the models that the worker of now has read; those of the one before are still known."""
        return [str(row["name"]) for row in self._db.execute("SELECT name FROM told")]

    def forget_told(self) -> None:
        """The next worker has read no model yet."""
        with self._change():
            self._db.execute("DELETE FROM told")

    def forget_models(self, but: Iterable[str]) -> None:
        """Leave out models of an earlier start."""
        names = list(but)
        with self._change():
            marks = ", ".join("?" * len(names))
            self._db.execute(f"DELETE FROM models WHERE name NOT IN ({marks})", names)

    def requeue(self, ended: str = "the studio ended while it trained") -> None:
        """Queue again, in their old places, the jobs that ran when server and worker ended.

        But a training, which takes the machine for long, has stopped: a person says when it goes on.

        Args:
            ended: what is said of a training.
        """
        with self._change() as version:
            self._db.execute(
                "UPDATE jobs SET state = 'cancelled', finished = ?, version = ?, error = "
                "CASE cancel WHEN 0 THEN ? END "
                "WHERE state = 'running' AND json_extract(request, '$.kind') = 'train'",
                (time.time(), version, ended),
            )
            rows = self._db.execute(
                "UPDATE jobs SET state = CASE cancel WHEN 1 THEN 'cancelled' ELSE 'queued' END, step = 0, "
                "preview = NULL, started = NULL, version = ? WHERE state = 'running' RETURNING id, state",
                (version,),
            ).fetchall()
        self._remove_files(row["id"] for row in rows if row["state"] == "cancelled")

    def note_death(self) -> None:
        """The worker died by itself: its job is tried once more, then it has failed; a training waits for a person."""
        with self._change() as version:
            self._db.execute("UPDATE jobs SET deaths = deaths + 1 WHERE state = 'running'")
            failed = self._db.execute(
                "UPDATE jobs SET state = 'failed', preview = NULL, finished = ?, version = ?, error = "
                "'the worker died while it made this, twice: ask for a shorter or smaller video, or free memory' "
                "WHERE state = 'running' AND deaths >= ? RETURNING id",
                (time.time(), version, MOST_DEATHS),
            ).fetchall()
        self._remove_files(row["id"] for row in failed)
        self.requeue("the worker died while it trained: free memory, and let it go on")

    def take(self) -> dict[str, Any] | None:
        """The next job, now running; None: none waits."""
        if self._db.execute("SELECT 1 FROM jobs WHERE state = 'queued' LIMIT 1").fetchone() is None:
            return None
        with self._change() as version:
            row = self._db.execute(
                "UPDATE jobs SET state = 'running', started = ?, version = ? WHERE id = "
                f"(SELECT id FROM jobs WHERE state = 'queued' ORDER BY place, id LIMIT 1) RETURNING {_JOB}",
                (time.time(), version),
            ).fetchone()
        return _job(row) if row else None

    def is_cancelled(self, job: int) -> bool:
        """Whether a running job is to stop."""
        row = self._db.execute("SELECT cancel FROM jobs WHERE id = ?", (job,)).fetchone()
        return row is None or bool(row[0])

    def tell_step(self, job: int, step: int, preview: bytes | None = None) -> None:
        """Keep how far a job is, and what forms if it is given."""
        with self._change() as version:
            self._db.execute(
                "UPDATE jobs SET step = ?, preview = coalesce(?, preview), version = ? WHERE id = ?",
                (step, preview, version, job),
            )

    def finish(self, job: int, clip: dict[str, Any]) -> None:
        """A job is done and its clip is in the gallery, both or neither.

        Args:
            job: its number.
            clip: recipe (a dict), words, width, height, frames, fps, seconds, flops, and parents (clips) if it has any.
        """
        with self._change() as version:
            self._db.execute(
                "INSERT OR REPLACE INTO clips (id, batch, words, recipe, width, height, frames, fps, seconds, flops, "
                "made, version) SELECT id, batch, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM jobs WHERE id = ?",
                (
                    clip["words"].lower(), json.dumps(clip["recipe"]), clip["width"], clip["height"], clip["frames"],
                    clip["fps"], clip["seconds"], clip["flops"], time.time(), version, job,
                ),
            )  # fmt: skip
            for parent in clip.get("parents", ()):
                self._db.execute("INSERT OR IGNORE INTO origins VALUES (?, ?)", (job, parent))
            self._db.execute(
                "UPDATE jobs SET state = 'done', step = steps, preview = NULL, finished = ?, version = ? WHERE id = ?",
                (time.time(), version, job),
            )

    def complete(self, job: int) -> None:
        """A job that makes no clip is done."""
        with self._change() as version:
            self._db.execute(
                "UPDATE jobs SET state = 'done', step = steps, finished = ?, version = ? WHERE id = ?",
                (time.time(), version, job),
            )

    def end(self, job: int, error: str | None) -> None:
        """A job has failed with a line, or (None) was cancelled."""
        with self._change() as version:
            self._db.execute(
                "UPDATE jobs SET state = ?, error = ?, preview = NULL, finished = ?, version = ? WHERE id = ?",
                ("cancelled" if error is None else "failed", error, time.time(), version, job),
            )
        self._remove_files([job])


def _job(row: sqlite3.Row) -> dict[str, Any]:
    return {**dict(row), "request": json.loads(row["request"]), "forming": bool(row["forming"])}


def _clip(row: sqlite3.Row) -> dict[str, Any]:
    found = {name: row[name] for name in row.keys() if name != "deleted"}  # noqa: SIM118  (a Row yields values)
    return {**found, "recipe": json.loads(row["recipe"]), "favourite": bool(row["favourite"])}
