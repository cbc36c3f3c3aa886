"""Files that a person sends to the studio: kept within bounds, and never looked into but for their first bytes.

The worker decodes them (`minisora.data.video.read_upload`); what it makes of one is a clip as all others are.
"""

import hashlib
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from minisora.data.media_kind import KINDS, MAGIC_BYTES, MOST_BYTES, kind_of
from minisora.errors import UserError
from minisora.pipelines.recipe import MAX_NAME, UNSAMPLED, VERSION, recipe_of
from minisora.serve.web_pages import JSONAnswer
from minisora.studio.job_store import JobStore

# For the guard: where they go, and the most bytes of one.
UPLOADS = {"/api/uploads": MOST_BYTES}
# Of files that the worker has not looked at yet.
MOST_WAITING_BYTES = 1 << 30
# Of the disk, below which nothing is made any more.
LEAST_FREE = 500 * 10**6


def check_disk(store: JobStore) -> None:
    """Refuse to make anything on a disk that is nearly full; raises UserError."""
    free = shutil.disk_usage(store.home).free
    if free < LEAST_FREE:
        raise UserError(f"only {free / 1e6:.0f} MB of the disk are free: delete something first")


def upload_routes(store: JobStore, facts_of: Callable[[str], dict[str, Any]]) -> list[BaseRoute]:
    """The route that takes files.

    Args:
        store: jobs and clips.
        facts_of: what the worker told of a model; raises UserError where there is none.
    """

    async def upload(request: Request) -> Response:
        """Keep a file, the body of the request, for the worker; its name and caption are text of the address."""
        query = request.query_params
        facts = facts_of(query.get("model", ""))
        prompt = _text(query.get("prompt", ""))
        asked = {
            **UNSAMPLED, "model": query["model"], "mode": "upload", "prompt": prompt,
            "name": _text(query.get("name", ""))[:MAX_NAME] or "a file", "size": [1, *facts["default_size"][1:]],
        }  # fmt: skip
        digest, unfinished = hashlib.sha256(), store.uploads_folder / f"{secrets.token_hex(16)}.part"
        # Refuses here, in one line, what the worker would refuse later.
        recipe_of({**asked, "digest": digest.hexdigest(), "weights": "0" * 64, "minisora": VERSION})
        check_disk(store)
        waiting = sum(map(_bytes_of, store.uploads_folder.iterdir()))
        if waiting > MOST_WAITING_BYTES:
            raise UserError(
                f"files of {waiting / 1e6:.0f} MB wait already: let some be looked at, or cancel some"
            )
        try:
            head = b""
            with unfinished.open("wb") as file:
                async for part in request.stream():
                    digest.update(part)
                    file.write(part)
                    head = (head + part)[:MAGIC_BYTES] if len(head) < MAGIC_BYTES else head
            suffix = kind_of(head)
            if suffix is None:
                raise UserError(f"{asked['name']} is no {KINDS}")
            kept = unfinished.with_suffix(suffix)
            unfinished.rename(kept)
        except ClientDisconnect as error:
            raise UserError("the file did not come whole: send it again") from error
        finally:
            unfinished.unlink(missing_ok=True)
        try:
            jobs = store.add_jobs([{**asked, "digest": digest.hexdigest(), "file": kept.name}], 1)
        except UserError:
            kept.unlink(missing_ok=True)
            raise
        return JSONAnswer({"jobs": jobs})

    return [Route(path, upload, methods=["POST"]) for path in UPLOADS]


def _bytes_of(file: Path) -> int:
    """Length of a file; 0 where the worker was done with it first."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _text(given: str) -> str:
    """One line of a text, its spaces one each, without what cannot be shown."""
    return " ".join("".join(each if each.isprintable() else " " for each in given).split())
