"""Whether a digit stays the digit of its caption in every frame that a model samples.

    python benchmarks/record_clips.py digits --out clips/digits --each 170
    minisora train --data clips/digits --minutes 30 --out RUN
    python benchmarks/digit_identity.py RUN --guidance 2 5 --json FILE

The judge is a classifier of single frames, learned from the frames of the run's training clips. It knows nothing of
the model, and its own accuracy stands beside: on frames of held-out clips, in which there is writing that neither it
nor the model has seen, and on the VAE's copies of them.

frames     share of frames that show the digit of the caption
every      share of clips of which every frame does
kept       share of clips of which every frame shows one digit, whichever it is
"""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from record_clips import DIGITS
from torch import Tensor, nn
from torch.nn import functional as F

from minisora.data.clips import to_float
from minisora.evaluate.memorisation import run_clips
from minisora.evaluate.sample_and_judge import reconstruct
from minisora.files import read_json, write_json
from minisora.flops.device import describe_device
from minisora.pipelines.model_folder import load_pipeline

# Pixels per side around the digit's centre that the classifier looks at.
WINDOW = 32
EPOCHS, BATCH = 6, 128


def windows(videos: Tensor) -> Tensor:
    """What is bright in every frame and its surroundings: (B T) 1 WINDOW WINDOW of clips B 3 T H W in [-1, 1]."""
    frames = (videos.mean(dim=1).flatten(0, 1) + 1) / 2  # (B T) H W
    half = WINDOW // 2
    weights = F.pad(frames, (half,) * 4)
    light = weights.where(weights > 0.2, 0.0)
    total = light.sum(dim=(1, 2)).clamp_min(1e-6)
    rows = torch.arange(light.shape[1], dtype=light.dtype)
    columns = torch.arange(light.shape[2], dtype=light.dtype)
    y = ((light.sum(2) @ rows) / total).round().long().clamp(half, light.shape[1] - half)
    x = ((light.sum(1) @ columns) / total).round().long().clamp(half, light.shape[2] - half)
    cut = [
        frame[top : top + WINDOW, left : left + WINDOW]
        for frame, top, left in zip(weights, (y - half).tolist(), (x - half).tolist(), strict=True)
    ]
    return torch.stack(cut).unsqueeze(1)


def digit_of(caption: str) -> int:
    """The digit that a caption names."""
    return DIGITS.index(caption.split()[-1])


def classifier() -> nn.Sequential:
    """Scores of ten digits for windows, N 10."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64 * 16, 10),
    )


def learn(frames: Tensor, digits: Tensor) -> nn.Module:
    """A classifier of windows N 1 H W, learned from moved and blurred ones: samples are softer than what is drawn."""
    torch.manual_seed(0)
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    steps = EPOCHS * (len(frames) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(frames), (BATCH,))
        batch = frames[chosen].roll((int(torch.randint(-2, 3, ())), int(torch.randint(-2, 3, ()))), (2, 3))
        if torch.rand(()) < 0.5:
            batch = F.avg_pool2d(batch, 3, 1, 1)
        loss = F.cross_entropy(model(batch * (0.7 + 0.6 * torch.rand(()))), digits[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def judge(model: nn.Module, videos: Tensor, captions: Sequence[str]) -> dict[str, float]:
    """The three shares of clips B 3 T H W in [-1, 1]."""
    guesses = model(windows(videos)).argmax(1).view(len(videos), -1)  # B T
    right = guesses == torch.tensor([digit_of(caption) for caption in captions])[:, None]
    return {
        "frames": right.float().mean().item(),
        "every": right.all(1).float().mean().item(),
        "kept": (guesses == guesses[:, :1]).all(1).float().mean().item(),
    }


def main() -> None:
    """Learn the classifier, sample, and judge real clips, copies and samples."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--samples", type=int, default=100, help="ten digits in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, nargs="+", help="of the samples; default: the model's own")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    training, held_out = run_clips(arguments.run)
    pipeline = load_pipeline(arguments.run / "model")
    parts, digits = [], []
    for start in range(0, len(training), 32):
        indices = range(start, min(start + 32, len(training)))
        parts.append(windows(to_float(training.clips(indices))))
        digits += [digit_of(training.captions()[index]) for index in indices]
    frames = torch.cat(parts)
    of_frame = torch.tensor(digits).repeat_interleave(len(frames) // len(digits))
    model = learn(frames, of_frame)

    real = to_float(held_out.clips(range(len(held_out))))
    copies = torch.cat([reconstruct(pipeline.vae, part) for part in real.split(8)])
    prompts = [f"the digit {DIGITS[index % 10]}" for index in range(arguments.samples)]
    result = {
        "held-out clips": judge(model, real, held_out.captions()),
        "their copies": judge(model, copies, held_out.captions()),
    }
    for guidance in arguments.guidance or [pipeline.config.default_guidance]:
        samples = [
            pipeline(
                prompts[start : start + 10],
                guidance_scale=guidance,
                seed=arguments.seed + start,
                progress=False,
            ).videos.cpu()
            for start in range(0, len(prompts), 10)
        ]
        result[f"samples, guidance {guidance:g}"] = judge(model, torch.cat(samples), prompts)
    for name, shares in result.items():
        print(f"{name:22}", "  ".join(f"{what} {share:.1%}" for what, share in shares.items()))
    if arguments.json:
        plan = arguments.run / "plan.json"
        write_json(
            arguments.json,
            {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": describe_device("cpu", torch.bfloat16),
                "minutes": read_json(plan)["minutes"] if plan.is_file() else None,
                "training_clips": len(training),
                "held_out_clips": len(held_out),
                "samples": len(prompts),
                "rows": [{"of": name, **shares} for name, shares in result.items()],
            },
        )


if __name__ == "__main__":
    main()
