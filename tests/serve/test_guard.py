"""The threat list of docs/how-to/studio.md: a test for each line that the guard holds."""

import re
from typing import Any

import pytest

from minisora.serve.guard import JSON_BYTES, Guard, new_token

TOKEN = new_token()
HOST, ORIGIN = ("host", "127.0.0.1:8420"), ("origin", "http://127.0.0.1:8420")
BEARER = ("authorization", f"Bearer {TOKEN}")
JSON = ("content-type", "application/json")
CHANGE = [HOST, ORIGIN, BEARER, JSON, ("content-length", "2")]


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Answers everything with 200, having read all that was sent."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        return
    status = 200
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        status = 499
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"seen"})


GUARD = Guard(_app, TOKEN, uploads={"/files": 1000})


def _without(name: str, *added: tuple[str, str]) -> list[tuple[str, str]]:
    return [pair for pair in CHANGE if pair[0] != name] + list(added)


def test_what_is_whole_passes(ask: Any) -> None:
    assert ask(GUARD, "GET", "/", [HOST, BEARER]).status == 200
    assert ask(GUARD, "POST", "/jobs", CHANGE, b"{}").status == 200
    assert ask(GUARD, "websocket", "/play", [HOST, ORIGIN, BEARER]).status == 101
    for host in ("localhost", "LOCALHOST:1", "[::1]:8420"):
        assert ask(GUARD, "GET", "/", [("host", host), BEARER]).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8420", "127.0.0.1.evil.example", "localhost.evil.example", "localhost.",
        "127.0.0.1.nip.io:8420", "192.168.0.7", "0.0.0.0:8420", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "",
        "localhost:8420@evil.example", "localhost/evil", "127.0.0.1:8420, evil.example", "127.0.0.1:999999",
    ],
)  # fmt: skip
def test_a_name_of_others_is_refused_even_with_the_token(ask: Any, host: str) -> None:
    """DNS rebinding: the address is right, the name in it is the attacker's."""
    own = ("origin", f"http://{host}")
    assert ask(GUARD, "GET", f"/?token={TOKEN}", [("host", host)]).status == 403
    assert ask(GUARD, "POST", "/jobs", [("host", host), own, BEARER, JSON], b"{}").status == 403
    assert ask(GUARD, "websocket", "/", [("host", host), own, BEARER]).status == 403


def test_no_host_and_two_hosts_are_refused(ask: Any) -> None:
    assert ask(GUARD, "GET", "/", [BEARER]).status == 403
    assert ask(GUARD, "GET", "/", [HOST, HOST, BEARER]).status == 403


def test_numeric_addresses_are_admitted_where_it_listens_on_all(ask: Any) -> None:
    guard = Guard(_app, TOKEN, names={"box"}, any_address=True)
    for host, status in (("192.168.0.7:80", 200), ("[fd00::7]:80", 200), ("box", 200), ("a.example", 403)):
        assert ask(guard, "GET", "/", [("host", host), BEARER]).status == status


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8420", "https://127.0.0.1:8420",
     "http://127.0.0.1:8420/", "http://127.0.0.1:8420.evil.example", ""],
)  # fmt: skip
def test_a_foreign_origin_changes_nothing(ask: Any, origin: str) -> None:
    assert ask(GUARD, "POST", "/jobs", _without("origin", ("origin", origin)), b"{}").status == 403
    assert ask(GUARD, "websocket", "/", [HOST, BEARER, ("origin", origin)]).status == 403


def test_a_missing_origin_changes_nothing(ask: Any) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert ask(GUARD, method, "/jobs", _without("origin"), b"{}").status == 403
    assert ask(GUARD, "websocket", "/", [HOST, BEARER]).status == 403
    assert ask(GUARD, "POST", "/jobs", [*CHANGE, ORIGIN], b"{}").status == 403


def test_another_page_cannot_embed_but_may_link(ask: Any) -> None:
    for site in ("cross-site", "same-site"):
        asked = [HOST, BEARER, ("sec-fetch-site", site)]
        assert ask(GUARD, "GET", "/clip.mp4", [*asked, ("sec-fetch-mode", "no-cors")]).status == 403
        assert ask(GUARD, "GET", "/", [*asked, ("sec-fetch-mode", "navigate")]).status == 200
        assert ask(GUARD, "POST", "/", [*CHANGE, asked[2]], b"{}").status == 403


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_other_methods_are_refused(ask: Any, method: str) -> None:
    answer = ask(GUARD, method, "/", CHANGE)
    assert answer.status == 405
    # So that a browser's question whether it may (CORS) is never answered with yes.
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_without_the_token_nothing_is_shown(ask: Any) -> None:
    wrong = new_token()
    for target, headers in (
        ("/", []),
        (f"/?token={wrong}", []),
        (f"/?token={TOKEN}&token={wrong}", []),
        ("/?token=", []),
        ("/", [("authorization", f"Bearer {wrong}")]),
        ("/", [("authorization", "Bearer é")]),
        ("/", [("cookie", f"minisora={TOKEN}")]),
        ("/", [("cookie", "minisora=")]),
        ("/", [("cookie", "a b; ;=")]),
    ):
        answer = ask(GUARD, "GET", target, [HOST, *headers])
        assert answer.status == 401
        assert TOKEN not in answer.body.decode()
    assert ask(GUARD, "POST", f"/jobs?token={TOKEN}", _without("authorization"), b"{}").status == 401
    assert ask(GUARD, "websocket", f"/?token={TOKEN}", [HOST, ORIGIN]).status == 403


def test_the_address_becomes_a_cookie_that_scripts_and_other_pages_do_not_get(ask: Any) -> None:
    for target in (f"/?token={TOKEN}", f"//evil.example/?token={TOKEN}"):
        answer = ask(GUARD, "GET", target, [HOST])
        # The token leaves the address at once, and the way leads nowhere else.
        assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    pair = ("cookie", cookie.partition(";")[0])
    assert ask(GUARD, "GET", "/", [HOST, pair]).status == 200
    # Of another start of the server.
    assert ask(Guard(_app, new_token()), "GET", "/", [HOST, pair]).status == 401


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/json"]
)  # fmt: skip
def test_what_a_foreign_form_can_send_is_no_change(ask: Any, kind: str) -> None:
    assert ask(GUARD, "POST", "/jobs", _without("content-type", ("content-type", kind)), b"{}").status == 415
    assert ask(GUARD, "POST", "/jobs", _without("content-type"), b"{}").status == 415


def test_bodies_are_bounded_said_and_kept_to(ask: Any) -> None:
    def sent(
        length: str, body: bytes, kind: str = "application/json", *more: tuple[str, str], path: str = "/jobs"
    ) -> int:
        headers = [HOST, ORIGIN, BEARER, ("content-type", kind), ("content-length", length), *more]
        parts = [body[:10], body[10:]]
        return int(ask(GUARD, "POST", path, headers, parts).status)

    assert sent("20", b"x" * 20) == 200
    assert sent(str(JSON_BYTES + 1), b"") == 413
    assert sent("9" * 18, b"") == 413
    bytes_ = "application/octet-stream"
    assert sent("1000", b"x" * 1000, bytes_, path="/files") == 200
    assert sent("1001", b"", bytes_, path="/files") == 413
    # Each at its own path alone: JSON is read into memory as a whole.
    assert sent("2", b"{}", path="/files") == 415
    for other in ("/jobs", "/files/", "/files/../jobs", "//files"):
        assert sent("2", b"{}", bytes_, path=other) == 415
    for length in ("", "-1", "1e3", "0x10", " 2"):
        assert sent(length, b"{}") == 411
    assert sent("2", b"{}", "application/json", ("transfer-encoding", "chunked")) == 411
    assert ask(GUARD, "POST", "/jobs", _without("content-length"), b"{}").status == 411
    # More than was said: the application sees a broken request.
    assert sent("15", b"x" * 20) == 499
    assert ask(Guard(_app, TOKEN), "POST", "/", _without("content-type", ("content-type",
        "application/octet-stream")), b"{}").status == 415  # fmt: skip


def test_every_answer_has_the_policy(ask: Any) -> None:
    for answer in (ask(GUARD, "GET", "/", [HOST, BEARER]), ask(GUARD, "GET", "/", [HOST])):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"https?:|\*", policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"


def test_a_token_that_could_be_guessed_is_refused() -> None:
    assert len(new_token()) == 43
    assert new_token() != new_token()
    with pytest.raises(ValueError, match="too short"):
        Guard(_app, "1234")
