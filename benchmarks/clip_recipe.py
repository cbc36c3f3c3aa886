"""What keeps small moving things alive in a VAE: settings of configs/clips.yaml added one by one, at equal CPU time.

    python benchmarks/record_clips.py games --out clips/games --each 40
    python benchmarks/clip_recipe.py --data clips/games --seconds 100 --json FILE

    python benchmarks/clip_recipe.py --data clips/few --vae RUN/vae/model --seconds 120 --json FILE

With --vae it is what keeps a DiT from learning few clips by heart: settings of the DiT and of its clips, on the latents
of that VAE. `best` is the least validation loss of averaged weights on the way, which keep=best takes, `last` that of
the end, which keep=last takes.

One thread a variant, the seconds are of the process's CPU, so that variants may run beside each other (`--jobs`).
Noise on the latents and the weight of the KL are the config's in all of them.

Of held-out clips, with averaged weights:

psnr       in dB; `moving` of pixels further than a tenth of the range from their clip's median frame alone
activity   share of pixels that change by more than a tenth of the range from frame to frame; `activity_of_copies`
           the same of the VAE's copies
"""

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from rich.console import Console

from minisora.config import Config, load
from minisora.data.clips import to_float
from minisora.data.dataset import open_dataset
from minisora.evaluate.likeness import activity, psnr, psnr_moving
from minisora.evaluate.sample_and_judge import reconstruct
from minisora.files import write_json
from minisora.flops.device import describe_device
from minisora.training.dit_task import DiTTask
from minisora.training.latents import build_latents
from minisora.training.optimizer import make_optimizer
from minisora.training.stages import load_vae, settle_text
from minisora.training.tasks import Task
from minisora.training.vae_task import VAETask

PLAIN: dict[str, Any] = {
    "vae.temporal_factor": 4,
    "vae.spatial_factor": 8,
    "vae.widths": (64, 128),
    "vae.latent_channels": 8,
    "train_vae.moving_weight": 1.0,
    "train_vae.moving_crops": 0.0,
}
WEIGHT = PLAIN | {"train_vae.moving_weight": 10.0}
CHANNELS = WEIGHT | {"vae.latent_channels": 16}
CROPS = CHANNELS | {"train_vae.moving_crops": 0.5}
FRAMES = CROPS | {"vae.temporal_factor": 2}
CELLS = FRAMES | {"vae.spatial_factor": 4, "vae.widths": (96,), "vae.latent_channels": 4}
VARIANTS: dict[str, dict[str, Any]] = {
    "as the toy": PLAIN,
    "moving pixels count 10 times": WEIGHT,
    "and 16 channels": CHANNELS,
    "and half the crops on what moves": CROPS,
    "and frames halved once": FRAMES,
    "and cells of 4x4 pixels and 4 channels": CELLS,
    "and 8 channels": CELLS | {"vae.latent_channels": 8},
    "cells of 4x4, width 64": CELLS | {"vae.widths": (64,)},
    "cells of 4x4, moving pixels once": CELLS | {"train_vae.moving_weight": 1.0},
    "cells of 4x4, moving pixels 20 times": CELLS | {"train_vae.moving_weight": 20.0},
    "cells of 4x4, squared error alone": CELLS | {"train_vae.l2_share": 1.0},
    "cells of 4x4, no noise on the latents": CELLS | {"train_vae.latent_noise": 0.0},
    "as the toy, begun with the toy's VAE": PLAIN | {"train_vae.init": "toy"},
}


DIT_VARIANTS: dict[str, dict[str, Any]] = {
    "as clips": {},
    "dropout 0.1": {"dit.dropout": 0.1},
    "weight decay 0.1": {"train_dit.weight_decay": 0.1},
    "3 views, moved by up to 4 pixels": {"data.augment": {"views": 3, "shift": 4}},
    "3 views, moved and in other colours": {"data.augment": {"views": 3, "shift": 4, "color": 0.1}},
    "clips that overlap by seven tenths": {"data.overlap": 0.7},
}


def fit(task: Task, budget: float, validations: int = 0) -> tuple[int, list[float]]:
    """Train for `budget` seconds of CPU, then leave the averaged weights in the model.

    Returns:
        Steps, and the loss of so many validations at equal distances, the last of them at the end.
    """
    settings, dtype = task.settings, torch.bfloat16
    optimizer = make_optimizer(task.model, settings, dtype)
    average = EMAModel(list(task.model.parameters()), decay=0.995, foreach=True)
    losses: list[float] = []

    def validate() -> None:
        average.store(task.model.parameters())
        average.copy_to(task.model.parameters())
        with torch.no_grad(), torch.autocast("cpu", dtype):
            sums = task.validate(task.model.eval(), 0, 1)
        losses.append((sums["loss"] / sums["count"]).item())
        average.restore(task.model.parameters())
        task.model.train()

    spent, step = 0.0, 0
    while (share := spent / budget) < 1:
        start = time.process_time()
        falling = 1.0 if share < 1 - settings.decay_share else max(0.05, (1 - share) / settings.decay_share)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * falling * min(1.0, (step + 1) / 50)
        batch = task.source.at(range(step * settings.batch_size, (step + 1) * settings.batch_size))
        with torch.autocast("cpu", dtype):
            loss, _ = task.loss(task.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        average.step(task.model.parameters())
        step += 1
        spent += time.process_time() - start
        if validations and spent > budget * (len(losses) + 1) / validations:
            validate()
    if validations:
        validate()
    average.copy_to(task.model.parameters())
    return step, losses


def train(config: Config, budget: float) -> dict[str, Any]:
    """Train one VAE for `budget` seconds of CPU; its steps, and what `judge` measures of it."""
    training, held_out = (open_dataset(config, split) for split in ("train", "validation"))
    task = VAETask(config, training, held_out)
    task.memory.fill()
    steps, _ = fit(task, budget)
    return {"steps": steps, **judge(task, to_float(held_out.clips(range(len(held_out)))))}


def train_dit(config: Config, budget: float, model: Path) -> dict[str, Any]:
    """Train one DiT for `budget` seconds of CPU on latents of a VAE, which are made first; its validation losses."""
    vae = load_vae(model)
    training, held_out = (open_dataset(config, split) for split in ("train", "validation"))
    with TemporaryDirectory() as folder:
        captions = [*training.captions(), *held_out.captions()]
        config = settle_text(config, captions, Path(folder))
        sources = [
            build_latents(config, vae, dataset, Path(folder), Console(quiet=True), name)
            for name, dataset in (("training", training), ("validation", held_out))
        ]
        task = DiTTask(config, vae, *sources)
        steps, losses = fit(task, budget, validations=12)
    return {"steps": steps, "clips": len(training), "best": min(losses), "last": losses[-1], "losses": losses}


@torch.no_grad()
def judge(task: VAETask, videos: torch.Tensor) -> dict[str, float]:
    """Means over held-out clips, N 3 T H W in [-1, 1]; of what moves over those in which something does."""
    task.set_statistics(task.model.eval())
    copies = reconstruct(task.model, videos)
    moving = psnr_moving(copies, videos)
    return {
        "psnr": psnr(copies, videos).mean().item(),
        "moving": moving[moving.isfinite()].mean().item(),
        "activity": activity(videos).mean().item(),
        "activity_of_copies": activity(copies).mean().item(),
    }


def main() -> None:
    """Run all variants, or one in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--seconds", type=float, default=100, help="of CPU, for each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes beside each other")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument(
        "--vae", type=Path, help="model folder of a VAE: variants of the DiT on its latents instead"
    )
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    variants = VARIANTS if arguments.vae is None else DIT_VARIANTS
    if arguments.only:
        torch.set_num_threads(1)
        changes = variants[arguments.only] | {
            "data.source": "folder",
            "data.path": arguments.data,
            "seed": arguments.seeds[0],
        }
        config = load("clips", changes=changes)
        if arguments.vae is None:
            print(json.dumps(train(config, arguments.seconds)))
        else:
            print(json.dumps(train_dit(config, arguments.seconds, arguments.vae)))
        return
    waiting = [(name, seed) for name in variants for seed in arguments.seeds]
    running: list[tuple[str, int, subprocess.Popen[str]]] = []
    rows = []
    machine = describe_device("cpu", torch.bfloat16)
    while waiting or running:
        while waiting and len(running) < arguments.jobs:
            name, seed = waiting.pop(0)
            command = [
                sys.executable,
                __file__,
                "--data",
                str(arguments.data),
                "--seconds",
                str(arguments.seconds),
            ]
            command += ["--seeds", str(seed), "--only", name]
            command += [] if arguments.vae is None else ["--vae", str(arguments.vae)]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            running.append((name, seed, process))
        name, seed, process = running.pop(0)
        output, _ = process.communicate()
        # What went wrong is on the screen; the others are worth their time.
        if process.returncode != 0:
            print(f"{name}, seed {seed}: no result")
            continue
        row = {"variant": name, "seed": seed, **json.loads(output.splitlines()[-1])}
        rows.append(row)
        shown = ("psnr", "moving") if arguments.vae is None else ("best", "last")
        print(f"{name}, seed {seed}, {row['steps']} steps:", *(f"{key} {row[key]:.3f}" for key in shown))
        if arguments.json:
            write_json(
                arguments.json,
                {
                    "date": datetime.now(UTC).isoformat(timespec="seconds"),
                    "threads_a_variant": 1,
                    "machine": machine,
                    "cpu_seconds": arguments.seconds,
                    "data": arguments.data.name,
                    "rows": rows,
                },
            )


if __name__ == "__main__":
    main()
