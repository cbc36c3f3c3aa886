"""Run an ASGI application for the browser of this machine, behind the guard, until it is interrupted."""

import asyncio
import importlib.util
import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping
from types import MappingProxyType

from minisora.errors import UserError
from minisora.serve.guard import LOOPBACK_NAMES, Application, Guard, new_token

LOOPBACK = "127.0.0.1"
_EXTRA = ("starlette", "uvicorn", "websockets")
# Of one message of a websocket: keys and clicks, never pictures.
_MESSAGE_BYTES = 1 << 16
_CONNECTIONS = 256


def need_server(command: str) -> None:
    """Refuse a command whose packages are not installed.

    Args:
        command: as typed, such as "minisora studio".

    Raises:
        UserError: one of the extra `studio` is missing.
    """
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{command} needs {', '.join(missing)}: pip install 'minisora[studio]'")


def run(
    app: Application,
    host: str | None,
    port: int,
    announce: Callable[[str], None],
    *,
    uploads: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Serve until Ctrl-C.

    Args:
        app: Starlette's or any other ASGI application.
        host: an address or name of this machine to listen on, for other machines to reach it; None: 127.0.0.1.
        port: 0 takes a free one.
        announce: called once, with the address that holds the token. It stands nowhere else, in no log either.
        uploads: as of `Guard`.

    Raises:
        UserError: a package is missing, or the address is not this machine's or in use.
    """
    need_server("this server")
    import uvicorn

    listening = _listen(host or LOOPBACK, port)
    with listening:
        port = listening.getsockname()[1]
        token = new_token()
        guarded = guard(app, token, host, port, uploads)
        config = uvicorn.Config(
            guarded,
            # Lines of access would hold the token of the first request.
            access_log=False,
            log_level=logging.ERROR,
            server_header=False,
            proxy_headers=False,
            ws_max_size=_MESSAGE_BYTES,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
        # Pages that are still open when it is ended are no failure of it.
        logging.getLogger("uvicorn.error").addFilter(_is_failure)
        announce(f"http://{_shown(host or LOOPBACK)}:{port}/?token={token}")
        uvicorn.Server(config).run(sockets=[listening])


def _is_failure(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's says that something failed, and not only that the end cut an answer short."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, asyncio.CancelledError) and "graceful shutdown" not in record.getMessage()


def guard(
    app: Application,
    token: str,
    host: str | None,
    port: int,
    uploads: Mapping[str, int] = MappingProxyType({}),
) -> Guard:
    """The guard of a server that listens on `host` (None: 127.0.0.1 alone) and `port`."""
    names, everywhere = set(LOOPBACK_NAMES), False
    if host is not None:
        names |= {_bracketed(host).lower(), socket.gethostname().lower()}
        everywhere = _is_everywhere(host)
    return Guard(
        app,
        token,
        names=names,
        any_address=everywhere,
        uploads=uploads,
        cookie=f"minisora-{port}",
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Else the port of a server that has just ended is refused for a minute.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        # Before the address is told: a browser that is quicker than the server waits.
        listening.listen(128)
    except (OSError, UnicodeError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or "no such name"
        raise UserError(
            f"cannot listen on {host} port {port} ({reason}): choose another --port (0 takes a free one), or a --host "
            "that is an address of this machine"
        ) from error
    return listening


def _is_everywhere(host: str) -> bool:
    """Whether a host means all addresses of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _shown(host: str) -> str:
    """A host as it stands in an address that a person can open."""
    return socket.gethostname() if _is_everywhere(host) else _bracketed(host)
