"""The compute report in the studio: made by a command of its own, shown in a sandbox, and of known runs alone."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs starlette: pip install 'minisora[studio]'")

from starlette.applications import Starlette

from minisora.serve.guard import Guard, new_token
from minisora.serve.web_pages import ERRORS
from minisora.studio import report_pages, upload_pages
from minisora.studio.folders import Folders, run_id
from minisora.studio.job_store import JobStore
from minisora.studio.report_pages import OWN, report_routes

# Writes its words down as the report; fails for a run of that name.
MAKES = """
import sys
from pathlib import Path
words = sys.argv[1:]
if any("broken" in word for word in words): print("error: that run holds no run", file=sys.stderr); sys.exit(2)
if any("silent" in word for word in words): sys.exit(3)
out = Path(words[words.index("--out") + 1])
out.mkdir(parents=True)
(out / "report.html").write_text("<h1>" + " ".join(words))
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setattr(report_pages, "COMMAND", (sys.executable, "-c", MAKES))
    for name in ("mine", "broken", "silent"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    return Folders([], tmp_path / "runs")


@pytest.fixture
def app(store: JobStore, folders: Folders) -> Any:
    return Starlette(routes=report_routes(store, folders), exception_handlers=ERRORS)


async def until_made(within: Any, app: Any, id_: str) -> Any:
    for _ in range(3000):
        _, now = await within(app, "GET", f"/api/reports/{id_}")
        if now["state"] != "making":
            return now
        await asyncio.sleep(0.02)
    raise AssertionError("it is never made")


def test_a_report_is_made_and_shown(
    app: Any, within: Callable[..., Any], store: JobStore, folders: Folders
) -> None:
    async def script() -> None:
        mine = run_id("mine")
        for id_, more in ((OWN, ""), (mine, f" --run {folders.run('mine')}")):
            assert (await within(app, "GET", f"/api/reports/{id_}"))[1] == {"state": "none"}
            assert (await within(app, "GET", f"/reports/{id_}"))[0] == 404
            assert (await within(app, "POST", f"/api/reports/{id_}", {}))[1] == {"state": "making"}
            # One at a time.
            status, told = await within(app, "POST", f"/api/reports/{OWN}", {})
            assert (status, told["error"]) == (400, "a report is being made: let it be done first")
            made = await until_made(within, app, id_)
            assert (made["state"], set(made)) == ("done", {"state", "made"})
            _, page = await within(app, "GET", f"/reports/{id_}")
            out = store.home / "reports" / id_
            assert page.decode() == f"<h1>report --out {out}{more}"
        for name, error in (
            ("broken", "that run holds no run"),
            ("silent", "it ended with code 3 and no word"),
        ):
            await within(app, "POST", f"/api/reports/{run_id(name)}", {})
            assert await until_made(within, app, run_id(name)) == {"state": "failed", "error": error}

    asyncio.run(script())


def test_a_report_is_of_a_run_that_is_there(app: Any, ask: Any, store: JobStore) -> None:
    for wrong in ("..", "nowhere", run_id("nowhere"), "%2e%2e", "own%2f.."):
        assert ask(app, "GET", f"/reports/{wrong}").status == 404
        assert ask(app, "POST", f"/api/reports/{wrong}", [], b"{}").status == 404
    assert not (store.home / "reports").exists()


def test_a_full_disk_makes_no_report(app: Any, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_pages, "LEAST_FREE", 10**18)
    answer = ask(app, "POST", f"/api/reports/{OWN}", [], b"{}")
    assert "of the disk are free" in answer.json["error"]


def test_a_report_is_in_a_sandbox_and_behind_the_guard(app: Any, ask: Any, store: JobStore) -> None:
    (store.home / "reports" / OWN).mkdir(parents=True)
    (store.home / "reports" / OWN / "report.html").write_text("<script>fetch('/api/state')</script>")
    token = new_token()
    guarded = Guard(app, token)
    host, bearer = ("host", "127.0.0.1:8420"), ("authorization", f"Bearer {token}")
    answer = ask(guarded, "GET", f"/reports/{OWN}", [host, bearer])
    policy = dict(answer.headers)["content-security-policy"]
    # Of no origin, so that no cookie goes with it; and nowhere to send anything to.
    assert policy.startswith("sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline';")
    assert "connect-src" not in policy
    for path in (f"/reports/{OWN}", f"/api/reports/{OWN}"):
        assert ask(guarded, "GET", path, [host]).status == 401
        foreign = [host, bearer, ("origin", "http://evil.example"), ("content-type", "application/json")]
        assert ask(guarded, "POST", path, [*foreign, ("content-length", "2")], b"{}").status == 403


@pytest.mark.slow
def test_the_real_report_is_made(store: JobStore, tmp_path: Path, within: Callable[..., Any]) -> None:
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("vae: {spatial_factor: 8, temporal_factor: 4}\n")
    app = Starlette(routes=report_routes(store, Folders([], tmp_path / "runs")), exception_handlers=ERRORS)

    async def script() -> None:
        id_ = run_id("mine")
        await within(app, "POST", f"/api/reports/{id_}", {})
        assert (await until_made(within, app, id_))["state"] == "done"
        _, page = await within(app, "GET", f"/reports/{id_}")
        assert "VAE of the run mine" in page.decode()

    asyncio.run(script())
