"""A world that echoes, in place of `minisora world play`: what the studio's way through to it is tested with.

    python tests/studio/fake_world.py world play WORLD --port 0 ...

It answers who brings its token and its own Origin, and nobody else. A world with "broken" in its name does not start.
"""

import asyncio
import os
import sys
import threading
from typing import Any

from websockets.asyncio.server import serve
from websockets.http11 import Request, Response

TOKEN = "the-token-of-the-world"


def end_with_starter() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


async def main() -> None:
    words = sys.argv[1:]
    assert words[:2] == ["world", "play"]
    if "broken" in words[2]:
        print("error: this world is damaged: train it again", file=sys.stderr)
        sys.exit(2)

    def allow(connection: Any, request: Request) -> Response | None:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return connection.respond(401, "the token is missing")  # type: ignore[no-any-return]
        if request.path == "/saved/1.mp4":
            return connection.respond(200, "a video")  # type: ignore[no-any-return]
        if request.path != "/play":
            return connection.respond(404, "nothing")  # type: ignore[no-any-return]
        assert request.headers["Origin"] == f"http://{request.headers['Host']}"
        return None

    async def play(socket: Any) -> None:
        await socket.send(" ".join(words))
        async for message in socket:
            if message == "leave":
                await socket.close(4000, "played in another window")
            await socket.send(message[::-1])

    async with serve(play, "127.0.0.1", 0, process_request=allow) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"open http://127.0.0.1:{port}/?token={TOKEN} (Ctrl-C ends it)", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    threading.Thread(target=end_with_starter, daemon=True).start()
    asyncio.run(main())
