import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs starlette: pip install 'minisora[studio]'")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from minisora.serve.web_pages import ERRORS, JSONAnswer, json_object, page_routes


def test_only_the_files_of_the_page_are_served(ask: Any, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("<p>hello")
    (folder / "app.js").write_text("1")
    (folder / "__init__.py").write_text("secret = 1")
    (tmp_path / "secret.js").write_text("secret")
    app = Starlette(routes=page_routes(folder), exception_handlers=ERRORS)
    assert ask(app, "GET", "/").body == b"<p>hello"
    assert ask(app, "GET", "/app.js").headers["content-type"] == "text/javascript; charset=utf-8"
    for path in (
        "/../secret.js",
        "/%2e%2e/secret.js",
        "/..%2fsecret.js",
        "//etc/passwd",
        "/__init__.py",
        "/x.js",
    ):
        answer = ask(app, "GET", path)
        assert (answer.status, answer.json) == (404, {"error": "there is no such thing here"})
    (folder / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        page_routes(folder)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", "what was sent is not JSON"),
        (b"\xff\xfe{", "what was sent is not JSON"),
        (b"[" * 50_000, "what was sent is not JSON"),
        (b"[]", "what was sent is no JSON object"),
        (b'{"steps": "8"}', "'steps' has a value of the wrong type"),
        (b'{"steps": true}', "'steps' has a value of the wrong type"),
        (b'{"path": "/etc"}', "unknown key 'path': use steps"),
        (b'{"path": "red \\ud800"}', "what was sent has a lone surrogate in it, which is no letter"),
    ],
)
def test_what_comes_in_is_of_the_right_kind(ask: Any, body: bytes, error: str) -> None:
    async def take(request: Request) -> JSONResponse:
        return JSONResponse(await json_object(request, {"steps": (int,)}))

    app = Starlette(routes=[Route("/", take, methods=["POST"])], exception_handlers=ERRORS)
    answer = ask(app, "POST", "/", [], body)
    assert (answer.status, answer.json) == (400, {"error": error})
    assert ask(app, "POST", "/", [], json.dumps({"steps": 8}).encode()).json == {"steps": 8}


def test_a_name_that_is_not_utf8_is_shown_all_the_same(ask: Any) -> None:
    async def tell(request: Request) -> JSONAnswer:
        return JSONAnswer({"name": os.fsdecode(b"caf\xe9 \xc3\xa9")})

    app = Starlette(routes=[Route("/", tell)])
    assert ask(app, "GET", "/").body == b'{"name":"caf\\udce9 \\u00e9"}'
    with pytest.raises(ValueError, match="JSON"):
        JSONAnswer({"loss": float("nan")})


def test_a_fault_of_the_server_shows_nothing_of_it(ask: Any) -> None:
    async def fail(request: Request) -> JSONResponse:
        raise ValueError("/home/someone/secret")

    app = Starlette(routes=[Route("/", fail)], exception_handlers=ERRORS)
    seen: list[Any] = []

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ValueError, match="secret"):
            await app(scope, receive, send)
        seen.append(scope)

    answer = ask(outer, "GET", "/")
    assert seen
    assert (answer.status, answer.json) == (500, {"error": "the server failed: its terminal says why"})
