"""What the pages' servers share: files of a page that are read once, JSON in and out, and errors that go out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from minisora.errors import UserError

# Said here: what the operating system thinks of a suffix differs, and a script of another type is not run.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".mp4": "video/mp4",
}


def page_routes(folder: Path, *others: Path, index: str = "index.html") -> list[BaseRoute]:
    """Routes to the files of a folder and to others, read now: no address ever reaches the disk.

    Args:
        folder: of the page.
        others: files that lie elsewhere, such as the look of all pages.
        index: the name of the file that is "/" too.

    Raises:
        ValueError: a file of a kind that pages do not have.
    """
    routes: list[BaseRoute] = []
    for file in (*sorted(folder.iterdir()), *others):
        if not file.is_file() or file.suffix == ".py":
            continue
        if file.suffix not in _TYPES:
            raise ValueError(f"{file.name}: pages have {', '.join(_TYPES)}")
        answer = _file_answer(file.read_bytes(), _TYPES[file.suffix])
        routes.append(Route(f"/{file.name}", answer))
        if file.name == index:
            routes.append(Route("/", answer))
    return routes


def _file_answer(content: bytes, kind: str) -> Any:
    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return answer


class JSONAnswer(JSONResponse):
    """JSON, of which a lone surrogate (a byte of a file name that is not UTF-8) goes as its escape: `\\udce9`."""

    def render(self, content: Any) -> bytes:
        """The bytes of a value; raises ValueError where it holds nan or infinity."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


async def json_object(request: Request, allowed: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """The JSON object that a request carries.

    Args:
        request: of a change.
        allowed: keys it may have, and the types that each may be of.

    Raises:
        UserError: it is none, or has another key, a value of another type, or text that could not be written down.
    """
    try:
        value = await request.json()
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UserError("what was sent has a lone surrogate in it, which is no letter") from error
    except (ValueError, RecursionError) as error:
        raise UserError("what was sent is not JSON") from error
    except ClientDisconnect as error:
        raise UserError("more was sent than was said") from error
    if not isinstance(value, dict):
        raise UserError("what was sent is no JSON object")
    for key, item in value.items():
        if key not in allowed:
            raise UserError(f"unknown key '{key[:40]}': use {', '.join(allowed) or 'none'}")
        # True is an int to Python.
        if type(item) not in allowed[key]:
            raise UserError(f"'{key}' has a value of the wrong type")
    return value


async def _refused(request: Request, error: Exception) -> Response:
    return JSONAnswer({"error": str(error)}, 400)


async def _no_such(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return JSONAnswer({"error": "there is no such thing here"}, status)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONAnswer({"error": "the server failed: its terminal says why"}, 500)


# For Starlette: a line for the page, and never a traceback.
ERRORS: dict[Any, Any] = {UserError: _refused, HTTPException: _no_such, Exception: _failed}
