"""Writes benchmarks/RESULTS.md, and the tables of README.md that stand between markers, from the result files.

python scripts/results.py           writes them
python scripts/results.py --check   writes nothing; exit code 1 if one of them is out of date

A result file is named theme_machine_date.json; folders (toy, toy-long, modes, student, ladder) keep their names, as
other parts read them there. One function makes one table, and no number of a result stands in this file.
"""

# Rows are long: lists of a few cells are added to each other, as a formatter would put each cell on a line.
# ruff: noqa: RUF005

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
FOLDERS: dict[str, tuple[str, str]] = {
    "toy": ("Sapphire Rapids", "2026-11-26"),
    "toy-long": ("Sapphire Rapids", "2026-11-26"),
    "modes": ("Sapphire Rapids", "2026-11-26"),
    "student": ("Sapphire Rapids", "2026-11-26"),
    "ladder": ("Sapphire Rapids", "2026-11-26"),
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
    "composition": "python benchmarks/composition.py --steps 1000 --json FILE",
    "dit-peers": "python benchmarks/dit_peers.py --json FILE",
    "dit-peers-compiled": "python benchmarks/dit_peers.py --compile --json FILE",
    "dit-table": "minisora flops --table dit --json FILE",
    "faults": "python benchmarks/faults.py --json FILE",
    "loader": "python benchmarks/loader.py --json FILE",
    "memory": "python benchmarks/memory.py --json FILE",
    "onefile": "python benchmarks/judge_one_file.py --json FILE",
    "packing": "python benchmarks/packing.py --json FILE",
    "recaption": "python benchmarks/recaption.py --run runs/modes --json FILE; its options stand in the file",
    "report": "minisora report --preset measured --calibration CALIBRATION --out DIR",
    "vae-decoders": "python benchmarks/vae_decoders.py --json FILE",
    "vae-peers": "python benchmarks/vae_peers.py --to-db 28 --json FILE",
}
Row = list[str]


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
    sections = {title: make() for title, make in SECTIONS.items()}
    contents = " · ".join(f"[{title}](#{_anchor(title)})" for title in sections)
    parts = ["# Results", _INTRODUCTION, contents]
    for title, text in sections.items():
        parts += [f"## {title}", text]
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


def measured(theme: str) -> list[tuple[str, str, Any]]:
    """Machine, date and content of each file of a theme, the newest first."""
    files = [(path, *path.stem.split("_")) for path in RESULTS.glob(f"{theme}_*.json")]
    files.sort(key=lambda file: (file[3], file[2]), reverse=True)
    return [(MACHINES[machine], date, json.loads(path.read_text())) for path, _, machine, date in files]


def table(columns: str, rows: Iterable[Row]) -> str:
    """A Markdown table; `columns` are parted by bars, and those that begin with # are aligned right."""
    names = [name.strip() for name in columns.split("|")]
    lines = [[name.removeprefix("#") for name in names]]
    lines.append(["---:" if name.startswith("#") else "---" for name in names])
    for row in rows:
        assert len(row) == len(names), f"{len(row)} cells for {len(names)} columns: {row}"
        lines.append(row)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fixed(value: float | None, digits: int) -> str:
    """A number with so many digits after the point, or a dash."""
    return "–" if value is None else f"{value:,.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def of(score: dict[str, Any]) -> str:
    """How many are right of how many."""
    return f"{score['right']} of {score['total']}" if score["total"] else "–"


def interval(ends: Iterable[float], digits: int = 2) -> str:
    """An interval."""
    return " to ".join(fixed(end, digits) for end in ends)


def size(frames_height_width: list[int]) -> str:
    """Frames x height x width."""
    return "x".join(map(str, frames_height_width))


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def _made(*themes: str) -> str:
    return "\n".join(f"Made again with `{COMMANDS[theme]}`." for theme in themes)


def _minutes(name: str) -> str:
    """A time that no result file has: docs/log.md says it."""
    said = re.search(rf"Training time of `{name}`: (\d+) minutes", LOG.read_text())
    assert said, f"docs/log.md has no line 'Training time of `{name}`: N minutes'"
    return said[1]


# The shapes model


def _prompt_scores() -> list[tuple[str, dict[str, Any]]]:
    """Each checkpoint's scores by kind of prompt: plain, wall, light."""
    demos = [(name, read(f"{name}/demo")["prompts"]["kinds"]) for name in ("toy", "toy-long")]
    return [*demos, ("modes", read("modes/evaluate")["kinds"])]


def checkpoints() -> str:
    """Each checkpoint by kind of prompt."""
    rows = []
    for name, kinds in _prompt_scores():
        for kind, score in kinds.items():
            parts = ("color", "shape", "motion", "size", "light", "permanence", "all_right")
            ends = interval((100 * end for end in score["all_right"]["interval"]), 0)
            rows.append(
                [name, *FOLDERS[name], kind, *(of(score[part]) for part in parts), ends]
                + [of(score["held_out"]["all_right"])]
            )
    text = """One sample of each prompt. `toy` is what `minisora demo` trains, `toy-long` its hour, `modes` the shipped
checkpoint. Kinds: *plain* is every colour, shape and direction, *wall* passes behind a wall (permanence: the same
object comes out), *light* is by day or at night. Held out: triples that were never shown in training."""
    columns = (
        "checkpoint | machine | date | prompts | #colour | #shape | #motion | #size | #light | #permanence"
        " | #all right | #95 % interval, % | #held out, all right"
    )
    return f"{text}\n\n{table(columns, rows)}"


def vae_quality() -> str:
    """How well each checkpoint's VAE copies clips."""
    rows = []
    for name in ("toy", "toy-long"):
        demo = read(f"{name}/demo")
        quality, copied = demo["vae_quality"], demo["prompts"]["judge"]["reconstructed"]
        rows.append(
            [name, *FOLDERS[name], fixed(quality["psnr"], 2), fixed(quality["worst_psnr"], 2)]
            + [str(quality["num_clips"]), of(copied["all_right"])]
        )
    copied = read("modes/evaluate")["judge"]["reconstructed"]
    rows.append(["modes", *FOLDERS["modes"], "–", "–", "–", of(copied["all_right"])])
    columns = (
        "checkpoint | machine | date | #PSNR, dB | #worst clip, dB | #clips | #prompts that survive the VAE"
    )
    return table(columns, rows)


def training_times() -> str:
    """The demo's two stages."""
    seconds = read("toy/demo")["seconds"]
    row = ["toy", *FOLDERS["toy"], fixed(seconds["vae"], 0), fixed(seconds["dit"], 0)]
    text = "Other runs, and the checkpoints whose files hold no times: [the log](../docs/log.md)."
    columns = "checkpoint | machine | date | #VAE, s | #encoding and DiT, s"
    return f"{table(columns, [row])}\n\n{text}"


def one_file() -> str:
    """What the page-long script learns."""
    scores, captions = [], []
    for machine, date, content in measured("onefile"):
        seconds = fixed(content["cpu_seconds"], 0)
        for name, score in content["scores"].items():
            parts = ("color", "shape", "motion", "all_right")
            ends = interval((100 * end for end in score["all_right"]["interval"]), 0)
            scores.append([machine, date, seconds, name, *(of(score[part]) for part in parts), ends])
        for row in content["rows"][: content["scores"]["shown"]["all_right"]["total"]]:
            right = ("yes" if row[part] else "**no**" for part in ("color", "shape", "motion"))
            captions.append([machine, date, row["caption"], *right])
    text = """The gif of `scripts/one_file.py`, judged: *shown* are the captions that it films by default,
*all* every caption of its world. Nothing is held out there. Seconds are of one core, learning and filming all."""
    columns = "machine | date | #CPU time, s | captions | #colour | #shape | #motion | #all right | #95 % interval, %"
    first = table(columns, scores)
    second = table("machine | date | caption shown | colour | shape | motion", captions)
    return f"{text}\n{_made('onefile')}\n\n{first}\n\n{second}"


def sizes() -> str:
    """The shipped checkpoint at sizes and lengths."""
    rows = []
    for point in read("modes/sizes")["points"]:
        score = point["score"]
        # An image has no motion, and is not "all right" for want of one.
        image = point["size"][0] == 1
        parts = [percent(score[part]["share"]) for part in ("color", "shape", "motion", "all_right")]
        rows.append(
            [size(point["size"]), str(score["color"]["total"])]
            + ([*parts[:2], "–", "–"] if image else parts)
            + [percent(score["quality"]["leftovers"]), fixed(point["seconds_per_video"], 3)]
        )
    columns = (
        "frames x height x width | #samples | #colour | #shape | #motion | #all right"
        " | #frames with a second object | #s a video"
    )
    return f"`modes`, four samples of each plain prompt. {_where('modes')}\n\n{table(columns, rows)}"


def _where(folder: str) -> str:
    machine, date = FOLDERS[folder]
    return f"{machine}, {date}."


def steps() -> str:
    """Quality against sampling steps, of the shipped checkpoint and its student."""
    rows = []
    for name, folder in (("modes", "modes"), ("student of modes", "student")):
        for point in read(f"{folder}/steps")["points"]:
            rows.append(
                [name, *FOLDERS[folder], str(point["steps"]), str(point["passes"])]
                + [of(point["score"]["all_right"]), fixed(point["seconds_per_video"], 3)]
            )
    text = "The student is made by `minisora distill --model toy --config modes --samples 3000 --out RUN`."
    columns = "checkpoint | machine | date | #steps | #passes | #all right | #s a video"
    return f"{table(columns, rows)}\n\n{text}"


def editing() -> str:
    """The shipped checkpoint in every mode."""
    rows = []
    for mode, score in read("modes/modes")["modes"].items():
        for name, value in score.items():
            if not name.startswith("identity_at_frame_"):
                right = isinstance(value, dict)
                words = name.replace("_", " ").removesuffix(" db").removesuffix(" px").removesuffix(" mib")
                unit = next((unit for unit in ("dB", "px", "MiB") if name.endswith(f"_{unit.lower()}")), "")
                digits = 4 if name.startswith("seconds") else 0 if unit == "MiB" or name == "frames" else 2
                rows.append([mode, words, of(value) if right else fixed(value, digits), unit])
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
        for machine, date, content in measured(theme):
            for row in content["rows"]:
                if row["model"] != "VideoDiT":
                    ours = next(
                        other
                        for other in content["rows"]
                        if other["model"] == "VideoDiT"
                        and (other["what"], other["precision"]) == (row["what"], row["precision"])
                    )
                    rows.append(
                        [machine, date, compiled, row["what"], row["precision"], row["model"]]
                        + [fixed(row["times_ours"], 2), interval(row["times_ours_range"])]
                        + [percent(ours["share_of_peak"], 0), percent(row["share_of_peak"], 0)]
                    )
    settings = measured("dit-peers")[0][2]["settings"]
    shape = "Width {width}, {blocks} blocks, {tokens} tokens, batch {batch}.".format(**settings)
    text = f"""{shape}
*Factorised* attention is beside Latte's, *full* beside CogVideoX's. Above 1 ours is faster. "As each comes" is ours in
bf16, theirs in fp32. "Unfused": their faster kernel for attention. Shares are of the machine's own measured matmul
peak in that format."""
    columns = (
        "machine | date | compiled | what | format | peer | #time over ours | #range"
        " | #ours, share of peak | #peer's"
    )
    return f"{text}\n{_made('dit-peers', 'dit-peers-compiled')}\n\n{table(columns, rows)}"


def vae_speed() -> str:
    """Our VAE's time beside CogVideoX's and Wan's."""
    rows = []
    for machine, date, content in measured("vae-peers"):
        for row in content["rows"]:
            if row["model"] != "VideoVAE":
                rows.append(
                    [machine, date, row["what"], row["precision"], row["model"]]
                    + [fixed(row["times_ours"], 1), interval(row["times_ours_range"], 1)]
                    + [percent(row["share_of_peak"], 0)]
                )
    text = "VAEs of the same compression and about a million parameters each. Above 1 ours is faster."
    columns = "machine | date | what | format | peer | #time over ours | #range | #peer's share of peak"
    return f"{text}\n{_made('vae-peers')}\n\n{table(columns, rows)}"


def vae_race() -> str:
    """The same VAEs trained."""
    rows = []
    for machine, date, content in measured("vae-peers"):
        runs = content.get("training", [])
        for run in runs:
            best = max(point["psnr_db"] for point in run["history"])
            passed = next((p["seconds"] for p in runs[0]["history"] if p["psnr_db"] > best), None)
            rows.append(
                [machine, date, run["model"], f"{run['params'] / 1000000.0:.2f} M"]
                + [fixed(run["trained_s"], 0), fixed(best, 1), fixed(run["seconds_to_db"], 0)]
                + [fixed(passed, 0)]
            )
    text = "Trained alike at a constant rate in float32, until 28 dB on unseen clips or the time is over."
    columns = "machine | date | VAE | #parameters | #trained, s | #best PSNR, dB | #s to 28 dB | #s until ours leads"
    return f"{text}\n\n{table(columns, rows)}"


def memory() -> str:
    """Peak memory of train steps."""
    rows = [
        [machine, date, row["group"], row["model"], fixed(row["step_mib"], 0)]
        for machine, date, content in measured("memory")
        for row in content["rows"]
    ]
    text = f"Peak of a train step above the imports, float32.\n{_made('memory')}"
    return f"{text}\n\n{table('machine | date | what | model | #MiB', rows)}"


def packing() -> str:
    """Clips of several sizes in one step."""
    waste, times = [], []
    for machine, date, content in measured("packing"):
        waste += [
            [machine, date, str(row["batch"]), row["how"], percent(row["waste"])] for row in content["rows"]
        ]
        times += [
            [machine, date, str(row["capacity"]), row["model"], fixed(row["median_s"], 3)]
            + [fixed(row["times_ours"], 2)]
            for row in content["times"]
        ]
    text = f"Clips of six sizes in one step; on a CPU masks save nothing.\n{_made('packing')}"
    first = table("machine | date | #clips | how | #padding", waste)
    second = table("machine | date | #tokens a row | how | #s a step | #times a size at a time", times)
    return f"{text}\n\n{first}\n\n{second}"


def composition() -> str:
    """Training on whole clips against their middle squares."""
    rows = [
        [machine, date, row["trained_on"], size(row["size"]), percent(row["whole"], 0)]
        + [f"{row['all_right']} of {row['videos']}"]
        for machine, date, content in measured("composition")
        for row in content["rows"]
    ]
    steps = measured("composition")[0][2]["steps"]
    text = f"DiTs of {steps} steps trained on wide and tall clips as they are, native, or on their middle squares."
    columns = "machine | date | trained on | size | #frames that show the whole object | #all right"
    return f"{text}\n{_made('composition')}\n\n{table(columns, rows)}"


def captions() -> str:
    """The captioner, and what its captions are worth."""
    rows, trained = [], []
    for theme in ("recaption", "captioner"):
        for machine, date, content in measured(theme):
            for clips, score in content["captioner"].items():
                parts = ("color", "shape", "motion", "size", "light", "wall", "all")
                rows.append(
                    [machine, date, str(content["labelled"]), clips, str(score["clips"])]
                    + [percent(score[part]) for part in parts]
                )
            trained += [
                [machine, date, run["labels"], of(run["all_right"])]
                + [percent(run["all_right"]["share"])]
                + [interval((100 * end for end in run["all_right"]["interval"]), 1)]
                for run in content["dit"]
            ]
    columns = (
        "machine | date | #labels | judged on | #clips | #colour | #shape | #motion | #size | #light | #wall"
        " | #all right"
    )
    steps = measured("recaption")[0][2]["settings"]["steps"]
    text = (
        f"DiTs of {steps} steps with a tenth of the labels, with the captioner's for the rest, and with all:"
    )
    second = table("machine | date | trained with | #all right | #share | #95 % interval, %", trained)
    return f"{_made('recaption', 'captioner')}\n\n{table(columns, rows)}\n\n{text}\n\n{second}"


def loader() -> str:
    """Reading clips."""
    rows = [
        [machine, date, row["what"], str(row["count"]), fixed(row["seconds"], 2), fixed(row["per_s"], 0)]
        for machine, date, content in measured("loader")
        for row in content["rows"]
    ]
    return f"{_made('loader')}\n\n{table('machine | date | what | #clips | #s | #clips a second', rows)}"


def faults() -> str:
    """The campaign of faults."""
    rows, headings = [], []
    for machine, date, content in measured("faults"):
        summary = content["summary"]
        headings.append(f"Commit {content['commit']}.")
        for part in dict.fromkeys(row["part"] for row in summary):
            members = [row for row in summary if row["part"] == part]
            tried, right = (sum(row[key] for row in members) for key in ("tried", "right"))
            struck = sum(row.get(key, 0) for row in members for key in ("kills", "full", "short", "refused"))
            where = ", ".join(row["what"] for row in members)
            rows.append([machine, date, part, where, str(tried), str(struck), f"{right} of {tried}"])
        tried, right = (sum(row[key] for row in summary) for key in ("tried", "right"))
        rows.append([machine, date, "all", "–", str(tried), "–", f"{right} of {tried}"])
    text = """Right: after a kill the same command ends with the same losses bit for bit; after a full disk, short
memory or a malformed input there is one line and exit code 1 or 2, and nothing is lost. *Struck*: kills; trials in
which the disk was full or memory short; inputs that were refused (the others are legal in spite of the change)."""
    columns = "machine | date | fault | in | #trials | #struck | #right"
    return f"{text}\n{' '.join(headings)} {_made('faults')}\n\n{table(columns, rows)}"


# The ladder


def ladder_budgets() -> str:
    """The best run of each budget."""
    runs = _ladder()
    rows = []
    for times in sorted({run["times"] for run in runs}):
        tried = [run for run in runs if run["times"] == times and run["axis"] == "isoflop"]
        best = min(tried, key=lambda run: run["loss"])
        rows.append(
            [f"{times:g}", f"{best['flops']:.3g}", str(len(tried)), str(best["width"])]
            + [f"{best['params']:,}", fixed(best["loss"], 3)]
            + [f"{best['right']['all_right']} of {best['prompts']}"]
        )
    columns = "#budget over the smallest | #FLOPs | #runs | #best width | #parameters | #its loss | #prompts all right"
    text = f"{len(runs)} runs, float32, by `minisora scale run --ladder cpu --jobs 2 --out runs/ladder`."
    return f"{text} {_where('ladder')}\n\n{table(columns, rows)}"


def _ladder() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RESULTS / "ladder" / "results.jsonl").read_text().splitlines()]


def ladder_laws() -> str:
    """The laws fitted to the ladder."""
    law = read("ladder/law")
    rows = []
    for name in ("size_law", "budget_law", "loss_law"):
        fit = law[name]
        for constant, value in fit["constants"].items():
            ends = fit["intervals"].get(constant)
            rows.append(
                [fit["formula"], constant, f"{value:.4g}"]
                + [" to ".join(f"{end:.4g}" for end in ends) if ends else "–"]
            )
    held = law["held_out"]
    noise, beyond = percent(law["noise"]["relative"]), interval(law["optimal"]["decades_beyond_data"][::2], 1)
    loss, predicted, error = fixed(held["loss"], 4), fixed(held["predicted"], 4), percent(held["error"])
    text = f"""90 % intervals from the spread over seeds ({noise} of a loss). The largest budget, held out, has a loss
of {loss}; the law of the others says {predicted} ({error}). Sora's size is {beyond} decades beyond these runs."""
    return f"{text}\n\n{table('law | constant | #value | #90 % interval', rows)}"


def ladder_axes() -> str:
    """The ladder's learning rates and repeated data."""
    runs = _ladder()
    rate = [
        [str(run["width"]), f"{run['lr']:g}", fixed(run["loss"], 3)]
        for run in sorted(runs, key=lambda run: (run["width"], run["lr"]))
        if run["times"] == 1 and run["epochs"] == 1 and run["seed"] == 0
        if run["width"] in {other["width"] for other in runs if other["axis"] == "rate"}
    ]
    repeated = {(run["width"], run["times"]) for run in runs if run["axis"] == "repetition"}
    seen = [
        [f"{run['epochs']:g}", str(run["seed"]), f"{run['clips']:,}", fixed(run["loss"], 3)]
        for run in sorted(runs, key=lambda run: (run["epochs"], run["seed"]))
        if (run["width"], run["times"]) in repeated
    ]
    first = table("#width | #learning rate | #loss", rate)
    second = table("#times each clip is seen | #seed | #clips | #loss", seen)
    return f"{first}\n\n{second}"


# What models cost


def dit_table() -> str:
    """The DiT paper's models, published against counted."""
    rows = []
    for _, date, content in measured("dit-table"):
        for row in content["rows"]:
            rows.append(
                [date, row["name"], fixed(row["published_gmacs"], 2), fixed(row["gmacs"], 3)]
                + [f"{100 * row['error']:+.2f} %", fixed(row["params"] / 1000000.0, 2)]
                + [_agree(row["counts"])]
            )
    text = "The DiT paper's models, 256x256 but the last, GMACs of one pass. 1 MAC = 2 FLOPs."
    columns = "date | model | #published | #counted | #difference | #parameters, M | the three counts agree"
    return f"{text} {_made('dit-table')}\n\n{table(columns, rows)}"


def _agree(counts: dict[str, float]) -> str:
    return "yes" if len(set(counts.values())) == 1 else "no"


def other_models() -> str:
    """MACs of other models, and the toy."""
    rows = []
    for _, date, content in measured("cogvideox"):
        rows.append(
            [date, f"{content['name']}, latents {size(content['latent_size'])}"]
            + [f"{content['params'] / 1000000.0:,.1f}"]
            + [fixed(content["forward"]["macs"] / 1000000000.0, 1)]
        )
    for name, part in read("toy/flops")["components"].items():
        text = f"toy: {name.replace('_', ' ')}"
        rows.append([FOLDERS["toy"][1], text, f"{part['params'] / 1e6:.2f}", fixed(part["macs"] / 1e9, 4)])
    for _, date, content in measured("vae-decoders"):
        for row in content["decoders"]:
            name = f"{row['model']}, decoder, video {size(row['video'][2:])}"
            rows.append([date, name, f"{row['decoder_params'] / 1e6:.1f}", fixed(row["macs"] / 1e9, 1)])
    train = read("toy/flops")["train_step"]
    cases = [[name.replace("_", " "), fixed(c["ratio_to_forward"], 3)] for name, c in train["cases"].items()]
    text = "The toy's train step over its forward pass, in FLOPs:"
    first = table("date | model, one pass | #parameters, M | #GMACs", rows)
    second = table("train step | #over forward", cases)
    return f"{_made('cogvideox', 'vae-decoders')}\n\n{first}\n\n{text}\n\n{second}"


def utilisation() -> str:
    """The toy's share of this machine's peak."""
    rows = [
        [*FOLDERS["toy"], row["name"], str(row["batch"]), fixed(1000 * row["seconds"], 1)]
        + [fixed(row["measured_peak"] / 1000000000.0, 0), percent(row["mfu_measured"])]
        for row in read("toy/flops-time")["rows"]
    ]
    text = "The toy in float32, by `minisora flops --config toy --device cpu --time`."
    columns = "machine | date | what | #batch | #ms | #measured peak, GFLOP/s | #share of it"
    return f"{text}\n\n{table(columns, rows)}"


def cost_laws() -> str:
    """How well the cost laws predict held-out passes."""
    rows = []
    for machine, date, content in measured("calibration"):
        for name, law in content["laws"].items():
            rows.append(
                [machine, date, name.replace("_", " ")]
                + [f"{law['fitted_points']} + {law['held_out_points']}"]
                + [percent(law["held_out_median"], 2), percent(law["held_out_error"], 2)]
            )
    columns = "machine | date | law | #points, fitted + held out | #held out, median error | #worst"
    return f"{_made('calibration')}\n\n{table(columns, rows)}"


def claims() -> str:
    """The published estimate, claim by claim."""
    rows = []
    for _, _, content in measured("report"):
        for name, claim in content["claims"].items():
            values = [claim[key] for key in ("published", "recomputed", "corrected", "measured")]
            ends = claim["interval"]
            rows.append(
                [
                    name.replace("_", " "),
                    claim["unit"].replace(" as published, FLOPs as corrected and measured", "*"),
                ]
                + [_short(value) for value in values]
                + ["yes" if claim["follows"] else "**no**"]
                + [f"{_short(ends[0])} to {_short(ends[-1])}" if ends else "–"]
            )
    text = "*MACs as published and recomputed, FLOPs as corrected and measured. The interval is 5 to 95 %."
    columns = "claim | unit | #published | #recomputed | #corrected | #measured | follows from its inputs | #interval"
    return f"{_made('report')} {text}\n\n{table(columns, rows)}"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"


def sora_pass() -> str:
    """A pass of Sora by the cost law."""
    rows = [
        [name, _short(step["macs_per_step"]), fixed(step["over_per_frame_rule"], 2)]
        + [fixed(step["decades_beyond_largest_point"], 1)]
        for _, _, content in measured("report")
        for name, step in content["measured_here"]["sora_step"].items()
    ]
    columns = (
        "attention | #MACs a pass | #over the published rule | #decades beyond the largest measured pass"
    )
    return f"A model of the report's size on its clip, by the cost law.\n\n{table(columns, rows)}"


def backtest() -> str:
    """Disclosed times of other models, predicted."""
    rows, implied = [], []
    for _, _, content in measured("report"):
        for row in content["backtest"]:
            if row["seconds"] and row["seconds_disclosed"]:
                rows.append(
                    [row["model"], row["case"], _short(row["seconds_disclosed"])]
                    + [_short(row["seconds"]), fixed(row["seconds"] / row["seconds_disclosed"], 2)]
                    + [fixed(row["seconds_disclosed"] / row["naive_seconds"], 0)]
                )
        found = content["backtest_implies"]
        for what in ("time_correction", "naive_time_correction", "training_correction"):
            implied.append(
                [what.replace("_", " "), str(found[f"models_in_{what}"]), fixed(found[what], 2)]
                + [interval(found[f"{what}_range"]), interval(found[f"{what}_interval"])]
            )
    text = "Disclosed over predicted, a model of several cases once; *naive* is the published rule:"
    columns = (
        "model | case | #s disclosed | #s predicted | #predicted over disclosed | #disclosed over the rule's"
    )
    second = table("quantity | #models | #median | #range | #90 % interval", implied)
    return f"Each predicted from the others.\n\n{table(columns, rows)}\n\n{text}\n\n{second}"


# The README's


def how_good() -> str:
    """The README's scores."""
    seconds = read("toy/demo")["seconds"]
    minutes = [fixed((seconds["vae"] + seconds["dit"]) / 60, 1), _minutes("toy-long"), _minutes("modes")]
    kinds = [kinds for _, kinds in _prompt_scores()]
    judges = [read(f"{name}/demo")["prompts"]["judge"] for name in ("toy", "toy-long")]
    judges.append(read("modes/evaluate")["judge"])
    rows = [
        ["colour, shape and motion all right", *(of(kind["plain"]["all_right"]) for kind in kinds)],
        [
            "of these, combinations never shown",
            *(of(kind["plain"]["held_out"]["all_right"]) for kind in kinds),
        ],
        ["the same object after a wall", *(of(kind["wall"]["permanence"]) for kind in kinds)],
        ["by day or at night, all right", *(of(kind["light"]["all_right"]) for kind in kinds)],
        [
            "prompts that survive the VAE alone",
            *(of(judge["reconstructed"]["all_right"]) for judge in judges),
        ],
        ["training, minutes", *minutes],
    ]
    return table("| #`toy` | #`toy-long` | #`modes`, the shipped one", rows)


def costs() -> str:
    """The README's costs."""
    xl = measured("dit-table")[0][2]["rows"][-1]
    report = measured("report")[0][2]
    wrong = sum(not claim["follows"] for claim in report["claims"].values())
    low, high = (report["claims"][f"sora_training_h100_months_{end}"] for end in ("low", "high"))
    full = report["measured_here"]["sora_step"]["full"]
    implied = report["backtest_implies"]
    months, mended = (f"{_short(low[key])} to {_short(high[key])}" for key in ("published", "corrected"))
    counted, printed = fixed(xl["gmacs"], 2), fixed(xl["published_gmacs"], 2)
    models, others = implied["models_in_time_correction"], interval(implied["time_correction_range"])
    ours = fixed(full["over_per_frame_rule"], 2)
    lines = [
        f"One pass of DiT-XL/2 at 512x512 is {counted} GMACs; its paper prints {printed}.",
        f"""In a published estimate of Sora {wrong} numbers do not follow from its own inputs. Mended, its {months}
  H100-months of training are {mended}; a pass with full attention costs {ours} times its rule.""",
        f"""Each of {models} disclosed models on an H100 takes {others} times what the others predict; by the
  published rule, {interval(implied["naive_time_correction_range"], 0)} times.""",
    ]
    return "\n".join(f"- {line}" for line in lines)


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
    "One file": one_file,
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
    "One file": "one_file.gif",
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
