"""The result file of runs of clips: what `minisora train --minutes` planned and `minisora evaluate run` found.

    python benchmarks/record_clips.py games --out clips/games --each 40
    time minisora train --data clips/games --minutes 20 --out RUN
    minisora evaluate run RUN
    python benchmarks/run_result.py RUN --data games --seconds 1262 --json FILE

A file that is there gets one run more; one of the same data and minutes takes the place of the one before. Run it on
the machine that trained: the file names the machine it is run on.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import torch

from minisora.config import load
from minisora.config_files import of_run
from minisora.files import read_json, write_json
from minisora.flops.device import describe_device


def main() -> None:
    """Write what the result page shows of RUN/plan.json and RUN/evaluation.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--data", required=True, help="what the clips are, in a word")
    parser.add_argument("--seconds", type=float, required=True, help="wall time of the training command")
    parser.add_argument("--json", type=Path, required=True, help="write the result here")
    arguments = parser.parse_args()
    evaluation, plan = (read_json(arguments.run / f"{name}.json") for name in ("evaluation", "plan"))
    moving = evaluation["motion"]["by_caption"]
    rows = [
        {
            "caption": caption,
            "psnr_moving": copies["psnr_moving"],
            "held_out": copies["real"],
            "copies": copies["copies"],
            "copies_ratio": copies["ratio"],
            # None of a caption of which there is no sample, as the model knows none of its words.
            "real": moving.get(caption, {}).get("real"),
            "samples": moving.get(caption, {}).get("samples"),
            "samples_ratio": moving.get(caption, {}).get("ratio"),
        }
        for caption, copies in evaluation["vae"]["by_caption"].items()
    ]
    vae = {key: value for key, value in evaluation["vae"].items() if key != "by_caption"}
    config = load(of_run(arguments.run))
    run = {
        "data": arguments.data,
        "token": config.dit.patch[1] * config.vae.spatial_factor,
        "minutes": plan["minutes"],
        "minutes_taken": arguments.seconds / 60,
        "device": plan["device"],
        "plan": {key: plan[key] for key in ("stages", "dit", "encoding")},
        "vae": vae,
        "captions": {
            key: (evaluation["captions"] or {}).get(key) for key in ("samples", "real", "copies", "chance")
        },
        "motion": evaluation["motion"]["distance"],
        # Of few clips there is none.
        "frechet": evaluation["frechet"]["latents"] if evaluation["frechet"] else None,
        "memorisation": evaluation["memorisation"]["finding"],
        "verdict": evaluation["verdict"]["sentence"],
        "advice": evaluation["advice"],
        "rows": rows,
    }
    before = read_json(arguments.json)["runs"] if arguments.json.is_file() else []
    others = [each for each in before if (each["data"], each["minutes"]) != (run["data"], run["minutes"])]
    write_json(
        arguments.json,
        {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_device("cpu", torch.bfloat16),
            "runs": sorted([*others, run], key=lambda each: (each["data"], each["minutes"])),
        },
    )


if __name__ == "__main__":
    main()
