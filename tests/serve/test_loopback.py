import http.client
import importlib.util
import socket
import sys
from pathlib import Path

import pytest
from processes import first_line, started

from minisora.errors import UserError
from minisora.serve import loopback
from minisora.serve.guard import new_token

needs_uvicorn = pytest.mark.skipif(
    importlib.util.find_spec("uvicorn") is None, reason="needs uvicorn: pip install 'minisora[studio]'"
)

_SERVER = """
import asyncio
from minisora.serve.loopback import run

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(60)
    if scope["path"] == "/fail":
        raise ValueError("broken on purpose")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})

run(app, None, 0, lambda address: print(address, flush=True))
"""


@needs_uvicorn
@pytest.mark.slow
def test_it_listens_on_this_machine_alone_and_logs_no_token(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as errors, started([sys.executable, "-c", _SERVER], stderr=errors) as server:
        address = first_line(server)
        start, _, token = address.partition("/?token=")
        host, _, port = start.removeprefix("http://").partition(":")
        assert host == "127.0.0.1"
        connection = http.client.HTTPConnection(host, int(port), timeout=10)

        def status(target: str, cookie: str = "") -> int:
            connection.request("GET", target, headers={"cookie": cookie} if cookie else {})
            answer = connection.getresponse()
            answer.read()
            return answer.status

        connection.request("GET", f"/?token={token}")
        answer = connection.getresponse()
        answer.read()
        cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
        assert cookie.startswith(f"minisora-{port}=")
        assert (status("/"), status("/", cookie), status(f"/x?token={token[:-1]}")) == (401, 200, 401)
        assert status("/fail", cookie) == 500
        # The other addresses of this machine, where it has any, do not answer.
        for other in {
            entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
        }:
            if not str(other).startswith("127."):
                with pytest.raises((ConnectionRefusedError, TimeoutError)):
                    socket.create_connection((str(other), int(port)), timeout=2)
        # A page that follows events is open when the server ends.
        stream = http.client.HTTPConnection(host, int(port), timeout=10)
        stream.request("GET", "/stream", headers={"cookie": cookie})
        assert stream.getresponse().read(1) == b"x"
    assert "broken on purpose" in log.read_text()
    assert "Cancel" not in log.read_text()
    assert token not in log.read_text()
    assert cookie.partition("=")[2] not in log.read_text()


def test_a_port_in_use_and_a_host_of_others_are_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on 127.0.0.1 port {port} .*--port \(0 takes"):
            loopback._listen("127.0.0.1", port)
    with pytest.raises(UserError, match="a --host that is an address of this machine"):
        loopback._listen("203.0.113.9", 0)


def test_a_missing_package_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(UserError, match=r"^minisora studio needs uvicorn: pip install 'minisora\[studio\]'$"):
        loopback.need_server("minisora studio")


def test_only_a_host_that_is_said_opens_the_names() -> None:
    async def app(scope: object, receive: object, send: object) -> None: ...

    closed = loopback.guard(app, new_token(), None, 1)
    assert closed.names == {"127.0.0.1", "localhost", "[::1]"}
    assert not closed.any_address
    assert "192.168.0.7" in loopback.guard(app, new_token(), "192.168.0.7", 1).names
    assert "[fd00::7]" in loopback.guard(app, new_token(), "FD00::7", 1).names
    assert not loopback.guard(app, new_token(), "192.168.0.7", 1).any_address
    assert loopback.guard(app, new_token(), "0.0.0.0", 1).any_address
