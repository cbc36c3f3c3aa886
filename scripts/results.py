"""Writes benchmarks/RESULTS.md, and the tables of README.md that stand between markers, from the result files.

python scripts/results.py           writes them
python scripts/results.py --check   writes nothing; exit code 1 if one of them is out of date

A result file is named theme_machine_date.json; folders (toy, toy-long, modes, student, ladder) keep their names, as
other parts read them there. One function makes one section, and no number of a result stands in this file.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "benchmarks" / "RESULTS.md"
README = ROOT / "README.md"
LOG = ROOT / "docs" / "log.md"

# What the files of a folder do not say of themselves: the machine that they were measured on, and when.
FOLDERS = dict.fromkeys(("toy", "toy-long", "modes", "student", "ladder"), ("Sapphire Rapids", "2026-11-26"))
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
    "composition": "python benchmarks/composition.py --steps 1000 --json FILE",
    "dit-peers": "python benchmarks/dit_peers.py --json FILE",
    "dit-peers-compiled": "python benchmarks/dit_peers.py --compile --json FILE",
    "dit-table": "minisora flops --table dit --json FILE",
    "faults": "python benchmarks/faults.py --json FILE",
    "loader": "python benchmarks/loader.py --json FILE",
    "memory": "python benchmarks/memory.py --json FILE",
    "packing": "python benchmarks/packing.py --json FILE",
    "recaption": "python benchmarks/recaption.py --run runs/modes --json FILE; its options stand in the file",
    "report": "minisora report --preset measured --calibration CALIBRATION --out DIR",
    "vae-decoders": "python benchmarks/vae_decoders.py --json FILE",
    "vae-peers": "python benchmarks/vae_peers.py --to-db 28 --json FILE",
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
    """The text of benchmarks/RESULTS.md."""
    contents = " · ".join(f"[{title}](#{_anchor(title)})" for title in SECTIONS)
    parts = ["# Results", _INTRODUCTION, contents]
    for title, make in SECTIONS.items():
        parts += [f"## {title}", make()]
        if title in PICTURES:
            parts.append(f"![{title}](results/{PICTURES[title]})")
    return "\n\n".join(parts) + "\n"


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


def place_of(folder: str) -> Row:
    """Machine and date of a folder."""
    machine, date = FOLDERS[folder]
    return {"machine": machine, "date": date}


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
    fields = [
        (cell or head.lstrip("#")).split(" ") if cell else [head.lstrip("#")] for head, _, cell in parts
    ]
    lines = [[head.removeprefix("#") for head in heads]]
    lines.append(["---:" if head.startswith("#") else "---" for head in heads])
    lines += [[_cell(row, *field) for field in fields] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(row: Row, key: str, form: str = "") -> str:
    value: Any = row
    for part in key.split("."):
        value = value[part]
    return written(value, form)


def written(value: Any, form: str = "") -> str:
    """A value as text; None is a dash.

    Args:
        value: a number, a text, a score, or the ends of an interval.
        form: a format of Python such as ",.2f"; `/1e6,.2f` divides first; `%1` is a share in percent with one digit;
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
        return f"{100 * value:.{form[1:]}f} %"
    if form.startswith("/"):
        unit = re.match(r"/([\de-]+)", form)
        assert unit, form
        return format(value / float(unit[1]), form[unit.end() :])
    return format(value, form)


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def _made(*themes: str) -> str:
    return "\n".join(f"Made again with `{COMMANDS[theme]}`." for theme in themes)


def _where(folder: str) -> str:
    return ", ".join(FOLDERS[folder]) + "."


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


def checkpoints() -> str:
    """Each checkpoint by kind of prompt."""
    rows = [
        {**score, "checkpoint": name, **place_of(name), "prompts": kind}
        for name, kinds, _ in _prompt_scores()
        for kind, score in kinds.items()
    ]
    text = """One sample of each prompt. `toy` is what `minisora demo` trains, `toy-long` its hour, `modes` the shipped
checkpoint. Kinds: *plain* is every colour, shape and direction, *wall* passes behind a wall (permanence: the same
object comes out), *light* is by day or at night. Held out: triples that were never shown in training."""
    columns = (
        "checkpoint | machine | date | prompts | #colour = color of | #shape = shape of | #motion = motion of"
        " | #size = size of | #light = light of | #permanence = permanence of | #all right = all_right of"
        " | #95 % interval, % = all_right.interval to/1e-2,.0f | #held out, all right = held_out.all_right of"
    )
    return f"{text}\n\n{table(columns, rows)}"


def vae_quality() -> str:
    """How well each checkpoint's VAE copies clips."""
    unknown = {"psnr": None, "worst_psnr": None, "num_clips": None}
    qualities = [read("toy/demo")["vae_quality"], read("toy-long/demo")["vae_quality"], unknown]
    rows = [
        {**quality, "checkpoint": name, **place_of(name), "copied": copied["all_right"]}
        for quality, (name, _, copied) in zip(qualities, _prompt_scores(), strict=True)
    ]
    columns = (
        "checkpoint | machine | date | #PSNR, dB = psnr ,.2f | #worst clip, dB = worst_psnr ,.2f"
        " | #clips = num_clips | #prompts that survive the VAE = copied of"
    )
    return table(columns, rows)


def training_times() -> str:
    """The demo's two stages."""
    row = {"checkpoint": "toy", **place_of("toy"), **read("toy/demo")["seconds"]}
    text = "Other runs, and the checkpoints whose files hold no times: [the log](../docs/log.md)."
    columns = "checkpoint | machine | date | #VAE, s = vae ,.0f | #encoding and DiT, s = dit ,.0f"
    return f"{table(columns, [row])}\n\n{text}"


def sizes() -> str:
    """The shipped checkpoint at sizes and lengths."""
    points = read("modes/sizes")["points"]
    for point in points:
        if point["size"][0] == 1:
            # An image has no motion, and is not "all right" for want of one.
            point["score"] |= {"motion": {"share": None}, "all_right": {"share": None}}
    columns = (
        "frames x height x width = size x | #samples = score.color.total | #colour = score.color.share %1"
        " | #shape = score.shape.share %1 | #motion = score.motion.share %1 | #all right = score.all_right.share %1"
        " | #frames with a second object = score.quality.leftovers %1 | #s a video = seconds_per_video ,.3f"
    )
    return f"`modes`, four samples of each plain prompt. {_where('modes')}\n\n{table(columns, points)}"


def steps() -> str:
    """Quality against sampling steps, of the shipped checkpoint and its student."""
    rows = [
        {**point, "checkpoint": name, **place_of(folder)}
        for name, folder in (("modes", "modes"), ("student of modes", "student"))
        for point in read(f"{folder}/steps")["points"]
    ]
    text = "The student is made by `minisora distill --model toy --config modes --samples 3000 --out RUN`."
    columns = (
        "checkpoint | machine | date | #steps | #passes | #all right = score.all_right of"
        " | #s a video = seconds_per_video ,.3f"
    )
    return f"{table(columns, rows)}\n\n{text}"


def editing() -> str:
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
    text = f"""`modes` in every mode, one clip of each plain prompt (long: 20 runs). {_where("modes")}

- *jump*: change of velocity where made frames meet given ones; beside it the value below which 95 % of real clips stay
  (*of data*), and of real clips whose made half passed through the VAE (*of coded data*).
- *kept path*: within 6 % of the frame. *untouched* 99 dB: every pixel the same."""
    return f"{text}\n\n{table('mode | quantity | #value | unit', rows)}"


# Its parts beside others


def dit_peers() -> str:
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
    shape = "Width {width}, {blocks} blocks, {tokens} tokens, batch {batch}.".format(
        **newest("dit-peers")["settings"]
    )
    text = f"""{shape}
*Factorised* attention is beside Latte's, *full* beside CogVideoX's. Above 1 ours is faster. "As each comes" is ours in
bf16, theirs in fp32. "Unfused": their faster kernel for attention. Shares are of the machine's own measured matmul
peak in that format."""
    columns = (
        "machine | date | compiled | what | format = precision | peer = model | #time over ours = times_ours ,.2f"
        " | #range = times_ours_range to,.2f | #ours, share of peak = ours %0 | #peer's = share_of_peak %0"
    )
    return f"{text}\n{_made('dit-peers', 'dit-peers-compiled')}\n\n{table(columns, rows)}"


def vae_speed() -> str:
    """Our VAE's time beside CogVideoX's and Wan's."""
    text = "VAEs of the same compression and about a million parameters each. Above 1 ours is faster."
    columns = (
        "machine | date | what | format = precision | peer = model | #time over ours = times_ours ,.1f"
        " | #range = times_ours_range to,.1f | #peer's share of peak = share_of_peak %0"
    )
    rows = [row for row in rows_of("vae-peers") if row["model"] != "VideoVAE"]
    return f"{text}\n{_made('vae-peers')}\n\n{table(columns, rows)}"


def vae_race() -> str:
    """The same VAEs trained."""
    rows = []
    for place, content in measured("vae-peers"):
        runs = content.get("training", [])
        for run in runs:
            best = max(point["psnr_db"] for point in run["history"])
            passed = next((p["seconds"] for p in runs[0]["history"] if p["psnr_db"] > best), None)
            params = f"{run['params'] / 1e6:.2f} M"
            rows.append({**run, **place, "params": params, "best": best, "passed": passed})
    text = "Trained alike at a constant rate in float32, until 28 dB on unseen clips or the time is over."
    columns = (
        "machine | date | VAE = model | #parameters = params | #trained, s = trained_s ,.0f"
        " | #best PSNR, dB = best ,.1f | #s to 28 dB = seconds_to_db ,.0f | #s until ours leads = passed ,.0f"
    )
    return f"{text}\n\n{table(columns, rows)}"


def memory() -> str:
    """Peak memory of train steps."""
    text = f"Peak of a train step above the imports, float32.\n{_made('memory')}"
    columns = "machine | date | what = group | model | #MiB = step_mib ,.0f"
    return f"{text}\n\n{table(columns, rows_of('memory'))}"


def packing() -> str:
    """Clips of several sizes in one step."""
    text = f"Clips of six sizes in one step; on a CPU masks save nothing.\n{_made('packing')}"
    first = table("machine | date | #clips = batch | how | #padding = waste %1", rows_of("packing"))
    columns = (
        "machine | date | #tokens a row = capacity | how = model | #s a step = median_s ,.3f"
        " | #times a size at a time = times_ours ,.2f"
    )
    return f"{text}\n\n{first}\n\n{table(columns, rows_of('packing', 'times'))}"


def composition() -> str:
    """Training on whole clips against their middle squares."""
    steps = newest("composition")["steps"]
    text = f"DiTs of {steps} steps trained on wide and tall clips as they are, native, or on their middle squares."
    columns = (
        "machine | date | trained on = trained_on | size = size x | #frames that show the whole object = whole %0"
        " | #all right = score of"
    )
    rows = rows_of("composition")
    for row in rows:
        row["score"] = {"right": row["all_right"], "total": row["videos"]}
    return f"{text}\n{_made('composition')}\n\n{table(columns, rows)}"


def captions() -> str:
    """The captioner, and what its captions are worth."""
    rows, trained = [], []
    for theme in ("recaption", "captioner"):
        for place, content in measured(theme):
            rows += [
                {**score, **place, "labels": content["labelled"], "judged on": clips}
                for clips, score in content["captioner"].items()
            ]
            trained += [{**run, **place} for run in content["dit"]]
    columns = (
        "machine | date | #labels | judged on | #clips | #colour = color %1 | #shape = shape %1 | #motion = motion %1"
        " | #size = size %1 | #light = light %1 | #wall = wall %1 | #all right = all %1"
    )
    steps = newest("recaption")["settings"]["steps"]
    text = (
        f"DiTs of {steps} steps with a tenth of the labels, with the captioner's for the rest, and with all:"
    )
    second = table(
        "machine | date | trained with = labels | #all right = all_right of | #share = all_right.share %1"
        " | #95 % interval, % = all_right.interval to/1e-2,.1f",
        trained,
    )
    return f"{_made('recaption', 'captioner')}\n\n{table(columns, rows)}\n\n{text}\n\n{second}"


def loader() -> str:
    """Reading clips."""
    columns = "machine | date | what | #clips = count | #s = seconds ,.2f | #clips a second = per_s ,.0f"
    return f"{_made('loader')}\n\n{table(columns, rows_of('loader'))}"


def faults() -> str:
    """The campaign of faults."""
    rows, headings = [], []
    for place, content in measured("faults"):
        summary = content["summary"]
        headings.append(f"Commit {content['commit']}.")
        for part in [*dict.fromkeys(row["part"] for row in summary), "all"]:
            members = [row for row in summary if part in (row["part"], "all")]
            trials, right = (sum(row[key] for row in members) for key in ("tried", "right"))
            struck = sum(row.get(key, 0) for row in members for key in ("kills", "full", "short", "refused"))
            row = {"fault": part, "in": ", ".join(row["what"] for row in members), "struck": struck}
            row |= {"in": "–", "struck": None} if part == "all" else {}
            rows.append({**place, **row, "trials": trials, "right": {"right": right, "total": trials}})
    text = """Right: after a kill the same command ends with the same losses bit for bit; after a full disk, short
memory or a malformed input there is one line and exit code 1 or 2, and nothing is lost. *Struck*: kills; trials in
which the disk was full or memory short; inputs that were refused (the others are legal in spite of the change)."""
    columns = "machine | date | fault | in | #trials | #struck | #right = right of"
    return f"{text}\n{' '.join(headings)} {_made('faults')}\n\n{table(columns, rows)}"


# The ladder


def _ladder() -> list[Row]:
    return [json.loads(line) for line in (RESULTS / "ladder" / "results.jsonl").read_text().splitlines()]


def ladder_budgets() -> str:
    """The best run of each budget."""
    runs = _ladder()
    rows = []
    for times in sorted({run["times"] for run in runs}):
        tried = [run for run in runs if run["times"] == times and run["axis"] == "isoflop"]
        best = min(tried, key=lambda run: run["loss"])
        score = {"right": best["right"]["all_right"], "total": best["prompts"]}
        rows.append({**best, "runs": len(tried), "score": score})
    columns = (
        "#budget over the smallest = times g | #FLOPs = flops .3g | #runs | #best width = width"
        " | #parameters = params , | #its loss = loss ,.3f | #prompts all right = score of"
    )
    text = f"{len(runs)} runs, float32, by `minisora scale run --ladder cpu --jobs 2 --out runs/ladder`."
    return f"{text} {_where('ladder')}\n\n{table(columns, rows)}"


def ladder_laws() -> str:
    """The laws fitted to the ladder."""
    law = read("ladder/law")
    rows = [
        {"law": fit["formula"], "constant": name, "value": value, "ends": fit["intervals"].get(name)}
        for fit in (law["size_law"], law["budget_law"], law["loss_law"])
        for name, value in fit["constants"].items()
    ]
    noise, held = written(law["noise"]["relative"], "%1"), law["held_out"]
    loss, predicted = written(held["loss"], ".4f"), written(held["predicted"], ".4f")
    error = written(held["error"], "%1")
    beyond = written(law["optimal"]["decades_beyond_data"][::2], "to.1f")
    text = f"""90 % intervals from the spread over seeds ({noise} of a loss). The largest budget, held out, has a loss
of {loss}; the law of the others says {predicted} ({error}). Sora's size is {beyond} decades beyond these runs."""
    return f"{text}\n\n{table('law | constant | #value = value .4g | #90 % interval = ends to.4g', rows)}"


def ladder_axes() -> str:
    """The ladder's learning rates and repeated data."""
    runs = _ladder()
    swept = {run["width"] for run in runs if run["axis"] == "rate"}
    rates = sorted(
        (r for r in runs if r["times"] == r["epochs"] == 1 and r["seed"] == 0 and r["width"] in swept),
        key=lambda run: (run["width"], run["lr"]),
    )
    repeated = {(run["width"], run["times"]) for run in runs if run["axis"] == "repetition"}
    seen = sorted(
        (run for run in runs if (run["width"], run["times"]) in repeated),
        key=lambda run: (run["epochs"], run["seed"]),
    )
    first = table("#width | #learning rate = lr g | #loss = loss ,.3f", rates)
    second = table("#times each clip is seen = epochs g | #seed | #clips = clips , | #loss = loss ,.3f", seen)
    return f"{first}\n\n{second}"


# What models cost


def dit_table() -> str:
    """The DiT paper's models, published against counted."""
    rows = rows_of("dit-table")
    for row in rows:
        row |= {
            "agree": "yes" if len(set(row["counts"].values())) == 1 else "no",
            "error": f"{row['error']:+.2%}".replace("%", " %"),
        }
    text = "The DiT paper's models, 256x256 but the last, GMACs of one pass. 1 MAC = 2 FLOPs."
    columns = (
        "date | model = name | #published = published_gmacs ,.2f | #counted = gmacs ,.3f | #difference = error"
        " | #parameters, M = params /1e6,.2f | the three counts agree = agree"
    )
    return f"{text} {_made('dit-table')}\n\n{table(columns, rows)}"


def other_models() -> str:
    """MACs of other models, and the toy."""
    rows = []
    for place, model in measured("cogvideox"):
        name, macs = (
            f"{model['name']}, latents {written(model['latent_size'], 'x')}",
            model["forward"]["macs"],
        )
        rows.append(
            {**place, "model": name, "params": f"{model['params'] / 1e6:,.1f}", "macs": f"{macs / 1e9:,.1f}"}
        )
    toy = read("toy/flops")
    for name, part in toy["components"].items():
        params, macs = f"{part['params'] / 1e6:.2f}", f"{part['macs'] / 1e9:,.4f}"
        rows.append({**place_of("toy"), "model": f"toy: {_spaced(name)}", "params": params, "macs": macs})
    for row in rows_of("vae-decoders", "decoders"):
        name = f"{row['model']}, decoder, video {written(row['video'][2:], 'x')}"
        params, macs = f"{row['decoder_params'] / 1e6:.1f}", f"{row['macs'] / 1e9:,.1f}"
        rows.append({**row, "model": name, "params": params, "macs": macs})
    cases = [{**case, "name": _spaced(name)} for name, case in toy["train_step"]["cases"].items()]
    text = "The toy's train step over its forward pass, in FLOPs:"
    first = table("date | model, one pass = model | #parameters, M = params | #GMACs = macs", rows)
    second = table("train step = name | #over forward = ratio_to_forward ,.3f", cases)
    return f"{_made('cogvideox', 'vae-decoders')}\n\n{first}\n\n{text}\n\n{second}"


def utilisation() -> str:
    """The toy's share of this machine's peak."""
    rows = [{**row, **place_of("toy")} for row in read("toy/flops-time")["rows"]]
    text = "The toy in float32, by `minisora flops --config toy --device cpu --time`."
    columns = (
        "machine | date | what = name | #batch | #ms = seconds /1e-3,.1f"
        " | #measured peak, GFLOP/s = measured_peak /1e9,.0f | #share of it = mfu_measured %1"
    )
    return f"{text}\n\n{table(columns, rows)}"


def cost_laws() -> str:
    """How well the cost laws predict held-out passes."""
    rows = [
        {**law, **place, "law": _spaced(name), "points": f"{law['fitted_points']} + {law['held_out_points']}"}
        for place, content in measured("calibration")
        for name, law in content["laws"].items()
    ]
    columns = (
        "machine | date | law | #points, fitted + held out = points"
        " | #held out, median error = held_out_median %2 | #worst = held_out_error %2"
    )
    return f"{_made('calibration')}\n\n{table(columns, rows)}"


def claims() -> str:
    """The published estimate, claim by claim."""
    rows = [
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
    text = "*MACs as published and recomputed, FLOPs as corrected and measured. The interval is 5 to 95 %."
    columns = (
        "claim | unit | #published = published short | #recomputed = recomputed short | #corrected = corrected short"
        " | #measured = measured short | follows from its inputs = follows | #interval = ends toshort"
    )
    return f"{_made('report')} {text}\n\n{table(columns, rows)}"


def sora_pass() -> str:
    """A pass of Sora by the cost law."""
    passes = newest("report")["measured_here"]["sora_step"]
    columns = (
        "attention | #MACs a pass = macs_per_step short | #over the published rule = over_per_frame_rule ,.2f"
        " | #decades beyond the largest measured pass = decades_beyond_largest_point ,.1f"
    )
    rows = [{**step, "attention": name} for name, step in passes.items()]
    return f"A model of the report's size on its clip, by the cost law.\n\n{table(columns, rows)}"


def backtest() -> str:
    """Disclosed times of other models, predicted."""
    report = newest("report")
    rows = [
        {
            **row,
            "factor": row["seconds"] / row["seconds_disclosed"],
            "naive": row["seconds_disclosed"] / row["naive_seconds"],
        }
        for row in report["backtest"]
        if row["seconds"] and row["seconds_disclosed"]
    ]
    implied = report["backtest_implies"]
    corrections = [
        {
            "quantity": _spaced(name),
            "models": implied[f"models_in_{name}"],
            "median": implied[name],
            "range": implied[f"{name}_range"],
            "ends": implied[f"{name}_interval"],
        }
        for name in ("time_correction", "naive_time_correction", "training_correction")
    ]
    text = "Disclosed over predicted, a model of several cases once; *naive* is the published rule:"
    columns = (
        "model | case | #s disclosed = seconds_disclosed short | #s predicted = seconds short"
        " | #predicted over disclosed = factor ,.2f | #disclosed over the rule's = naive ,.0f"
    )
    second = table(
        "quantity | #models | #median = median ,.2f | #range = range to,.2f | #90 % interval = ends to,.2f",
        corrections,
    )
    return f"Each predicted from the others.\n\n{table(columns, rows)}\n\n{text}\n\n{second}"


# The README's


def how_good() -> str:
    """The README's scores."""
    seconds = read("toy/demo")["seconds"]
    minutes = [f"{(seconds['vae'] + seconds['dit']) / 60:,.1f}", _minutes("toy-long"), _minutes("modes")]
    columns = []
    for (_, kinds, copied), time in zip(_prompt_scores(), minutes, strict=True):
        scores = {
            "colour, shape and motion all right": kinds["plain"]["all_right"],
            "of these, combinations never shown": kinds["plain"]["held_out"]["all_right"],
            "the same object after a wall": kinds["wall"]["permanence"],
            "by day or at night, all right": kinds["light"]["all_right"],
            "prompts that survive the VAE alone": copied["all_right"],
        }
        columns.append(
            {**{name: written(score, "of") for name, score in scores.items()}, "training, minutes": time}
        )
    rows = [{"": name, **{str(i): column[name] for i, column in enumerate(columns)}} for name in columns[0]]
    return table(" | #`toy` = 0 | #`toy-long` = 1 | #`modes`, the shipped one = 2", rows)


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
  published rule, {naive} times."""


_INTRODUCTION = """<!-- Written by scripts/results.py from the files in benchmarks/results. -->

Two cores of each machine: Sapphire Rapids is an Intel Xeon with AMX tiles (bfloat16), Zen 4 an AMD EPYC with bfloat16
units, Zen 3 one without. torch 2.14. Nothing here was yet measured on a GPU.

Each table is made from `benchmarks/results/THEME_MACHINE_DATE.json`; results in folders (`toy`, `toy-long`, `modes`,
`student`, `ladder`) keep their folder's name, as the report and the tests read them there. Measurements that have no
result file: [docs/log.md](../docs/log.md). 1 MAC = 2 FLOPs, and every figure says which."""

SECTIONS: dict[str, Callable[[], str]] = {
    "Prompts": checkpoints,
    "VAE": vae_quality,
    "Training time": training_times,
    "Sizes": sizes,
    "Steps": steps,
    "Modes": editing,
    "DiT peers": dit_peers,
    "VAE peers, speed": vae_speed,
    "VAE peers, training": vae_race,
    "Memory": memory,
    "Packing": packing,
    "Composition": composition,
    "Captions": captions,
    "Loader": loader,
    "Faults": faults,
    "Ladder, best sizes": ladder_budgets,
    "Ladder, laws": ladder_laws,
    "Ladder, rates and repetition": ladder_axes,
    "The DiT paper's table": dit_table,
    "Other models": other_models,
    "Utilisation": utilisation,
    "Cost laws": cost_laws,
    "The published estimate": claims,
    "A pass of Sora": sora_pass,
    "Back-test": backtest,
}
PICTURES = {
    "Prompts": "samples.png",
    "Sizes": "modes/sizes.png",
    "Modes": "modes/modes.png",
    "Ladder, best sizes": "ladder/figure.png",
    "Ladder, laws": "ladder/isoflop.png",
    "Ladder, rates and repetition": "ladder/repetition.png",
    "Cost laws": "roofline_zen-4_2026-11-22.png",
}
BLOCKS: dict[str, Callable[[], str]] = {"how-good": how_good, "costs": costs}

if __name__ == "__main__":
    sys.exit(main())
