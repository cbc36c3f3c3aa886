"""What stands between a browser and a server on this machine: every request passes it, or is refused in one line.

A page of any website can send requests to 127.0.0.1, and a name of its own can be made to point there (DNS rebinding).
So a request needs, in this order:

Host     a name of this server: one that an attacker's page never has in its address.
Fetch    where the browser says who asks (Sec-Fetch-Site): this server's own page, or a person who opened the address.
Method   GET, HEAD, POST, PUT, PATCH or DELETE.
Token    the one printed at the start, in the address (exchanged for a cookie at once) or as a bearer token.
Origin   for every change and every websocket: this server's own. A missing one and "null" are refused.
Type     for every change: JSON, or bytes at the paths that take uploads. Neither can be sent from another page without
         a question that is never answered here (CORS preflight).
Length   said beforehand, within bounds, and kept to.

Answers carry a Content-Security-Policy under which a page runs no script but this server's files, loads nothing from
elsewhere, cannot be framed, and cannot make markup of text (trusted types).

A plain ASGI middleware, without imports from outside of the standard library.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

READS, CHANGES = frozenset({"GET", "HEAD"}), frozenset({"POST", "PUT", "PATCH", "DELETE"})
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
JSON_BYTES = 1 << 20

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+?)(?::[0-9]{1,5})?")
_CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    # Unless the answer says otherwise.
    "cache-control": "no-store",
}


class Guard:
    """The middleware.

    Args:
        app: what answers the requests that pass.
        token: what a person has to have; 128 bits or more, as of `new_token`.
        names: of this server in the Host header, as in an address, lower-case, without a port: "localhost", "[::1]".
        any_address: admit every numeric address as Host too. That is safe, as only a name can be made to point to
            another machine, and needed where the server listens on all of a machine's addresses.
        uploads: paths that take changes of type application/octet-stream, and the most bytes of each; no other may be.
        cookie: its name, so that servers on several ports do not log each other out.

    Raises:
        ValueError: a token that could be guessed.
    """

    def __init__(
        self,
        app: Application,
        token: str,
        *,
        names: Iterable[str] = LOOPBACK_NAMES,
        any_address: bool = False,
        uploads: Mapping[str, int] = MappingProxyType({}),
        cookie: str = "minisora",
    ):
        if len(token) < 22:
            raise ValueError("the token is too short: use minisora.serve.guard.new_token()")
        self.app, self._token, self.cookie = app, token, cookie
        self.names, self.any_address, self.uploads = frozenset(names), any_address, dict(uploads)
        # Not the token itself: the jar of a browser outlives the address.
        self._session = hashlib.sha256(f"minisora session {token}".encode()).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, answer it, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            # Start and end of the server; no request.
            await self.app(scope, receive, send)
            return
        headers = _Headers(scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
        elif refusal is not None:
            await _answer(send, *refusal)
        elif scope["type"] == "websocket":
            await self.app(scope, receive, send)
        elif self._in_address(scope):
            # To this very page, never where a path such as //elsewhere/ would lead.
            cookie = f"{self.cookie}={self._session}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(send, 303, "", [(b"location", b"/"), (b"set-cookie", cookie.encode())])
        else:
            length = int(headers.one("content-length") or 0)
            await self.app(scope, _bounded(receive, length), _with_headers(send))

    def _refusal(self, scope: Scope, headers: "_Headers") -> tuple[int, str] | None:
        """The status and line to refuse a request with; None: it may pass."""
        host = (headers.one("host") or "").lower()
        if not self._is_own(host):
            return 403, "wrong host: open the address that was printed at the start"
        method = "websocket" if scope["type"] == "websocket" else scope["method"]
        # Absent in older browsers and in scripts.
        site = headers.one("sec-fetch-site") or "none"
        opened = method in READS and headers.one("sec-fetch-mode") == "navigate"
        if site not in ("same-origin", "none") and not opened:
            return 403, "asked by another page: open the address that was printed at the start"
        if method not in READS | CHANGES | {"websocket"}:
            return 405, f"method {scope['method'][:20]} is not used here"
        if not (self._has_cookie(headers) or self._is_bearer(headers) or self._in_address(scope)):
            return 401, "the token is missing: open the whole address that was printed at the start"
        if method in READS:
            return None
        if headers.one("origin") != f"http://{host}":
            return 403, "asked by another page: a change needs this server's own Origin"
        return None if method == "websocket" else self._body_refusal(scope["path"], headers)

    def _body_refusal(self, path: str, headers: "_Headers") -> tuple[int, str] | None:
        kind = (headers.one("content-type") or "").partition(";")[0].strip().lower()
        wanted = "application/octet-stream" if path in self.uploads else "application/json"
        if kind != wanted:
            return 415, f"send {wanted}"
        most = self.uploads.get(path, JSON_BYTES)
        length = headers.one("content-length") or ""
        if not re.fullmatch("[0-9]{1,18}", length) or headers.one("transfer-encoding") is not None:
            return 411, "say the length of what is sent (Content-Length)"
        if int(length) > most:
            return 413, f"{int(length):,} bytes are more than the {most:,} that are taken"
        return None

    def _is_own(self, host: str) -> bool:
        """Whether a Host header, lower-case, names this server."""
        match = _AUTHORITY.fullmatch(host)
        if match is None:
            return False
        if match[1] in self.names:
            return True
        try:
            ipaddress.ip_address(match[1].strip("[]"))
        except ValueError:
            return False
        return self.any_address

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), self._token.encode())

    def _in_address(self, scope: Scope) -> bool:
        """Whether the token stands in the address: only to read, as a person opens it."""
        if scope.get("method") not in READS:
            return False
        given = parse_qs(scope.get("query_string", b"").decode("ascii", "replace")).get("token", [])
        return len(given) == 1 and self._is_token(given[0])

    def _is_bearer(self, headers: "_Headers") -> bool:
        scheme, _, given = (headers.one("authorization") or "").partition(" ")
        return scheme.lower() == "bearer" and self._is_token(given.strip())

    def _has_cookie(self, headers: "_Headers") -> bool:
        try:
            jar: SimpleCookie = SimpleCookie(headers.one("cookie") or "")
        except CookieError:
            return False
        given = jar[self.cookie].value if self.cookie in jar else ""
        return hmac.compare_digest(given.encode(errors="replace"), self._session.encode())


def new_token() -> str:
    """A token of 256 bits, as text for an address."""
    return secrets.token_urlsafe(32)


class _Headers:
    """The headers of a request, of which each is read only where it is given once."""

    def __init__(self, scope: Scope):
        self._pairs = [(name.lower(), value) for name, value in scope["headers"]]

    def one(self, name: str) -> str | None:
        """Its value; None where it is not given, and "?" (which nothing admits) where it is given twice."""
        values = [value for key, value in self._pairs if key == name.encode()]
        return None if not values else values[0].decode("latin-1") if len(values) == 1 else "?"


async def _answer(send: Send, status: int, line: str, extra: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """A short answer of plain text, with the headers that all have."""
    own = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *extra]
    guarded = _with_headers(send)
    await guarded({"type": "http.response.start", "status": status, "headers": own})
    await guarded({"type": "http.response.body", "body": f"{line}\n".encode() if line else b""})


def _with_headers(send: Send) -> Send:
    """`send`, adding `_HEADERS` that an answer does not set itself."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message.get("headers", [])}
            added = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in there]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return sending


def _bounded(receive: Receive, length: int) -> Receive:
    """`receive`, ending the request as a broken one where more comes than was said."""
    left = length

    async def receiving() -> Message:
        nonlocal left
        message = await receive()
        if message["type"] == "http.request":
            left -= len(message.get("body", b""))
            if left < 0:
                return {"type": "http.disconnect"}
        return message

    return receiving
