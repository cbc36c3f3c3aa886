"""Writes benchmarks/RESULTS.md, and the tables of README.md that stand between markers, from the result files.

python scripts/results.py           writes them
python scripts/results.py --check   writes nothing; exit code 1 if one of them is out of date

A result file is named theme_machine_date.json; folders (toy, toy-long, modes, student, ladder) keep their names, as
other parts read them there. The page is results.md.jinja,
whose tables take their rows from the functions here: no number of a result stands in either.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import jinja2

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "benchmarks" / "RESULTS.md"
README = ROOT / "README.md"
LOG = ROOT / "docs" / "log.md"

# What the files of a folder do not say of themselves: the machine that they were measured on, and when.
FOLDERS = {
    folder: {"machine": "Sapphire Rapids", "date": "2026-11-26"}
    for folder in ("toy", "toy-long", "modes", "student", "ladder")
}
MACHINES = {
    "sapphire-rapids": "Sapphire Rapids",
    "zen-4": "Zen 4",
    "zen-3": "Zen 3",
    "meta": "none (counted)",
}
# How the numbers are made again. The folders' commands: scripts/ship_toy.sh, and the README.
COMMANDS: dict[str, str] = {
    "calibration": "minisora calibrate --out FILE",
    "captioner": "python benchmarks/recaption.py --run runs/demo --captioner-only --json FILE",
    "cogvideox": "minisora flops --diffusers CogVideoXTransformer3DModel --json FILE",
    "clip-peers": "python benchmarks/vae_peers.py --config clips --set vae.temporal_factor=4 vae.spatial_factor=8 "
    "'vae.widths=[64,128]' vae.latent_channels=16 --data clips/games --rounds 3 --precision fp32 --json FILE",
    "clip-recipe": "python benchmarks/clip_recipe.py --data clips/games --seconds 60 --json FILE",
    "clip-recipe-dit": "python benchmarks/clip_recipe.py --data clips/sixty --vae RUN/vae/model --seconds 200 "
    "--json FILE",
    "composition": "python benchmarks/composition.py --steps 1000 --json FILE",
    "digit-identity": "python benchmarks/digit_identity.py RUN --guidance 2 5 --json FILE",
    "dit-peers": "python benchmarks/dit_peers.py --json FILE",
    "dit-peers-compiled": "python benchmarks/dit_peers.py --compile --json FILE",
    "dit-table": "minisora flops --table dit --json FILE",
    "faults": "python benchmarks/faults.py --json FILE",
    "loader": "python benchmarks/loader.py --json FILE",
    "memory": "python benchmarks/memory.py --json FILE",
    "onefile": "python benchmarks/judge_one_file.py --json FILE",
    "own-clips": "python benchmarks/run_result.py RUN --data games --seconds S --json FILE",
    "packing": "python benchmarks/packing.py --json FILE",
    "ladder-prediction": "python benchmarks/ladder_prediction.py --json FILE",
    "plan-memory": "python benchmarks/plan_memory.py --json FILE",
    "recaption": "python benchmarks/recaption.py --run runs/modes --json FILE",
    "report": "minisora report --preset measured --calibration CALIBRATION --out DIR",
    "world": "minisora world evaluate --world RUN/world --recording TEST --frames 512 --json FILE",
    "world-coinrun": "minisora world evaluate --world RUN/world --recording TEST --json FILE",
    "world-one-mover": "minisora world evaluate --world RUN/world --recording TEST --json FILE",
    "world-two-movers": "minisora world evaluate --world RUN/world --recording TEST --json FILE",
    "world-ablations": "python benchmarks/world_ablations.py RUN --recording TRAINED --test TEST "
    "--steps 250 --frames 64 --out DIR --json FILE",
    "world-plan": "minisora world plan --world RUN/world --recording TEST --clips TRAINED/clips "
    "--in-dream 30 --practice 120 --json FILE",
    "studio-faults": "python benchmarks/studio_faults.py --json FILE",
    "studio-load": "python benchmarks/studio_load.py --minutes 10 --json FILE",
    "studio-paint": "python benchmarks/studio_paint.py --json FILE",
    "vae-decoders": "python benchmarks/vae_decoders.py --json FILE",
    "vae-peers": "python benchmarks/vae_peers.py --to-db 28 --json FILE",
}
# What has to be there first, or what the file alone says.
AFTER: dict[str, str] = {
    "digit-identity": "after what the head of the script says",
    "own-clips": "after what the head of the script says",
    "recaption": "with the options that stand in the file",
    "world": "after [worlds that are played](../docs/how-to/worlds.md)",
    "world-coinrun": "where `python benchmarks/record_play.py coinrun --out TEST --clips 120 --seed 777` made TEST",
    "world-one-mover": "with `--movers 1` in every `minisora world record`",
    "world-two-movers": "with `--movers 2` there",
}
Row = dict[str, Any]


def main() -> int:
    """Write what is generated, or with --check compare it; the exit code."""
    if sys.argv[1:] not in ([], ["--check"]):
        print("error: the one option is --check", file=sys.stderr)
        return 2
    texts = {PAGE: page(), README: readme(README.read_text())}
    stale = [path for path, text in texts.items() if not path.is_file() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"error: {path.name} is out of date: run python scripts/results.py", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(texts[path])
        print(f"wrote {path}")
    return 0


def page() -> str:
    """The text of benchmarks/RESULTS.md: results.md.jinja, which calls the functions of this file."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.globals |= {name: value for name, value in globals().items() if callable(value)}
    environment.filters["written"] = written
    template = Path(__file__).with_name("results.md.jinja").read_text()
    titles = re.findall(r"^## (.*)$", template, re.M)
    contents = " · ".join(f"[{title}](#{_anchor(title)})" for title in titles)
    return environment.from_string(template).render(contents=contents)


def readme(text: str) -> str:
    """`text` with what stands between `<!-- results: NAME -->` and `<!-- end -->` made anew.

    Raises:
        KeyError: a marker names no block.
    """
    pattern = re.compile(r"(<!-- results: (\S+) -->\n).*?(\n<!-- end -->)", re.S)
    return pattern.sub(lambda match: match[1] + BLOCKS[match[2]]() + match[3], text)


# Files, numbers and tables


def read(name: str) -> Any:
    """A result file, by its path in benchmarks/results without .json."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def measured(theme: str) -> list[tuple[Row, Any]]:
    """Machine and date as the first cells of a row, and content, of each file of a theme, the newest first."""
    files = [(path, *path.stem.split("_")) for path in RESULTS.glob(f"{theme}_*.json")]
    files.sort(key=lambda file: (file[3], file[2]), reverse=True)
    return [
        ({"machine": MACHINES[machine], "date": date}, json.loads(path.read_text()))
        for path, _, machine, date in files
    ]


def newest(theme: str) -> Any:
    """Content of the newest file of a theme."""
    return measured(theme)[0][1]


def rows_of(theme: str, key: str = "rows") -> list[Row]:
    """The rows of every file of a theme, each with its machine and date."""
    return [{**row, **place} for place, content in measured(theme) for row in content[key]]


def table(columns: str, rows: Iterable[Row]) -> str:
    """A Markdown table.

    Args:
        columns: parted by bars, each `HEAD`, or `HEAD = KEY FORMAT` where the row has it under another name or it is
            written in a format of `written`; a dot in a key leads into a dictionary. Those that begin with # are
            aligned right.
        rows: of values by key.
    """
    parts = [column.partition(" = ") for column in columns.split(" | ")]
    heads = [head.strip() for head, _, _ in parts]
    fields = [cell.split(" ") if cell else [head.lstrip("#")] for head, _, cell in parts]
    lines = [[head.removeprefix("#") for head in heads]]
    lines.append(["---:" if head.startswith("#") else "---" for head in heads])
    lines += [[_cell(row, *field) for field in fields] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(row: Row, key: str, form: str = "") -> str:
    return written(reduce(getitem, key.split("."), row), form)


def written(value: Any, form: str = "") -> str:
    """A value as text; None is a dash.

    Args:
        value: a number, a text, a score, or the ends of an interval.
        form: a format of Python such as ",.2f"; `/1e6,.2f` divides first; `%.1` is a share in percent with one digit;
            `of` how many are right of how many; `x` frames x height x width; `to` before another form an interval;
            `short` four digits, or all before the point from a thousand to a million.
    """
    if value is None:
        return "–"
    if form == "of":
        return f"{value['right']} of {value['total']}" if value["total"] else "–"
    if form == "x":
        return "x".join(map(str, value))
    if form == "short":
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"
    if form.startswith("to"):
        return " to ".join(written(end, form[2:]) for end in value)
    if form.startswith("%"):
        return f"{100 * value:{form[1:]}f} %"
    if form.startswith("/"):
        unit = re.match(r"/([\de-]+)", form)
        assert unit, form
        return format(value / float(unit[1]), form[unit.end() :])
    return format(value, form)


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def made(*themes: str) -> str:
    """How the numbers of themes are made again."""
    return "\n".join(
        f"Made again with `{COMMANDS[theme]}`{f', {AFTER[theme]}' if theme in AFTER else ''}."
        for theme in themes
    )


def beside(content: Any) -> str:
    """A sentence, with a space before it, on what else the machine did; none where the file has no note."""
    return f" What else ran on the machine: {content['note'].rstrip('.')}." if content["note"] else ""


def where(folder: str) -> str:
    """Machine and date of a folder."""
    return ", ".join(FOLDERS[folder].values()) + "."


def predicted_ladder() -> list[Row]:
    """A ladder that was not run yet: sums over the runs of a budget."""
    rows: dict[str, Row] = {}
    for run in newest("ladder-prediction")["runs"]:
        times = run["name"].split("-")[1].removeprefix("c")
        row = rows.setdefault(
            times, {"times": times, "runs": 0, "flops": 0, "minutes": 0.0, "ends": [0.0, 0.0]}
        )
        row["runs"] += 1
        row["flops"] += run["flops"]
        row["minutes"] += run["seconds"] / 60
        row["ends"] = [end + run[key] / 60 for end, key in zip(row["ends"], ("low", "high"), strict=True)]
    return list(rows.values())


def planned_memory() -> list[Row]:
    """Steps of training: planned and measured peaks."""
    rows = []
    for row in rows_of("plan-memory", "steps"):
        planned, measured = (row[f"{name}_bytes"] - row["fixed_bytes"] for name in ("predicted", "measured"))
        checkpointed = "every block" if row["checkpointing"] else "none"
        width = row["heads"] * row["head_width"]
        rows.append({**row, "width": width, "checkpointed": checkpointed, "activations": planned / measured})
    return rows


def world_codes() -> list[Row]:
    """What the codes of worlds mean, a number of labels a row."""
    return [
        {"labels": int(labels), **told, **{k: world["decoding"][k] for k in ("majority", "shown")}, **place}
        for place, world in measured("world")
        for labels, told in world["decoding"]["labels"].items()
    ]


def world_player() -> list[Row]:
    """Where the player of a dream is after so many frames."""
    return [
        {"frames": int(at), "off": off, "staying": world["player"]["median_error_staying"][at],
         "there": world["player"]["player_there"][at], "one": world["player"].get("one_player", {}).get(at),
         **place}
        for place, world in measured("world")
        for at, off in world["player"]["median_error"].items()
    ]  # fmt: skip


def world_control() -> list[Row]:
    """How much the codes of worlds steer, and how fast they are."""
    return [
        {**world["delta_psnr"], "seconds": world["seconds_a_frame"], "threads": world["machine"]["threads"],
         "quadrant": min(world["player"]["direction_right"]), **place}
        for place, world in measured("world")
    ]  # fmt: skip


def game_worlds() -> list[Row]:
    """Worlds of games by others, named by 200 labels."""
    rows = []
    for place, world in measured("world-coinrun"):
        told = world["decoding"]["labels"]["200"]
        common, seconds = world["decoding"]["majority"], world["seconds_a_frame"]
        rows.append({**world["delta_psnr"], **told, "majority": common, "seconds": seconds, **place})
    return rows


def world_movers() -> list[Row]:
    """Worlds in which others move too, named by 200 labels."""
    rows = []
    for movers, theme in enumerate(("world-one-mover", "world-two-movers"), 1):
        for place, world in measured(theme):
            told, player = world["decoding"]["labels"]["200"], world["player"]
            marks = {f"off{at}": player["median_error"].get(at) for at in ("1", "8", "32")}
            there = {f"there{at}": player["player_there"].get(at) for at in ("8", "32", "128")}
            rows.append(
                {"movers": movers, **world["delta_psnr"], **told, **marks, **there,
                 "quadrant": min(player["direction_right"]), **place}
            )  # fmt: skip
    return rows


def world_plans() -> list[Row]:
    """Who reaches how many goals in the arena."""
    rows = []
    for place, result in measured("world-plan"):
        for who, row in result["rows"].items():
            closed = result["gap_closed"].get(who, {}).get("planner, true simulator")
            kept = {key: row.get(key) for key in ("in_dream", "same_in_truth", "flops_a_decision")}
            rows.append({**row, **kept, "who": who, "cost": result["cost"], "closed": closed, **place})
    return rows


def world_variants() -> list[Row]:
    """What each part of a world is worth."""
    rows = []
    for place, result in measured("world-ablations"):
        for variant, found in result["variants"].items():
            player, (told,) = found["player"], found["decoding"]["labels"].values()
            marks = {f"off{at}": player["median_error"].get(at) for at in ("8", "32", "128")}
            there = {f"there{at}": player["player_there"].get(at) for at in ("32", "128")}
            told = {"told": told["codes"], "delta": found["delta_psnr"]["delta"]}
            rows.append(
                {"variant": variant, **told, **marks, **there, "seconds": found["seconds_a_frame"], **place}
            )
    return rows


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _minutes(name: str) -> str:
    """A time that no result file has: docs/log.md says it."""
    line = re.search(rf"Training time of `{name}`: (\d+) minutes", LOG.read_text())
    assert line, f"docs/log.md has no line 'Training time of `{name}`: N minutes'"
    return line[1]


# The shapes model


def _prompt_scores() -> list[tuple[str, Row, Row]]:
    """Each checkpoint's scores by kind of prompt (plain, wall, light), and those of its judge."""
    demos = [(name, read(f"{name}/demo")["prompts"]) for name in ("toy", "toy-long")]
    demos.append(("modes", read("modes/evaluate")))
    return [(name, scores["kinds"], scores["judge"]["reconstructed"]) for name, scores in demos]


def checkpoints() -> list[Row]:
    """Each checkpoint by kind of prompt."""
    return [
        {"whole": None, **score, "checkpoint": name, **FOLDERS[name], "prompts": kind}
        for name, kinds, _ in _prompt_scores()
        for kind, score in kinds.items()
    ]


def whole_column(rows: list[Row], path: str = "") -> str:
    """The column of a table for the stricter measure, "" until one of its rows has it."""
    scores = [row[path.removesuffix(".")] if path else row for row in rows]
    return f" | #whole = {path}whole of" if any(score["whole"] for score in scores) else ""


def vae_quality() -> list[Row]:
    """How well each checkpoint's VAE copies clips."""
    unknown = {"psnr": None, "worst_psnr": None, "num_clips": None}
    qualities = [read("toy/demo")["vae_quality"], read("toy-long/demo")["vae_quality"], unknown]
    return [
        {**quality, "checkpoint": name, **FOLDERS[name], "copied": copied["all_right"]}
        for quality, (name, _, copied) in zip(qualities, _prompt_scores(), strict=True)
    ]


def training_times() -> list[Row]:
    """The demo's two stages."""
    return [{"checkpoint": "toy", **FOLDERS["toy"], **read("toy/demo")["seconds"]}]


def one_file() -> list[Row]:
    """What the page-long script learns, for the captions that it films by default and for all."""
    return [
        {**score, **place, "seconds": content["cpu_seconds"], "captions": name}
        for place, content in measured("onefile")
        for name, score in content["scores"].items()
    ]


def one_file_captions() -> list[Row]:
    """The captions that it films by default, the newest run's."""
    content = newest("onefile")
    shown = content["rows"][: content["scores"]["shown"]["all_right"]["total"]]
    return [
        {name: {True: "yes", False: "**no**"}.get(value, value) for name, value in row.items()}
        for row in shown
    ]


def own_clips() -> list[Row]:
    """Runs on footage, one a row; few clips have no distances."""
    nothing = {"samples": None, "floor": None}
    runs = rows_of("own-clips", "runs")
    # Tokens were of 16x16 pixels before their size was noted.
    return [
        {"token": 16, **run, "frechet": run["frechet"] or nothing, "verdict": _first(run["verdict"])}
        for run in runs
    ]


def _first(verdict: str) -> str:
    """A verdict up to its first fault; the page of the run has the others."""
    first, *others = verdict.split("; ")
    return f"{first}; and more" if others else first


def own_clips_captions() -> list[Row]:
    """What moves in these runs, by caption."""
    return [
        {**{key: run[key] for key in ("data", "minutes", "machine")}, **row}
        for run in rows_of("own-clips", "runs")
        for row in run["rows"]
    ]


def recipe(
    theme: str = "clip-recipe",
    keys: tuple[str, ...] = ("steps", "psnr", "moving", "activity", "activity_of_copies"),
    judged_by: str = "moving",
) -> list[Row]:
    """Variants of the recipe for footage: means over seeds, and how far apart these are in one of the keys."""
    rows = []
    for place, content in measured(theme):
        of_variant: dict[str, list[Row]] = {}
        for row in content["rows"]:
            of_variant.setdefault(row["variant"], []).append(row)
        for variant, seeds in of_variant.items():
            means = {key: sum(row[key] for row in seeds) / len(seeds) for key in keys}
            judged = [row[judged_by] for row in seeds]
            # One seed tells nothing of how far apart two are.
            spread = max(judged) - min(judged) if len(seeds) > 1 else None
            rows.append({"variant": variant, "seeds": len(seeds), "spread": spread, **means, **place})
    return rows


def dit_recipe() -> list[Row]:
    """Variants of the DiT of the recipe, on few clips."""
    return recipe("clip-recipe-dit", ("steps", "clips", "best", "last"), "best")


def sizes() -> list[Row]:
    """The shipped checkpoint at sizes and lengths."""
    points: list[Row] = read("modes/sizes")["points"]
    for point in points:
        if point["size"][0] == 1:
            # An image has no motion, and is not "all right" for want of one.
            point["score"] |= {"motion": {"share": None}, "all_right": {"share": None}, "whole": None}
        point["score"].setdefault("whole", None)
        quality = point["score"]["quality"]
        # Results of before the stricter measure have none but the coarser count.
        point["second"] = quality.get("second", quality["leftovers"])
    return points


def steps() -> list[Row]:
    """Quality against sampling steps, of the shipped checkpoint and its student."""
    return [
        {
            **point,
            "score": {"whole": None, **point["score"]},
            "checkpoint": name,
            **FOLDERS[folder],
        }
        for name, folder in (("modes", "modes"), ("student of modes", "student"))
        for point in read(f"{folder}/steps")["points"]
    ]


def editing() -> list[Row]:
    """The shipped checkpoint in every mode."""
    rows = []
    for mode, score in read("modes/modes")["modes"].items():
        for name, value in score.items():
            if not name.startswith("identity_at_frame_"):
                unit = next((unit for unit in ("dB", "px", "MiB") if name.endswith(f"_{unit.lower()}")), "")
                digits = 4 if name.startswith("seconds") else 0 if unit == "MiB" or name == "frames" else 2
                form = "of" if isinstance(value, dict) else f",.{digits}f"
                quantity = _spaced(name.removesuffix(f"_{unit.lower()}") if unit else name)
                rows.append({"mode": mode, "quantity": quantity, "value": written(value, form), "unit": unit})
    return rows


# Its parts beside others


def dit_peers() -> list[Row]:
    """Our DiT's time beside Latte's and CogVideoX's."""
    rows = []
    for theme, compiled in (("dit-peers", "no"), ("dit-peers-compiled", "yes")):
        for place, content in measured(theme):
            ours = {
                (row["what"], row["precision"]): row["share_of_peak"]
                for row in reversed(content["rows"])
                if row["model"] == "VideoDiT"
            }
            rows += [
                {**row, **place, "compiled": compiled, "ours": ours[row["what"], row["precision"]]}
                for row in content["rows"]
                if row["model"] != "VideoDiT"
            ]
    return rows


def vae_race() -> list[Row]:
    """The same VAEs trained."""
    rows = []
    for place, content in measured("vae-peers"):
        runs = content.get("training", [])
        for run in runs:
            best = max(point["psnr_db"] for point in run["history"])
            passed = next((p["seconds"] for p in runs[0]["history"] if p["psnr_db"] > best), None)
            params = f"{run['params'] / 1e6:.2f} M"
            rows.append({**run, **place, "params": params, "best": best, "passed": passed})
    return rows


def composition() -> list[Row]:
    """Training on whole clips against their middle squares."""
    rows = rows_of("composition")
    for row in rows:
        row["score"] = {"right": row["all_right"], "total": row["videos"]}
    return rows


def captioners() -> list[Row]:
    """Which of the captioner's words are right, on clips of each kind."""
    return [
        {**score, **place, "labels": content["labelled"], "judged on": clips}
        for theme in ("recaption", "captioner")
        for place, content in measured(theme)
        for clips, score in content["captioner"].items()
    ]


def faults() -> list[Row]:
    """The campaign of faults."""
    rows = []
    for place, content in measured("faults"):
        summary = content["summary"]
        for part in [*dict.fromkeys(row["part"] for row in summary), "all"]:
            members = [row for row in summary if part in (row["part"], "all")]
            trials, right = (sum(row[key] for row in members) for key in ("tried", "right"))
            struck = sum(row.get(key, 0) for row in members for key in ("kills", "full", "short", "refused"))
            row = {"fault": part, "in": ", ".join(row["what"] for row in members), "struck": struck}
            row |= {"in": "–", "struck": None} if part == "all" else {}
            rows.append({**place, **row, "trials": trials, "right": {"right": right, "total": trials}})
    return rows


def request_rows() -> list[Row]:
    """Requests that the studio must refuse, by the threat."""
    return [{**row, "request": row["threat"]} for row in rows_of("studio-faults", "refused")]


def studio_load() -> list[Row]:
    """What clicks took while the studio was busy."""
    return [
        {**place, "click": click, **content["milliseconds_by_click"].get(click, content["milliseconds"])}
        for place, content in measured("studio-load")
        for click in ("all", *content["milliseconds_by_click"])
    ]


def studio_paint() -> list[Row]:
    """When each view of the studio is first seen, wide and narrow."""
    return [
        {**place, **row, "loads": content["loads"]}
        for place, content in measured("studio-paint")
        for row in content["views"]
    ]


# The ladder


def ladder() -> list[Row]:
    """Every run of the ladder."""
    return [json.loads(line) for line in (RESULTS / "ladder" / "results.jsonl").read_text().splitlines()]


def ladder_budgets() -> list[Row]:
    """The best run of each budget."""
    runs = ladder()
    rows = []
    for times in sorted({run["times"] for run in runs}):
        tried = [run for run in runs if run["times"] == times and run["axis"] == "isoflop"]
        best = min(tried, key=lambda run: run["loss"])
        score = {"right": best["right"]["all_right"], "total": best["prompts"]}
        rows.append({**best, "runs": len(tried), "score": score})
    return rows


def ladder_laws() -> list[Row]:
    """The constants of the laws fitted to the ladder."""
    law = read("ladder/law")
    return [
        {"law": fit["formula"], "constant": name, "value": value, "ends": fit["intervals"].get(name)}
        for fit in (law["size_law"], law["budget_law"], law["loss_law"])
        for name, value in fit["constants"].items()
    ]


def ladder_rates() -> list[Row]:
    """The ladder's learning rates."""
    runs = ladder()
    swept = {run["width"] for run in runs if run["axis"] == "rate"}
    plain = [run for run in runs if run["times"] == run["epochs"] == 1 and run["seed"] == 0]
    return sorted((r for r in plain if r["width"] in swept), key=lambda run: (run["width"], run["lr"]))


def ladder_repetition() -> list[Row]:
    """Its runs on data seen several times."""
    runs = ladder()
    repeated = {(run["width"], run["times"]) for run in runs if run["axis"] == "repetition"}
    alike = (run for run in runs if (run["width"], run["times"]) in repeated)
    return sorted(alike, key=lambda run: (run["epochs"], run["seed"]))


# What models cost


def dit_table() -> list[Row]:
    """The DiT paper's models, published against counted."""
    rows = rows_of("dit-table")
    for row in rows:
        row["agree"] = "yes" if len(set(row["counts"].values())) == 1 else "no"
    return rows


def other_models() -> list[Row]:
    """MACs of other models, and the toy."""
    models = [
        (place, f"{model['name']}, latents {written(model['latent_size'], 'x')}",
         written(model["params"], "/1e6,.1f"), written(model["forward"]["macs"], "/1e9,.1f"))
        for place, model in measured("cogvideox")
    ] + [
        (FOLDERS["toy"], f"toy: {_spaced(name)}",
         written(part["params"], "/1e6.2f"), written(part["macs"], "/1e9,.4f"))
        for name, part in read("toy/flops")["components"].items()
    ] + [
        (row, f"{row['model']}, decoder, video {written(row['video'][2:], 'x')}",
         written(row["decoder_params"], "/1e6.1f"), written(row["macs"], "/1e9,.1f"))
        for row in rows_of("vae-decoders", "decoders")
    ]  # fmt: skip
    return [{**place, "model": name, "params": params, "macs": macs} for place, name, params, macs in models]


def train_steps() -> list[Row]:
    """The toy's train step over its forward pass."""
    cases = read("toy/flops")["train_step"]["cases"]
    return [{**case, "name": _spaced(name)} for name, case in cases.items()]


def utilisation() -> list[Row]:
    """The toy's share of this machine's peak."""
    return [{**row, **FOLDERS["toy"]} for row in read("toy/flops-time")["rows"]]


def cost_laws() -> list[Row]:
    """How well the cost laws predict held-out passes."""
    return [
        {**law, **place, "law": _spaced(name), "points": f"{law['fitted_points']} + {law['held_out_points']}"}
        for place, content in measured("calibration")
        for name, law in content["laws"].items()
    ]


def claims() -> list[Row]:
    """The published estimate, claim by claim."""
    return [
        {
            **claim,
            "claim": _spaced(name),
            "unit": claim["unit"].replace(" as published, FLOPs as corrected and measured", "*"),
            "follows": "yes" if claim["follows"] else "**no**",
            "ends": claim["interval"] and claim["interval"][::2],
        }
        for _, content in measured("report")
        for name, claim in content["claims"].items()
    ]


def sora_pass() -> list[Row]:
    """A pass of Sora by the cost law."""
    report = newest("report")
    return [{**step, "attention": name} for name, step in report["measured_here"]["sora_step"].items()]


def backtest() -> list[Row]:
    """Disclosed times of other models, predicted."""
    rows = [row for row in newest("report")["backtest"] if row["seconds"] and row["seconds_disclosed"]]
    for row in rows:
        row["factor"] = row["seconds"] / row["seconds_disclosed"]
        row["naive"] = row["seconds_disclosed"] / row["naive_seconds"]
    return rows


def corrections() -> list[Row]:
    """What the back-test implies: disclosed over predicted."""
    implied = newest("report")["backtest_implies"]
    parts = {"models": "models_in_{}", "median": "{}", "range": "{}_range", "ends": "{}_interval"}
    return [
        {"quantity": _spaced(name), **{key: implied[form.format(name)] for key, form in parts.items()}}
        for name in ("time_correction", "naive_time_correction", "training_correction")
    ]


# The README's


def how_good() -> str:
    """The README's scores."""
    seconds = read("toy/demo")["seconds"]
    minutes = [f"{(seconds['vae'] + seconds['dit']) / 60:,.1f}", _minutes("toy-long"), _minutes("modes")]
    scores = [
        (kinds["plain"]["all_right"], kinds["plain"]["held_out"]["all_right"], kinds["wall"]["permanence"],
         kinds["light"]["all_right"], copied["all_right"])
        for _, kinds, copied in _prompt_scores()
    ]  # fmt: skip
    names = (
        "colour, shape and motion all right", "of these, combinations never shown", "the same object after a wall",
        "by day or at night, all right", "prompts that survive the VAE alone",
    )  # fmt: skip
    lines = [[written(score, "of") for score in line] for line in zip(*scores, strict=True)]
    rows = zip((*names, "training, minutes"), *zip(*lines, minutes, strict=True), strict=True)
    columns = ("", "toy", "toy-long", "modes")
    return table(
        " | #`toy` = toy | #`toy-long` = toy-long | #`modes`, the shipped one = modes",
        [dict(zip(columns, row, strict=True)) for row in rows],
    )


def costs() -> str:
    """The README's costs."""
    xl, report = newest("dit-table")["rows"][-1], newest("report")
    wrong = sum(not claim["follows"] for claim in report["claims"].values())
    low, high = (report["claims"][f"sora_training_h100_months_{end}"] for end in ("low", "high"))
    months, mended = (written([low[key], high[key]], "toshort") for key in ("published", "corrected"))
    implied, full = report["backtest_implies"], report["measured_here"]["sora_step"]["full"]
    models, others = implied["models_in_time_correction"], written(implied["time_correction_range"], "to,.2f")
    naive = written(implied["naive_time_correction_range"], "to,.0f")
    counted, printed, ours = xl["gmacs"], xl["published_gmacs"], full["over_per_frame_rule"]
    return f"""- One pass of DiT-XL/2 at 512x512 is {counted:,.2f} GMACs; its paper prints {printed:,.2f}.
- In a published estimate of Sora {wrong} numbers do not follow from its own inputs. Mended, its {months}
  H100-months of training are {mended}; a pass with full attention costs {ours:,.2f} times its rule.
- Each of {models} disclosed models on an H100 takes {others} times what the others predict; by the
  published rule, {naive}."""


BLOCKS: dict[str, Callable[[], str]] = {"how-good": how_good, "costs": costs}

if __name__ == "__main__":
    sys.exit(main())
