"""The result file of a run of clips: what `minisora train --minutes` planned and `minisora evaluate run` found.

python benchmarks/record_clips.py games --out clips/games --each 40
minisora train --data clips/games --minutes 20 --out RUN       # note its wall time
minisora evaluate run RUN
python benchmarks/run_result.py RUN --data games --seconds 1262 --json FILE
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import torch

from minisora.files import read_json, write_json
from minisora.flops.device import describe_device


def main() -> None:
    """Condense the two files of a run into one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True, help="what the clips are, in a word")
    parser.add_argument("--seconds", type=float, required=True, help="wall time of the training command")
    parser.add_argument("--json", type=Path, required=True)
    told = parser.parse_args()
    found, plan = (read_json(told.run / f"{name}.json") for name in ("evaluation", "plan"))
    moving = found["motion"]["by_caption"]
    rows = [
        {
            "caption": caption,
            "psnr_moving": copies["psnr_moving"],
            "held_out": copies["real"],
            "copies": copies["copies"],
            "copies_ratio": copies["ratio"],
            "real": moving[caption]["real"],
            "samples": moving[caption]["samples"],
            "samples_ratio": moving[caption]["ratio"],
        }
        for caption, copies in found["vae"]["by_caption"].items()
    ]
    vae = {key: value for key, value in found["vae"].items() if key != "by_caption"}
    write_json(
        told.json,
        {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_device("cpu", torch.bfloat16),
            "data": told.data,
            "minutes": plan["minutes"],
            "minutes_taken": told.seconds / 60,
            "plan": {key: plan[key] for key in ("stages", "dit", "encoding")},
            "vae": vae,
            "captions": {key: found["captions"][key] for key in ("samples", "real", "copies", "chance")},
            "motion": found["motion"]["distance"],
            "frechet": found["frechet"]["latents"],
            "memorisation": found["memorisation"]["finding"],
            "verdict": found["verdict"]["sentence"],
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
