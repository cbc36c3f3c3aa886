"""Files from elsewhere: each becomes a clip or one line, and nothing of it is anything but pictures and text."""

import hashlib
import random
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs starlette: pip install 'minisora[studio]'")

from minisora.data.media_kind import MOST_BYTES, kind_of
from minisora.data.video import read_upload
from minisora.errors import UserError
from minisora.pipelines.recipe import read_recipe
from minisora.pipelines.remake import remake
from minisora.serve.guard import Guard, new_token
from minisora.studio import upload_pages
from minisora.studio.engine import PipelineEngine
from minisora.studio.job_store import JobStore
from minisora.studio.studio_app import studio_app
from minisora.studio.upload_pages import UPLOADS
from minisora.studio.worker import work_one

MUTATED = 100


def _mp4(frames: int = 12, height: int = 40, width: int = 60) -> bytes:
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for t in range(frames):
            pixels = np.full((height, width, 3), 30 + 15 * t, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def _picture(kind: str, size: tuple[int, int] = (60, 40), **more: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)).save(
        file, kind, **more
    )
    return file.getvalue()


def _gif() -> bytes:
    first, *rest = [Image.new("RGB", (40, 40), (20 * t, 0, 90)) for t in range(10)]
    file = BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=130)
    return file.getvalue()


@pytest.fixture
def engine(store: JobStore, fake: ModuleType) -> Any:
    engine = fake.FakeEngine()
    store.tell_model("toy", engine.facts("toy"))
    return engine


@pytest.fixture
def upload(store: JobStore, engine: Any, ask: Any) -> Callable[..., Any]:
    """Sends bytes: (content, name, caption)."""
    app = studio_app(store, lambda: "ready")

    def upload(content: bytes, name: str = "a.mp4", caption: str = "", model: str = "toy") -> Any:
        return ask(app, "POST", f"/api/uploads?model={model}&name={name}&prompt={caption}", [], content)

    return upload


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (_mp4, (12, 48, 80)),
        (_gif, (11, 64, 64)),
        (lambda: _picture("PNG"), (1, 48, 80)),
        (lambda: _picture("JPEG", (40, 60)), (1, 80, 48)),
        (lambda: _picture("WEBP", (64, 64)), (1, 64, 64)),
    ],
    ids=["mp4", "gif", "png", "jpeg", "webp"],
)
def test_a_file_becomes_a_clip_of_the_size_nearest_in_shape(
    store: JobStore, engine: Any, upload: Any, make: Callable[[], bytes], shape: tuple[int, int, int]
) -> None:
    content = make()
    (job,) = upload(content, "my%20%3Cb%3Eclip%3C/b%3E.mp4", "a%20red%20circle").json["jobs"]
    assert work_one(store, engine)
    assert store.job(job)["error"] is None  # type: ignore[index]
    clip = store.clip(job)
    assert clip is not None
    assert (clip["frames"], clip["height"], clip["width"]) == shape
    recipe = read_recipe(store.clip_file(job, ".mp4"))
    assert (recipe.mode, recipe.prompt, recipe.name) == ("upload", "a red circle", "my <b>clip</b>.mp4")
    assert recipe.digest == hashlib.sha256(content).hexdigest()
    assert store.clips(search="circle clip")[0] == 1
    # What was sent is not kept, and no speed is learnt of it.
    assert list(store.uploads_folder.iterdir()) == []
    assert store.job(job)["state"] == "done"  # type: ignore[index]


def test_a_file_that_the_worker_is_done_with_stops_no_other(store: JobStore, upload: Any) -> None:
    """It was there when the folder was listed, and is not when its length is asked for; as a dangling link is not."""
    (store.uploads_folder / "gone.mp4").symlink_to("nowhere")
    assert upload(_picture("PNG")).status == 200


def test_what_is_made_from_an_upload_is_made_again_with_it(
    tiny_run: Path, store: JobStore, ask: Any, tmp_path: Path
) -> None:
    engine = PipelineEngine({"mine": tiny_run / "model"})
    store.tell_model("mine", engine.facts("mine"))
    app = studio_app(store, lambda: "ready")
    (first,) = ask(app, "POST", "/api/uploads?model=mine&name=x.gif", [], _gif()).json["jobs"]
    assert work_one(store, engine)
    clip = store.clip(first)
    assert clip is not None
    assert (clip["frames"], clip["flops"]) == (11, None)
    words = b'{"model": "mine", "prompt": "a red circle", "mode": "restyle", "strength": 0.7, "steps": 2, '
    body, keep = words + b'"parents": [%d]}', words + b'"parents": [%d], "keep": true}'
    assert (
        "no words say what the video shows" in ask(app, "POST", "/api/jobs", [], keep % first).json["error"]
    )
    (second,) = ask(app, "POST", "/api/jobs", [], body % first).json["jobs"]
    assert work_one(store, engine)
    made, again = store.clip_file(second, ".mp4"), tmp_path / "again.mp4"
    with pytest.raises(
        UserError, match=r"was made from the file 'x\.gif' \(SHA-256 .*\): pass it by --upload"
    ):
        remake(made, again, tiny_run / "model", [made])
    (tmp_path / "mine.bin").write_bytes(_gif())
    for given in (tmp_path / "mine.bin", store.clip_file(first, ".mp4")):
        remake(made, again, tiny_run / "model", [given])
        assert again.read_bytes() == made.read_bytes()


@pytest.mark.parametrize(
    ("content", "name", "error"),
    [
        (b"", "a.mp4", "a.mp4 is no mp4, mov, webm, gif, png, jpeg or webp"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "a.mp4", "a.mp4 is no mp4"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "a.mp4", "a.mp4 is no mp4"),
        (b"<svg xmlns='x' onload='alert(1)'/>", "a.svg", "a.svg is no mp4"),
        (
            b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>",
            "",
            "a file is no mp4",
        ),
        (b"\x80\x04\x95cos\nsystem\n", "../../etc/passwd", "../../etc/passwd is no mp4"),
        (b"PK\x03\x04" + bytes(100), "model.safetensors", "model.safetensors is no mp4"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "a.heic", "a.heic is no mp4"),
    ],
)
def test_what_is_no_picture_is_refused_before_it_is_kept(
    store: JobStore, upload: Any, content: bytes, name: str, error: str
) -> None:
    answer = upload(content, name)
    assert answer.status == 400
    assert error in answer.json["error"]
    assert store.open_jobs() == []
    assert list(store.uploads_folder.iterdir()) == []


def _bomb() -> bytes:
    """A PNG of 8,000 x 8,000 pixels in a few hundred bytes."""
    small = bytearray(_picture("PNG"))
    small[16:24] = (8000).to_bytes(4, "big") * 2
    import zlib

    small[29:33] = zlib.crc32(small[12:29]).to_bytes(4, "big")
    return bytes(small)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (_bomb(), "x.png is of 8000x8000 pixels, more than 33,554,432: make it smaller"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), "x.png cannot be decoded"),
        (_mp4()[:300], "x.png cannot be decoded"),
        (b"\0\0\0\x18ftypmp42" + bytes(1000), "x.png cannot be decoded"),
        (b"GIF89a" + bytes(1000), "x.png"),
        (b"\x1aE\xdf\xa3" + bytes(1000), "x.png cannot be decoded"),
    ],
    ids=["bomb", "png", "cut", "mp4", "gif", "webm"],
)
def test_what_cannot_be_decoded_fails_in_one_line(
    store: JobStore, engine: Any, upload: Any, content: bytes, error: str
) -> None:
    (job,) = upload(content, "x.png").json["jobs"]
    assert work_one(store, engine)
    failed = store.job(job)
    assert failed is not None
    assert failed["state"] == "failed"
    assert failed["error"].startswith(error)
    assert "\n" not in failed["error"]
    assert str(store.home) not in failed["error"]
    assert list(store.uploads_folder.iterdir()) == []
    assert store.retry(job) is None


def test_more_pictures_than_are_decoded_are_refused(
    store: JobStore, engine: Any, upload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_upload, "MOST_DECODED", 5)
    (job,) = upload(_mp4()).json["jobs"]
    work_one(store, engine)
    assert store.job(job)["error"] == "a.mp4 has more than 5 pictures before its end: cut it"  # type: ignore[index]


def test_an_upload_is_cancelled_as_every_job_is(
    store: JobStore, engine: Any, upload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, waiting = (upload(_mp4()).json["jobs"][0] for _ in range(2))
    tell = store.tell_step
    monkeypatch.setattr(store, "tell_step", lambda *given: (store.cancel(running), tell(*given)))
    monkeypatch.setattr(read_upload, "_OFTEN", 1)
    work_one(store, engine)
    assert store.job(running)["state"] == "cancelled"  # type: ignore[index]
    assert len(list(store.uploads_folder.iterdir())) == 1
    # A studio that was killed leaves files that nothing needs.
    (store.uploads_folder / "left.part").write_bytes(b"x")
    store.keep_uploads()
    assert len(list(store.uploads_folder.iterdir())) == 1
    store.cancel(waiting)
    store.keep_uploads()
    assert list(store.uploads_folder.iterdir()) == []


def test_a_full_disk_and_a_full_queue_keep_nothing(
    store: JobStore, upload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minisora.studio import job_store

    monkeypatch.setattr(job_store, "MOST_WAITING", 0)
    assert "wait already" in upload(_gif()).json["error"]
    monkeypatch.setattr(upload_pages, "MOST_WAITING_BYTES", -1)
    assert "files of 0 MB wait already" in upload(_gif()).json["error"]
    monkeypatch.setattr(upload_pages, "LEAST_FREE", 10**18)
    assert "of the disk are free" in upload(_gif()).json["error"]
    assert "there is no model" in upload(_gif(), model="../x").json["error"]
    assert list(store.uploads_folder.iterdir()) == []


def test_the_guard_bounds_what_is_sent(store: JobStore, engine: Any, ask: Any) -> None:
    token = new_token()
    guarded = Guard(studio_app(store, lambda: "ready"), token, uploads=UPLOADS)
    own = [("host", "127.0.0.1:1"), ("authorization", f"Bearer {token}"), ("origin", "http://127.0.0.1:1")]
    kind = ("content-type", "application/octet-stream")

    def sent(headers: list[tuple[str, str]], length: int, body: bytes = b"") -> int:
        target = "/api/uploads?model=toy"
        return int(ask(guarded, "POST", target, [*headers, ("content-length", str(length))], body).status)

    assert sent([*own, kind], MOST_BYTES + 1) == 413
    assert sent([*own, ("content-type", "application/json")], 2, b"{}") == 415
    assert sent([*own, ("content-type", "multipart/form-data")], 2, b"{}") == 415
    assert sent([*own[:2], kind], 2, b"{}") == 403
    assert sent([own[0], own[2], kind], 2, b"{}") == 401
    # Longer than it said.
    assert sent([*own, kind], 10, _gif()) == 400
    assert sent([*own, kind], len(_gif()), _gif()) == 200
    assert len(list(store.uploads_folder.iterdir())) == 1


def _mutated(content: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled or cut off; the first twelve stay, which would be refused at once."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 12)):
        place = rng.randrange(12, len(data))
        match rng.randrange(5):
            case 0:
                data[place] = rng.randrange(256)
            case 1:
                data[place : place + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
            case 2:
                del data[place : place + rng.randint(1, 40)]
            case 3:
                data[place:place] = data[place : place + rng.randint(1, 200)]
            case _:
                data = data[: max(place, 60)]
        if len(data) < 60:
            return bytes(data)
    return bytes(data)


@pytest.mark.slow
def test_a_hundred_broken_files_are_clips_or_lines(store: JobStore, engine: Any, upload: Any) -> None:
    rng, seeds = random.Random(0), [_mp4(), _gif(), _picture("PNG"), _picture("JPEG"), _picture("WEBP")]
    ends = {"done": 0, "failed": 0, "refused": 0}
    for number in range(MUTATED):
        answer = upload(_mutated(seeds[number % len(seeds)], rng), f"{number}.mp4")
        if answer.status != 200:
            assert answer.status == 400
            ends["refused"] += 1
            continue
        work_one(store, engine)
        job = store.job(answer.json["jobs"][0])
        assert job is not None
        ends[job["state"]] += 1
        if job["state"] == "failed":
            assert job["error"].startswith(f"{number}.mp4 ")
            assert len(job["error"]) < 200
            assert "\n" not in job["error"]
    assert sum(ends.values()) == MUTATED
    # Both happen, or nothing was tested.
    assert min(ends["done"], ends["failed"]) > 10
    assert list(store.uploads_folder.iterdir()) == []


def test_the_first_bytes_tell_what_a_file_is() -> None:
    for content, suffix in (
        (_mp4(), ".mp4"), (_gif(), ".gif"), (_picture("PNG"), ".png"), (_picture("JPEG"), ".jpg"),
        (_picture("WEBP"), ".webp"), (_picture("TIFF"), None), (_picture("BMP"), None), (b"", None),
    ):  # fmt: skip
        assert kind_of(content[:16]) == suffix
