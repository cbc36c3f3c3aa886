"""Which sampler, how many steps, and where guidance is worth its second pass: judged on the same prompts and noise.

    python benchmarks/samplers.py --model runs/modes/model --json benchmarks/results/samplers_MACHINE_DATE.json
    python benchmarks/samplers.py --model runs/modes/model --quick

Passes are evaluations of the DiT for one video. Heun takes two a step; guidance doubles a pass. A guidance interval
(Kynkaanniemi et al. 2024, arXiv 2404.07724) guides only at noise levels within it: sigma = 1 is noise.
"""

import argparse
import time
from pathlib import Path

from interleave import facts, write
from rich.console import Console
from rich.table import Table

from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.sample_and_judge import evaluate_pipeline
from minisora.flow.schedules import make_scheduler
from minisora.pipelines.model_folder import load_pipeline

SCHEDULERS = ("euler", "heun", "dpm++")
STEPS = (4, 8, 16, 24)
INTERVALS = ((0.0, 1.0), (0.3, 1.0), (0.6, 1.0), (0.8, 1.0), (0.0, 0.8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="toy", help="a model of the shapes world (default: toy)")
    parser.add_argument("--quick", action="store_true", help="4 steps, 12 prompts: only that it runs")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, atomically")
    arguments = parser.parse_args()
    result = facts()
    pipeline = load_pipeline(arguments.model)
    prompts = prompt_set("72")[:12] if arguments.quick else prompt_set("72")
    steps = STEPS[:1] if arguments.quick else STEPS
    trials = [(name, number, (0.0, 1.0)) for name in SCHEDULERS for number in steps]
    trials += [("euler", steps[-1], interval) for interval in INTERVALS[1:]]
    table = Table(title=f"{arguments.model}: {len(prompts)} prompts each", title_justify="left")
    for head in ("scheduler", "steps", "guided sigma", "passes", "all right", "s a video"):
        table.add_column(head, justify="left" if head == "scheduler" else "right")
    rows = []
    for name, number, (low, high) in trials:
        pipeline.scheduler = make_scheduler(name, pipeline.config.sigma_shift)
        seen: list[int] = []
        hook = pipeline.dit.register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(len(inputs[0]))
        )
        start = time.perf_counter()
        score = evaluate_pipeline(pipeline, prompts, 0, 24, number, guidance_interval=(low, high))[
            2
        ].all_right
        seconds = (time.perf_counter() - start) / len(prompts)
        hook.remove()
        row = {
            "scheduler": name,
            "steps": number,
            "guidance_interval": [low, high],
            "passes": sum(seen) / len(prompts),
            "right": score.right,
            "prompts": score.total,
            "interval": list(score.interval),
            "seconds_per_video": seconds,
        }
        rows.append(row)
        table.add_row(
            name,
            str(number),
            f"{low:g} to {high:g}",
            f"{row['passes']:.0f}",
            f"{score.right}/{score.total} = {score.share:.1%}",
            f"{seconds:.2f}",
        )
    Console(width=110).print(table)
    if arguments.json:
        write(arguments.json, {**result, "model": str(arguments.model), "rows": rows})


if __name__ == "__main__":
    main()
