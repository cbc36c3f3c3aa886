"""The page of a run, RUN/index.html: what it learned, in one file that needs nothing else.

Of the run it reads config.yaml and, where they are there, metrics.jsonl, plan.json, evaluation.json and what
`minisora.demo.shown_clips` has measured.
"""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from accelerate import PartialState
from markupsafe import Markup
from rich.console import Console

from minisora.config import Config, TrainConfig, load
from minisora.config_files import of_run
from minisora.data.clips import ClipDataset
from minisora.demo.page_pieces import (
    STAGES,
    embed,
    environment,
    learning_curve,
    points,
    poster,
    video_script,
)
from minisora.demo.shown_clips import NUM_LIVE, Shown, measure, show_reconstructions, show_samples
from minisora.errors import UserError
from minisora.evaluate.memorisation import COPY
from minisora.files import read_object, write_whole
from minisora.models.vae import VideoVAE
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.run_metrics import number, read_metrics
from minisora.screen import plain, say

# Of the time that a stage trains, the share that pages may take of it.
LIVE_SHARE = 0.03
# Seconds after which a page of a run in training renews itself.
_RENEW = 60
# Letters of a verdict within which its first colon ends a headline.
_HEAD = 60

_WORDS = {
    "loss": "loss",
    "psnr": "PSNR (dB)",
    "psnr_moving": "PSNR of what moves (dB)",
    "ssim": "SSIM",
}


def write_page(run: Path, live: bool = False, console: Console | None = None) -> Path:
    """Write RUN/index.html, whole or not at all.

    Args:
        run: a run folder.
        live: it is in training: what is there is shown, and nothing is measured.
        console: where progress and what is left out are told.

    Raises:
        UserError: the folder is no run, or cannot be written.
    """
    config = load(of_run(run))
    if not live:
        measure(run, config, console or Console(quiet=True))
    page = run / "index.html"
    try:
        write_whole(page, _render(run, config, live))
    except OSError as error:
        raise UserError(
            f"cannot write {page}: {error.strerror or error}; free space or choose another place"
        ) from error
    return page


class LivePage:
    """Rewrites the page of a run at each validation of a stage; to be passed as its `on_validate`.

    A page is left out where pages would take more than a share of the time, and none ever ends a training: what goes
    wrong is told in a line.

    Args:
        run: the run folder.
        config: of the run.
        console: where trouble is told.
        share: of the time of training that pages may take.
    """

    def __init__(self, run: Path, config: Config, console: Console, share: float = LIVE_SHARE):
        self.run, self.config, self.console, self.share = run, config, console, share
        # Seconds that the page before took, and when it was done.
        self._took, self._done = 0.0, -math.inf

    def __call__(self, model: VideoVAE | MiniSoraPipeline, held_out: ClipDataset, step: int) -> None:
        """Show what a model of averaged weights does at a step, on a few held-out clips."""
        start = time.perf_counter()
        if self._took > self.share * (start - self._done):
            return

        def show() -> None:
            shown = Shown.open(self.run)
            if isinstance(model, VideoVAE):
                show_reconstructions(
                    shown, model, held_out, self.config.clip.fps, NUM_LIVE, step=step, key=""
                )
            else:
                show_samples(shown, model, held_out, None, NUM_LIVE, step=step, key="", seed=self.config.seed)
            write_page(self.run, live=True)

        _try(self.run, self.console, show)
        self._done = time.perf_counter()
        self._took = self._done - start

    def finish(self) -> None:
        """Write the whole page of a finished stage, on the main process."""
        if PartialState().is_main_process:
            renew_page(self.run, self.console)


def renew_page(run: Path, console: Console) -> None:
    """Write the page of a run and say where it is; what goes wrong is told in a line and ends nothing."""

    def renew() -> None:
        say(console, "Page in ", (str(write_page(run, console=console)), "bold"))

    _try(run, console, renew)


def _try(run: Path, console: Console, action: Callable[[], object]) -> None:
    try:
        action()
    # Whatever it is, hours of training are worth more than a page.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        say(console, f"no page written ({reason}): minisora page {run} makes it", style="yellow")


def _render(run: Path, config: Config, live: bool) -> str:
    metrics = read_metrics(run / "metrics.jsonl") if (run / "metrics.jsonl").is_file() else []
    metrics = [row for row in metrics if isinstance(row["stage"], str) and isinstance(row["step"], int)]
    shown, plan = Shown.open(run), read_object(run / "plan.json")
    parts = {name: shown.part(name) for name in ("reconstructions", "samples")}
    evaluation = _evaluation(run, parts["samples"])
    verdict = _verdict(run, config, metrics, evaluation, plan if live else None)
    head, _, rest = verdict.partition(": ") if ": " in verdict[:_HEAD] else (verdict, "", "")
    html = environment().get_template("run_page.html").render(
        name=run.absolute().name,
        run=str(run),
        live=live,
        renew=_RENEW,
        **video_script(),
        verdict=head[:1].upper() + head[1:],
        because=rest[:1].upper() + rest[1:],
        advice=_lines(evaluation.get("advice")),
        judged=bool(evaluation),
        facts=_facts(evaluation, parts["reconstructions"], metrics),
        reconstructions=_clips(shown, parts["reconstructions"], "reconstructions"),
        samples=[
            (clip | {"closeness": _closeness(clip, parts["samples"]["clips"])}, *media)
            for clip, *media in _clips(shown, parts["samples"], "samples")
        ],
        steps={name: number(part.get("step")) for name, part in parts.items()},
        curves=_curves(metrics),
        compared=_compared(evaluation),
        by_caption=_by_caption(evaluation),
        not_told=_lines(_at(evaluation, "verdict", "not_told")),
        numbers=_numbers(evaluation),
        stages=_stages(config, metrics, plan),
        minutes=number(plan.get("minutes")),
        taken=number(plan.get("taken")),
        chosen=_chosen(plan),
        config=config.to_yaml(),
        day=datetime.now().strftime("%Y-%m-%d %H:%M"),
        clip_size=config.clip,
        texts=any(clip.get("caption") for clip in parts["samples"].get("clips", [])),
        copy=COPY,
    )  # fmt: skip
    return "".join(line + "\n" for line in html.splitlines())


def _evaluation(run: Path, samples: dict[str, Any]) -> dict[str, Any]:
    """RUN/evaluation.json; nothing where it says that it is of another model than the samples that are shown."""
    evaluation = read_object(run / "evaluation.json")
    of, key = _at(evaluation, "settings", "fingerprint"), samples.get("key")
    other = isinstance(of, str) and isinstance(key, str) and not key.startswith(of)
    return {} if other else evaluation


def _at(tree: Any, *keys: str) -> Any:
    """What stands at a place of nested objects; None where there is nothing."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _lines(value: Any) -> list[str]:
    """Text or texts as lines."""
    values = value if isinstance(value, list) else [value]
    return [plain(each) for each in values if isinstance(each, str) and each.strip()]


def _clips(shown: Shown, part: dict[str, Any], name: str) -> list[tuple[dict[str, Any], str, str]]:
    """Of each clip its facts, its video and its picture."""
    rows = []
    for place, clip in enumerate(part.get("clips", [])):
        file = shown.file(name, place)
        facts = {key: value if isinstance(value, str) else number(value) for key, value in clip.items()}
        # A damaged file is left out: `minisora page` does not know it from a whole one, and a new model writes it anew.
        with suppress(OSError, ValueError):
            rows.append(({"caption": "", **facts}, embed(file), poster(file)))
    return rows


def _closeness(clip: dict[str, Any], clips: list[dict[str, Any]]) -> float | None:
    """Distance of a sample to the nearest training clip over the usual one of unseen clips."""
    usual = sorted(d for each in clips if (d := number(each.get("unseen"))) is not None)
    distance = number(clip.get("distance"))
    if distance is None or not usual or not usual[len(usual) // 2]:
        return None
    return distance / usual[len(usual) // 2]


def _verdict(
    run: Path,
    config: Config,
    metrics: list[dict[str, Any]],
    evaluation: dict[str, Any],
    plan: dict[str, Any] | None,
) -> str:
    """One line on how the run is: the evaluation's, or what the metrics tell; with a plan, how far training is."""
    last = {row["stage"]: row["step"] for row in metrics}
    if plan is not None and metrics:
        stage = metrics[-1]["stage"]
        # The plan's are set anew on the way; what is trained beyond it goes by the config.
        planned = number(_at(plan, "stages", stage, "steps")) or 0
        steps = planned if planned >= last[stage] else _settings(config, stage).steps
        return f"Training: {STAGES.get(stage, stage)}, step {last[stage]} of {steps:.0f}."
    verdict = evaluation.get("verdict")
    if lines := _lines(verdict) or _lines(_at(verdict, "sentence")):
        return " ".join(lines)
    losses = points(metrics, "dit", "val_loss")
    if not (run / "model" / "model_index.json").is_file():
        return "Half way: the VAE is trained, the DiT is not." if "vae" in last else "Nothing is trained yet."
    if losses and losses[-1][1] > 1.1 * (best := min(losses, key=lambda point: point[1]))[1]:
        return (
            f"Trained, and perhaps by heart: the loss on held-out clips was lowest at step {best[0]} "
            f"({best[1]:.3g}) and has risen to {losses[-1][1]:.3g} since."
        )
    return "Trained, and not judged yet."


def _settings(config: Config, stage: str) -> TrainConfig:
    stages: dict[str, TrainConfig] = {"dit": config.train_dit, "caption": config.train_caption}
    return stages.get(stage, config.train_vae)


def _facts(
    evaluation: dict[str, Any], reconstructions: dict[str, Any], metrics: list[dict[str, Any]]
) -> list[tuple[str, str, str]]:
    """The numbers at the head of the page: value, what it is, and what to read it beside."""
    facts = []
    clips = reconstructions.get("clips", [])
    for key, about in (("psnr", "copies of held-out clips"), ("psnr_moving", "on what moves in them")):
        value, beside = number(_at(evaluation, "vae", key)), ""
        if value is None:
            shown = [v for clip in clips if (v := number(clip.get(key))) is not None]
            value = sum(shown) / len(shown) if shown else None
            beside = f"the {len(shown)} shown here"
        still = number(_at(evaluation, "vae", f"{key}_still"))
        if still is not None:
            beside = f"a still picture: {still:.1f} dB"
        if value is not None:
            facts.append((f"{value:.1f} dB", about, beside))
    real = _at(evaluation, "motion", "beside")
    beside = plain(real) if isinstance(real, str) else "real clips"
    judged = (
        (
            ("captions", "samples"), "{:.0%}", "of samples follow their captions",
            ("captions", "real"), "real clips: {:.0%}",
        ),
        (
            ("motion", "ratio"), "{:.2f}×", f"the motion of {beside}",
            ("motion", "activity", "real"), "{:.2%} of pixels change in these",
        ),
        (
            ("memorisation", "finding", "copies"), "{:.0%}", "of samples are copies of training clips",
            ("memorisation", "finding", "unseen_copies"), "unseen clips: {:.0%}",
        ),
    )  # fmt: skip
    for keys, form, about, other, other_form in judged:
        if (value := number(_at(evaluation, *keys))) is not None:
            floor = number(_at(evaluation, *other))
            facts.append((form.format(value), about, other_form.format(floor) if floor is not None else ""))
    for name, each in _items(evaluation.get("frechet")):
        samples, floor = number(_at(each, "samples")), number(_at(each, "floor"))
        if samples is not None and floor:
            facts.append(
                (
                    f"{samples / floor:.2g}×",
                    f"the Fréchet distance of real clips, {name}",
                    "1 is real against real",
                )
            )
            break
    losses = points(metrics, "dit", "val_loss")
    if losses and not evaluation:
        step, best = min(losses, key=lambda point: point[1])
        facts.append((f"{best:.3g}", "loss on held-out clips", f"the best, at step {step}"))
    return facts


# Of what is compared: words, format, and where it stands for held-out clips, VAE copies, samples, real against real.
_COMPARED: tuple[tuple[str, str, tuple[str, str, str, str]], ...] = (
    ("PSNR, dB", ".1f", ("", "vae.psnr", "", "")),
    ("PSNR of what moves, dB", ".1f", ("", "vae.psnr_moving", "", "")),
    ("the same of a still picture", ".1f", ("", "vae.psnr_moving_still", "", "")),
    ("SSIM", ".3f", ("", "vae.ssim", "", "")),
    ("flicker", ".2%", ("vae.flicker.real", "vae.flicker.copies", "", "")),
    ("pixels that change", ".2%", ("vae.activity.real", "vae.activity.copies", "motion.activity.samples", "")),
    ("captions followed", ".0%", ("captions.real", "captions.copies", "captions.samples", "")),
    ("distance of amounts of motion", ".2%",
     ("", "", "motion.distance.amount.samples", "motion.distance.amount.floor")),
    ("distance of speeds, pixels a frame", ".2f",
     ("", "", "motion.distance.speed.samples", "motion.distance.speed.floor")),
    ("distance of directions, turns", ".3f",
     ("", "", "motion.distance.direction.samples", "motion.distance.direction.floor")),
    ("copies of training clips", ".0%",
     ("memorisation.finding.unseen_copies", "", "memorisation.finding.copies", "")),
)  # fmt: skip


def _compared(evaluation: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of what was measured: held-out clips, their copies, samples, real against real; those with a number."""
    rows = []
    for words, form, places in _COMPARED:
        values = [number(_at(evaluation, *place.split("."))) for place in places]
        rows.append((words, ["" if value is None else format(value, form) for value in values]))
    for name, each in _items(evaluation.get("frechet")):
        values = [number(_at(each, key)) for key in ("copies", "samples", "floor")]
        rows.append((f"Fréchet distance, {name}", ["", *("" if v is None else f"{v:.2f}" for v in values)]))
        if (still := number(_at(each, "still"))) is not None:
            rows.append(("the same of still pictures", ["", "", f"{still:.2f}", ""]))
    return [(words, cells) for words, cells in rows if any(cells)]


def _by_caption(evaluation: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Of each caption the pixels that change in clips, copies and samples, and how many samples follow it."""
    copies, samples, follow = (_at(evaluation, part, "by_caption") for part in ("vae", "motion", "captions"))
    captions = dict.fromkeys(caption for part in (copies, samples) for caption, _ in _items(part))
    rows = []
    for caption in captions:
        real = number(_at(copies, caption, "real"))
        values = (
            number(_at(samples, caption, "real")) if real is None else real,
            number(_at(copies, caption, "copies")),
            number(_at(samples, caption, "samples")),
        )
        followed = number(_at(follow, caption, "samples"))
        cells = ["" if value is None else f"{value:.2%}" for value in values]
        rows.append((plain(caption), [*cells, "" if followed is None else f"{followed:.0%}"]))
    return rows


def _items(tree: Any) -> list[tuple[str, Any]]:
    """Names and values of an object; none of anything else."""
    return list(tree.items()) if isinstance(tree, dict) else []


def _curves(metrics: list[dict[str, Any]]) -> list[tuple[str, Markup]]:
    """Of each stage that has trained, its name and the curves of its loss and of every validation."""
    curves = []
    for stage in dict.fromkeys(row["stage"] for row in metrics):
        keys = dict.fromkeys(key for row in metrics if row["stage"] == stage for key in row)
        names = ["loss"] + [key.removeprefix("val_") for key in keys if key.startswith("val_")]
        for name in dict.fromkeys(names):
            if any(points(metrics, stage, key) for key in (name, f"val_{name}")):
                label = _WORDS.get(name, name.replace("_", " "))
                drawn = learning_curve(metrics, stage, name, label, f"val_{name}")
                curves.append((f"{STAGES.get(stage, stage)}: {label}", drawn))
    return curves


def _stages(
    config: Config, metrics: list[dict[str, Any]], plan: dict[str, Any]
) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Names of the stages, and rows of what was planned and what happened in each; no row is empty."""
    planned = dict(_items(plan.get("stages")))
    rows = []
    for stage in dict.fromkeys([*planned, *(row["stage"] for row in metrics)]):
        goal, known = planned.get(stage), stage in STAGES
        steps = number(_at(goal, "steps")) or (float(_settings(config, stage).steps) if known else None)
        seconds = number(_at(goal, "seconds"))
        loss = number(plan.get("expected_loss")) if stage == "dit" else None
        done = max((row["step"] for row in metrics if row["stage"] == stage), default=0)
        psnrs, losses = (points(metrics, stage, name) for name in ("val_psnr", "val_loss"))
        reached = f"{max(v for _, v in psnrs):.1f} dB" if psnrs else ""
        cells = {
            "steps planned": "" if steps is None else f"{steps:,.0f}",
            "steps done": f"{done:,}",
            "time planned": "" if seconds is None else _time(seconds),
            "time taken": _time(_seconds(metrics, stage, config)) if done else "",
            "loss expected": "" if loss is None else f"{loss:.3g}",
            "best on held-out clips": f"{min(v for _, v in losses):.3g}" if losses else reached,
        }
        rows.append((STAGES.get(stage, plain(stage)), cells))
    words = rows[0][1] if rows else {}
    table = [(word, [cells[word] for _, cells in rows]) for word in words]
    return [stage for stage, _ in rows], [(word, cells) for word, cells in table if any(cells)]


def _chosen(plan: dict[str, Any]) -> str:
    """The size of the DiT that a plan chose, in words; empty where it names none."""
    size = ", ".join(f"{name} {value:g}" for name, each in _items(plan.get("dit")) if (value := number(each)))
    tried = plan.get("sizes")
    if not size:
        return ""
    of = f", chosen of {len(tried)} sizes timed here" if isinstance(tried, list) and len(tried) > 1 else ""
    return f"The DiT has {plain(size)}{of}. "


def _seconds(metrics: list[dict[str, Any]], stage: str, config: Config) -> float:
    """Seconds of steps, from the speeds in the records; validating and saving are not in them."""
    spent, before, size = 0.0, 0, _settings(config, stage).batch_size
    for row in metrics:
        if row["stage"] == stage and (speed := number(row.get("samples_per_second"))):
            spent += (row["step"] - before) * size / speed
            before = row["step"]
    return spent


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _numbers(evaluation: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """All numbers of an evaluation, by its sections."""
    return [
        (name.replace("_", " "), rows)
        for name, value in evaluation.items()
        if name not in ("verdict", "advice") and (rows := _flat(value))
    ]


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Rows of name and text of a tree of numbers."""
    if isinstance(value, dict):
        return [
            row
            for key, each in value.items()
            for row in _flat(each, f"{name}, {key}".strip(", ").replace("_", " "))
        ]
    if isinstance(value, list):
        if len(value) > 8 or any(isinstance(each, dict | list) for each in value):
            return [(name, f"{len(value)} values")]
        return [(name, ", ".join(_text(each) for each in value))] if value else []
    return [] if value is None else [(name, _text(value))]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else plain(str(value))
