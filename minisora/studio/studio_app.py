"""The studio's answers: what pages ask for and change. Behind the guard of `minisora.serve`, and free of torch.

A page gives numbers of jobs and clips and names of models that it was told, never a path.
"""

import asyncio
import json
import math
import secrets
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from minisora.errors import UserError
from minisora.limits import MAX_GUIDANCE, MAX_STEPS, check_number, check_seed, seed_after
from minisora.pipelines.recipe import MOST_KEYFRAMES, MOST_SEGMENTS, UNSAMPLED, VERSION, recipe_of
from minisora.serve.web_pages import ERRORS, JSONAnswer, json_object, page_routes
from minisora.studio.job_plan import plan
from minisora.studio.job_store import JobStore
from minisora.studio.upload_pages import check_disk, upload_routes

PAGE = Path(__file__).parent / "page"
MOST_VARIATIONS = 8
# Seeds that nobody chose: few enough digits to be read and typed.
_FRESH = 10**6
_NOTHING = type(None)
# Seconds between looks for changes, and between signs of life.
_LOOK, _ALIVE = 0.1, 15.0
# A clip's address has the time it was made in it, so what it gives never changes.
_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def studio_app(
    store: JobStore,
    worker_state: Callable[[], str],
    lifespan: Lifespan | None = None,
    more: Sequence[BaseRoute] = (),
    num_models: int = 1,
) -> Starlette:
    """The application.

    Args:
        store: jobs and clips.
        worker_state: "starting", "ready", or a line that says why there is none.
        lifespan: what runs beside it.
        more: routes of the other views.
        num_models: how many models there will be when all are read.
    """
    pages = _Pages(store, worker_state, num_models)
    job, clip = "/api/jobs/{number:int}", "/api/clips/{number:int}"
    routes = [
        *page_routes(PAGE),
        Route("/api/state", pages.state),
        Route("/api/events", pages.events),
        Route("/api/jobs", pages.add, methods=["POST"]),
        Route(f"{job}/preview", pages.preview),
        Route(f"{job}/cancel", pages.cancel, methods=["POST"]),
        Route(f"{job}/retry", pages.retry, methods=["POST"]),
        Route(f"{job}/move", pages.move, methods=["POST"]),
        Route("/api/plan", pages.plan),
        Route("/api/clips", pages.clips),
        Route(clip, pages.clip),
        Route(clip, pages.mark, methods=["POST"]),
        Route(clip, pages.delete, methods=["DELETE"]),
        Route("/clips/{number:int}.mp4", pages.video),
        Route("/clips/{number:int}.png", pages.picture),
        *upload_routes(store, pages.facts),
        *more,
    ]
    app = Starlette(routes=routes, exception_handlers=ERRORS, lifespan=lifespan)
    # Else an address with one slash more is answered with another address.
    app.router.redirect_slashes = False
    return app


class _Pages:
    def __init__(self, store: JobStore, worker_state: Callable[[], str], num_models: int):
        self.store, self.worker_state, self.num_models = store, worker_state, num_models

    async def state(self, request: Request) -> Response:
        """What a page begins with."""
        # Before what it is the version of: a change in between is then sent again, not lost.
        version = self.store.version
        return JSONAnswer(
            {
                "version": version,
                "worker": self.worker_state(),
                "models": self.store.models(),
                "num_models": self.num_models,
                "speeds": _speeds(self.store),
                "jobs": self.store.open_jobs(),
                "clips": self.store.clips(limit=0)[0],
            }
        )

    async def events(self, request: Request) -> Response:
        """Changes as server-sent events, from the version that the page knows on."""
        known = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
        if not known.isascii() or not known.isdigit() or len(known) > 18:
            raise UserError("the last event is no number: load the page again")
        return StreamingResponse(
            self._changes(int(known)), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def _changes(self, known: int) -> AsyncIterator[str]:
        # So that a page sees at once that it is connected.
        yield "retry: 1000\n\n"
        quiet, told = 0.0, ("", [""])
        while True:
            if self.store.version != known:
                changes = self.store.changes(known)
                if changes is None:
                    # Too much to tell, such as after a night: the page begins anew.
                    yield f"id: {self.store.version}\nevent: anew\ndata: {{}}\n\n"
                    known = self.store.version
                else:
                    known = changes["version"]
                    if changes["clips"] or changes["gone"]:
                        changes |= {"speeds": _speeds(self.store), "total": self.store.clips(limit=0)[0]}
                    yield f"id: {known}\ndata: {json.dumps(changes)}\n\n"
                quiet = 0.0
            # Of several models each is told as soon as it was read.
            if (now := (self.worker_state(), self.store.model_names())) != told:
                told = now
                about = {"worker": now[0], "models": self.store.models()}
                yield f"event: worker\ndata: {json.dumps(about)}\n\n"
                quiet = 0.0
            if quiet >= _ALIVE:
                yield ":\n\n"
                quiet = 0.0
            await asyncio.sleep(_LOOK)
            quiet += _LOOK

    async def add(self, request: Request) -> Response:
        """Queue videos: one prompt, one to eight seeds."""
        number = (int, float)
        asked = await json_object(
            request,
            {
                "model": (str,), "prompt": (str,), "frames": (int,), "height": (int,), "width": (int,),
                "steps": (int,), "guidance": number, "seed": (int, _NOTHING), "count": (int,), "mode": (str,),
                "parents": (list,), "frame": (int, _NOTHING), "strength": (*number, _NOTHING), "keep": (bool,),
                "mask": (str, _NOTHING), "masks": (list,), "span": (list,), "keyframes": (list,), "later": (list,),
            },
        )  # fmt: skip
        facts = self.facts(asked.get("model", ""))
        parents = [self._parent(each) for each in asked.get("parents", [])[: MOST_KEYFRAMES + 1]]
        if asked.get("mode") == "trim":
            check_disk(self.store)
            _check_rate(facts, asked["model"], parents)
            return self._trim(asked, parents)
        frames, height, width = facts["default_size"]
        size = [asked.get("frames", frames), asked.get("height", height), asked.get("width", width)]
        if f"{size[0]}x{size[1]}x{size[2]}" not in facts["costs"]:
            raise UserError(
                f"{size[0]} frames of {size[1]}x{size[2]} are not on offer: choose a size of the list"
            )
        count = asked.get("count", 1)
        check_number("variations", count, 1, MOST_VARIATIONS)
        prompt = " ".join(asked.get("prompt", "").split())
        if not prompt and facts["text"]:
            raise UserError("say what to show, such as 'a red circle moving left'")
        check_disk(self.store)
        seed = secrets.randbelow(_FRESH) if asked.get("seed") is None else asked["seed"]
        steps, guidance = asked.get("steps", facts["steps"]), asked.get("guidance", facts["guidance"])
        check_number("the recipe's guidance", guidance, 0.0, MAX_GUIDANCE)
        check_seed(seed)
        request = {
            "model": asked["model"], "prompt": prompt, "size": size, "steps": steps, "guidance": float(guidance),
            "scheduler": "euler", "mode": asked.get("mode", "sample"),
        }  # fmt: skip
        for name in ("frame", "strength", "mask", "masks", "span", "keyframes", "later"):
            if asked.get(name) not in (None, []):
                request[name] = asked[name]
        if asked.get("keep"):
            # All that both prompts say stays: of what the parent shows, its own prompt is the best description.
            request["source"] = parents[0]["recipe"]["prompt"] if parents else ""
            if parents and not request["source"]:
                raise UserError("no words say what the video shows: leave out to keep what both prompts say")
        # Refuses here, in one line, what the worker would refuse later.
        recipe_of(
            {**request, "seed": seed, "weights": "0" * 64, "minisora": VERSION,
             "parents": [parent["recipe"] for parent in parents]}
        )  # fmt: skip
        if request.get("frame") or any(request.get("keyframes", [])) or "masks" in request:
            _check_rate(facts, asked["model"], parents)
        planned, _ = plan(facts, request)
        if planned == 0:
            raise UserError(
                f"no step of {steps} lies below strength = {request['strength']:g}: take more steps"
            )
        numbers = {"parents": [parent["id"] for parent in parents]} if parents else {}
        requests = [{**request, "seed": seed_after(seed, place), **numbers} for place in range(count)]
        return JSONAnswer({"jobs": self.store.add_jobs(requests, planned)})

    def _trim(self, asked: dict[str, Any], parents: list[dict[str, Any]]) -> Response:
        """Queue a part of a video, which is cut and not sampled."""
        if len(parents) != 1:
            raise UserError(f"trim is made from 1 videos, not from {len(parents)}")
        (parent,) = parents
        length, (_, height, width) = parent["frames"], parent["recipe"]["size"]
        request = {
            **UNSAMPLED, "seed": parent["recipe"]["seed"], "model": asked["model"], "mode": "trim",
            "prompt": parent["recipe"]["prompt"], "size": [length, height, width], "span": asked.get("span", []),
        }  # fmt: skip
        checked = recipe_of(
            {**request, "weights": "0" * 64, "minisora": VERSION, "parents": [parent["recipe"]]}
        )
        assert checked.span is not None
        first, end = checked.span
        if end > length:
            raise UserError(f"the video has {length} frames, not {end}: trim fewer")
        request |= {"size": [end - first, height, width], "parents": [parent["id"]]}
        return JSONAnswer({"jobs": self.store.add_jobs([request], 1)})

    def _parent(self, number: Any) -> dict[str, Any]:
        """A clip to make another from."""
        is_number = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 63
        clip = self.store.clip(number) if is_number else None
        if clip is None:
            raise UserError("the video to begin with is not there any more")
        return clip

    async def plan(self, request: Request) -> Response:
        """What a video that is made from others would cost."""
        asked = request.query_params
        facts = self.facts(asked.get("model", ""))
        try:
            wanted: dict[str, Any] = {
                "mode": asked["mode"], "steps": int(asked["steps"]), "guidance": float(asked["guidance"]),
                "size": [int(side) for side in asked["size"].split("x")], "scheduler": "euler",
                "strength": float(asked.get("strength", 1)), "source": "" if asked.get("keep") == "1" else None,
            }  # fmt: skip
            segments = int(asked.get("segments", 1))
            check_number("segments", segments, 1, MOST_SEGMENTS)
            wanted |= {"keyframes": [0] * (1 + segments), "later": [""] * (segments - 1)}
            check_number("steps", wanted["steps"], 1, MAX_STEPS)
            check_number("strength", wanted["strength"], 0.0, 1.0, above=True)
        except (KeyError, ValueError) as error:
            raise UserError("a plan needs mode, size, steps and guidance") from error
        steps, flops = plan(facts, wanted)
        return JSONAnswer({"steps": steps, "flops": flops})

    def facts(self, model: str) -> dict[str, Any]:
        """What the worker told of a model; raises UserError where there is none that can be used."""
        facts = self.store.models().get(model)
        if facts is None:
            raise UserError(f"there is no model '{model[:40]}' here, or it is still being read")
        if "error" in facts:
            raise UserError(facts["error"])
        return facts

    async def cancel(self, request: Request) -> Response:
        """Stop a job, or take it out of the queue."""
        number = _id(request)
        cancelled = self.store.cancel(number)
        job = self.store.job(number)
        if cancelled and job is not None and job["state"] == "cancelled" and "file" in job["request"]:
            (self.store.uploads_folder / job["request"]["file"]).unlink(missing_ok=True)
        return _found(cancelled)

    async def retry(self, request: Request) -> Response:
        """Ask again for what failed or was cancelled."""
        job = self.store.retry(_id(request))
        return _found(job is not None)

    async def move(self, request: Request) -> Response:
        """Change the order of what waits."""
        asked = await json_object(request, {"before": (int, _NOTHING)})
        return _found(self.store.move(_id(request), asked.get("before")))

    async def preview(self, request: Request) -> Response:
        """The picture of what forms."""
        picture = self.store.preview(_id(request))
        # A job that has just ended has none any more, which is no mistake of who asks.
        return Response(picture, media_type="image/png") if picture is not None else Response(status_code=204)

    async def clips(self, request: Request) -> Response:
        """A part of the gallery, the newest first."""
        query = request.query_params
        offset, limit = _number(query.get("offset"), 0, 10**9), _number(query.get("limit"), 60, 200)
        search, favourites = query.get("search", "")[:400], query.get("favourites") == "1"
        total, clips = self.store.clips(offset, limit, search, favourites)
        return JSONAnswer({"total": total, "clips": clips})

    async def clip(self, request: Request) -> Response:
        """One clip."""
        clip = self.store.clip(_id(request))
        if clip is None:
            raise HTTPException(404)
        parents, children = self.store.family(clip["id"])
        return JSONAnswer({**clip, "parents": parents, "children": children})

    async def mark(self, request: Request) -> Response:
        """Make a clip a favourite, or none."""
        asked = await json_object(request, {"favourite": (bool,)})
        return _found(self.store.set_favourite(_id(request), asked.get("favourite", False)))

    async def delete(self, request: Request) -> Response:
        """Remove a clip."""
        return _found(self.store.delete_clip(_id(request)))

    async def video(self, request: Request) -> Response:
        """The mp4 of a clip."""
        return self._file(request, ".mp4", "video/mp4")

    async def picture(self, request: Request) -> Response:
        """The picture of a clip."""
        return self._file(request, ".png", "image/png")

    def _file(self, request: Request, suffix: str, kind: str) -> Response:
        number = _id(request)
        file = self.store.clip_file(number, suffix)
        if self.store.clip(number) is None or not file.is_file():
            raise HTTPException(404)
        return FileResponse(file, media_type=kind, headers=_FOREVER)


def _check_rate(facts: dict[str, Any], model: str, parents: Sequence[dict[str, Any]]) -> None:
    """Refuse frames that were counted in a video of another rate than the model's: they would be other ones there.

    Raises:
        UserError: a parent has another number of frames a second.
    """
    for parent in parents:
        # A picture is the same at every rate.
        if parent["frames"] > 1 and not math.isclose(parent["fps"], facts["fps"]):
            raise UserError(
                f"the video has {parent['fps']:g} frames a second, {model} makes {facts['fps']:g}: choose a model of "
                "the video's rate"
            )


def _id(request: Request) -> int:
    """The number in the address, of those that SQLite can hold."""
    number = int(request.path_params["number"])
    if number >= 1 << 63:
        raise HTTPException(404)
    return number


def _found(changed: bool) -> Response:
    if not changed:
        raise HTTPException(404)
    return JSONAnswer({})


def _number(text: str | None, default: int, most: int) -> int:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 10:
        return default
    return min(int(text), most)


def _speeds(store: JobStore) -> dict[str, dict[str, list[float]]]:
    """Of each model: FLOP/s in the middle of its last clips and how many they were, by size and ("") of all."""
    rates: dict[str, dict[str, list[float]]] = {}
    for model, size, flops, seconds in store.speeds():
        of_model = rates.setdefault(model, {})
        for key in ("x".join(map(str, size)), ""):
            of_model.setdefault(key, []).append(flops / seconds)
    # The newest: the machine may have been busier before.
    return {
        model: {key: [statistics.median(each[:20]), len(each[:20])] for key, each in of_model.items()}
        for model, of_model in rates.items()
    }
