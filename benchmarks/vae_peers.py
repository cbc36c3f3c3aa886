"""VideoVAE beside the diffusers VAEs of CogVideoX and Wan at equal compression, timed A B A B in one run.

    python benchmarks/vae_peers.py --json benchmarks/results/vae-peers_MACHINE_DATE.json
    python benchmarks/vae_peers.py --quick                     # 3 rounds, 8 s of training each
    python benchmarks/vae_peers.py --to-db 28 --limit-s 600    # how long each trains to 28 dB
    python benchmarks/vae_peers.py --config clips --set vae.temporal_factor=4 --data clips/games --train-s 200

All three are causal, code 4x8x8 pixels into a cell of as many channels, and see the same clips: of the shapes world, or
with --data of a folder. VideoVAE is the one of --config; the peers keep their published layout (width ratios, blocks
a level), their base width being the one that brings their parameters nearest to VideoVAE's. The table below
the timings says what that came to. Equal parameters are not equal work: the peers convolve at full resolution,
VideoVAE folds 4x4 pixels into channels first. So time, GFLOPs and PSNR stand side by side.

train step   a batch of crops: forward, loss, backward, clipping, optimizer, as the VAE stage of minisora train
encode       whole clips to the mean of the posterior
decode       and back

PSNR is of whole validation clips through the posterior's mean, after each has trained for the same time
(--train-s, its own steps only, in turns so that the machine's moods fall on all), or with --to-db at the first
validation that reaches the target. All train on the same crops in the same order with the same optimizer
(Muon for the kernels of residual blocks, AdamW for the rest), loss, and 10 steps of warm-up to a constant rate. All
begin with the same narrow posterior (log variance -4), without which unit noise drowns the first steps. Wan's
decode() clamps to [-1, 1], in training too. Nothing is compiled.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXResnetBlock3D
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResidualBlock
from interleave import Work, autocast, compare, facts, measured_peaks, precisions, show, write
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from minisora.config import Config, TrainConfig, load
from minisora.data.batches import CropBatches, VAEBatch
from minisora.data.clips import ClipDataset, ClipMemory, to_float
from minisora.data.dataset import open_dataset
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.evaluate.likeness import psnr, psnr_moving
from minisora.flops.count_torch import count_forward, count_step
from minisora.models.build import build_vae
from minisora.models.vae import Posterior, vae_loss
from minisora.training.optimizer import Muon, lr_scale, make_optimizer

# Of the time trained: the least share of it between validations.
SPARSER = 0.15
# Steps: a slow peer must not spend its time in warm-up.
WARMUP = 10
# Log variance of a fresh posterior, as VideoVAE begins with.
NARROW = -4.0


def cogvideox(base: int, channels: int) -> nn.Module:
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(base, 2 * base, 2 * base, 4 * base),
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        layers_per_block=3,
        latent_channels=channels,
        # 4 channels a group at the finest level, as published.
        norm_num_groups=base // 4,
    )
    return _narrow(vae, vae.encoder.conv_out.conv, channels)


def wan(base: int, channels: int) -> nn.Module:
    vae = AutoencoderKLWan(
        base_dim=base, z_dim=channels, latents_mean=[0.0] * channels, latents_std=[1.0] * channels
    )
    return _narrow(vae, vae.quant_conv, channels)


def _narrow(vae: nn.Module, last: Any, channels: int) -> nn.Module:
    with torch.no_grad():
        last.bias[channels:] = NARROW
    return vae


PEERS = {"CogVideoX": cogvideox, "Wan": wan}


def num_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def base_of_size(name: str, channels: int, params: int) -> int:
    """The base width, a multiple of 4, that brings a peer's parameters nearest to `params`."""
    distances = {}
    for base in range(4, 129, 4):
        with torch.device("meta"):
            size = num_params(PEERS[name](base, channels))
        distances[base] = abs(size - params)
        if size > params:
            break
    return min(distances, key=lambda base: distances[base])


def optimizer_of(model: nn.Module, settings: TrainConfig) -> torch.optim.Optimizer:
    """The VAE stage's optimizer; with Muon, the kernels of a peer's residual blocks take its steps too."""
    blocks = [m for m in model.modules() if isinstance(m, CogVideoXResnetBlock3D | WanResidualBlock)]
    if settings.optimizer != "muon" or not blocks:
        return make_optimizer(model, settings)
    kernels = {id(p) for block in blocks for p in block.parameters() if p.ndim == 5}
    parts: dict[str, list[nn.Parameter]] = {"muon": [], "matrix": [], "vector": []}
    for parameter in model.parameters():
        # Wan's have further axes of length 1.
        gain = parameter.numel() == len(parameter)
        kind = "muon" if id(parameter) in kernels else "vector" if gain else "matrix"
        parts[kind].append(parameter)
    groups: list[dict[str, Any]] = []
    for kind, parameters in parts.items():
        lr = settings.muon_lr if kind == "muon" else settings.lr
        decay = 0.0 if kind == "vector" else settings.weight_decay
        groups.append(
            {
                "params": parameters,
                "weight_decay": decay,
                "lr": lr,
                "peak_lr": lr,
                "muon_parts": int(kind == "muon"),
            }
        )
    return Muon(groups, lr=settings.lr, betas=settings.betas, fused=True)


class Contender:
    """A VAE with its optimizer and its place in training; one interface over the three."""

    def __init__(self, name: str, model: nn.Module, config: Config, base: int | None, lr: float):
        self.name, self.model, self.base = name, model, base
        both = {"lr": lr, "muon_lr": config.train_vae.muon_lr * lr / config.train_vae.lr}
        schedule = {**both, "warmup_steps": WARMUP, "decay_share": 0.0}
        self.settings = config.train_vae.replace(**schedule)
        self.optimizer = optimizer_of(model, self.settings)
        self.steps, self.train_seconds = 0, 0.0
        self.history: list[dict[str, float]] = []

    def encode(self, video: Tensor) -> Posterior:
        coded = self.model.encode(video)
        if isinstance(coded, Posterior):
            return coded
        return Posterior(coded.latent_dist.mean, coded.latent_dist.logvar)

    def decode(self, raw: Tensor) -> Tensor:
        video = self.model.decode(raw)
        return video if isinstance(video, Tensor) else video.sample

    def loss(self, batch: VAEBatch) -> Tensor:
        clips = to_float(batch.video)
        posterior = self.encode(clips)
        video = self.decode(posterior.sample(batch.noise))
        settings = self.settings
        return vae_loss(
            video,
            clips,
            posterior.kl(),
            kl_weight=settings.kl_weight,
            l2_share=settings.l2_share,
            moving=batch.moving,
            moving_weight=settings.moving_weight,
        ).total

    def step(self, batch: VAEBatch, precision: str) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * lr_scale(self.steps, self.settings)
        with autocast(precision):
            loss = self.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1

    @torch.no_grad()
    def psnr(self, clips: Tensor) -> tuple[float, float]:
        """Of clips coded through the posterior's mean, in float32: mean over clips, dB; and on what moves."""
        copies = torch.cat([self.decode(self.encode(part).mean).clamp(-1, 1) for part in clips.split(8)])
        moving = psnr_moving(copies, clips)
        return float(psnr(copies, clips).mean()), float(moving[moving.isfinite()].mean())


def contenders(config: Config, peers: list[str], lr: float | None, peer_lr: float | None) -> list[Contender]:
    lr = lr or config.train_vae.lr
    channels = config.vae.latent_channels
    torch.manual_seed(config.seed)
    ours = build_vae(config)
    field = [Contender("VideoVAE", ours, config, None, lr)]
    for name in peers:
        base = base_of_size(name, channels, num_params(ours))
        torch.manual_seed(config.seed)
        field.append(Contender(name, PEERS[name](base, channels), config, base, peer_lr or lr))
    return field


def time_all(
    field: list[Contender], batch: VAEBatch, clips: Tensor, formats: list[str], rounds: int
) -> list[dict]:
    """Train step on a batch of crops, encode and decode of whole clips, in each format.

    The steps train; whoever calls this builds fresh models afterwards.
    """
    with torch.no_grad():
        latents = {one.name: one.encode(clips).mean for one in field}

    def coded(one: Contender, decode: bool, precision: str) -> None:
        with torch.no_grad(), autocast(precision):
            _ = one.decode(latents[one.name]) if decode else one.encode(clips).mean

    flops = {}
    for one in field:
        flops["train step", one.name] = count_step(lambda one=one: one.loss(batch)).model_flops
        one.optimizer.zero_grad()
        for decode, what in ((False, "encode"), (True, "decode")):
            flops[what, one.name] = count_forward(lambda one=one, d=decode: coded(one, d, "fp32"))
    rows = []
    for precision in formats:
        for what in ("train step", "encode", "decode"):
            works = {}
            for one in field:
                if what == "train step":
                    run = lambda one=one: one.step(batch, precision)  # noqa: B023, E731 - called in this turn
                else:
                    run = lambda one=one: coded(one, what == "decode", precision)  # noqa: B023, E731 - as above
                works[one.name] = Work(run, flops[what, one.name])
            rows += compare(what, works, precision, rounds, warmup=1)
    return rows


def race(
    field: list[Contender],
    source: CropBatches,
    validation: Tensor,
    *,
    precision: str,
    batch_size: int,
    limit_s: float,
    every_s: float,
    to_db: float | None,
) -> None:
    """Train in turns, always whoever has trained least, each for `limit_s` seconds of its own steps or to the target.

    Seconds are of the steps alone, without making batches and without validation.
    """
    running = list(field)
    due = {one.name: every_s for one in field}
    while running:
        one = min(running, key=lambda each: each.train_seconds)
        batch = source.at(range(one.steps * batch_size, (one.steps + 1) * batch_size))
        start = time.perf_counter()
        one.step(batch, precision)
        one.train_seconds += time.perf_counter() - start
        over = one.train_seconds >= limit_s
        if over or one.train_seconds >= due[one.name]:
            due[one.name] = one.train_seconds + max(every_s, SPARSER * one.train_seconds)
            reached, moving = one.psnr(validation)
            one.history.append(
                {"seconds": one.train_seconds, "steps": one.steps, "psnr_db": reached, "moving_db": moving}
            )
            if over or (to_db is not None and reached >= to_db):
                running.remove(one)


def summary(field: list[Contender], to_db: float | None) -> list[dict]:
    rows = []
    for one in field:
        last = one.history[-1]
        reached = None if to_db is None else last["psnr_db"] >= to_db
        rows.append(
            {
                "model": one.name,
                "base_width": one.base,
                "params": num_params(one.model),
                "lr": one.settings.lr,
                "trained_s": last["seconds"],
                "steps": one.steps,
                "psnr_db": last["psnr_db"],
                "moving_db": last["moving_db"],
                "to_db": to_db,
                "seconds_to_db": last["seconds"] if reached else None,
                "history": one.history,
            }
        )
    return rows


def show_training(rows: list[dict], title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    for column in ("base width", "parameters", "lr", "trained s", "steps", "PSNR dB", "moving dB", "target"):
        table.add_column(column, justify="right")
    for row in rows:
        target = "-"
        if row["to_db"] is not None:
            took = row["seconds_to_db"]
            target = f"{row['to_db']:g} dB " + ("not reached" if took is None else f"in {took:.0f} s")
        table.add_row(
            row["model"],
            "-" if row["base_width"] is None else str(row["base_width"]),
            f"{row['params'] / 1e6:.3f} M",
            f"{row['lr']:g}",
            f"{row['trained_s']:.1f}",
            str(row["steps"]),
            f"{row['psnr_db']:.2f}",
            f"{row['moving_db']:.2f}",
            target,
        )
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", default="toy", help="whose VAE, crops, loss and optimizer (default toy)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="override settings of the config"
    )
    parser.add_argument("--data", type=Path, help="train on this folder of clips; default: shapes")
    parser.add_argument("--quick", action="store_true", help="few rounds, 8 s of training each, 8 clips")
    parser.add_argument(
        "--peers", nargs="+", choices=tuple(PEERS), default=list(PEERS), help="which to run (default: both)"
    )
    parser.add_argument("--rounds", type=int, help="timed rounds of each comparison (default 11; quick 3)")
    parser.add_argument("--clips", type=int, default=4, help="clips that encode and decode take (default 4)")
    parser.add_argument("--train-s", type=float, help="seconds of steps before PSNR (default 60; quick 8)")
    parser.add_argument("--to-db", type=float, metavar="DB", help="train until validation reaches so many dB")
    parser.add_argument(
        "--limit-s",
        type=float,
        default=300.0,
        help="with --to-db: seconds after which each stops (default 300)",
    )
    parser.add_argument(
        "--every-s",
        type=float,
        default=10.0,
        help="seconds of steps between validations, at least; later 15 %% of the time trained (default 10)",
    )
    parser.add_argument(
        "--judge-clips",
        type=int,
        default=16,
        help="validation clips (default 16; the peers are slow at them)",
    )
    parser.add_argument("--lr", type=float, help="peak learning rate of all (default: the config's)")
    parser.add_argument("--peer-lr", type=float, help="of the peers, where theirs should differ")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=("fp32", "bf16"),
        default=precisions(),
        help="formats to time (default: fp32, and bf16 where this CPU has units for it)",
    )
    parser.add_argument(
        "--train-precision", choices=("fp32", "bf16"), default="fp32", help="of the training (default fp32)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, atomically")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (3 if arguments.quick else 11)
    train_s = arguments.train_s or (8.0 if arguments.quick else 60.0)
    limit_s = arguments.limit_s if arguments.to_db is not None else train_s

    result = facts()
    folder = {"data.source": "folder", "data.path": arguments.data} if arguments.data else {}
    config = load(arguments.config, arguments.set, folder)
    clip, stage = config.clip, config.train_vae
    size = {"frames": clip.frames, "height": clip.height, "width": clip.width, "fps": clip.fps}
    train: ClipDataset
    held_out: ClipDataset
    if arguments.data:
        train, held_out = (open_dataset(config, split) for split in ("train", "validation"))
    else:
        train = ShapesWorld(stage.max_clips, seed=config.seed, **size)
        held_out = ShapesWorld(config.data.num_validation_clips, seed=config.seed, split="validation", **size)
    judged = 8 if arguments.quick else arguments.judge_clips
    validation = to_float(held_out.clips(range(min(len(held_out), judged))))
    field = contenders(config, arguments.peers, arguments.lr, arguments.peer_lr)
    crop = stage.crop or (clip.frames, clip.height, clip.width)
    latent_shape = (config.vae.latent_channels, *field[0].model.latent_size(*crop))
    source = CropBatches(
        ClipMemory(train, len(train)),
        crop,
        latent_shape,
        config.seed,
        moving=stage.moving_weight > 1,
        moving_crops=stage.moving_crops,
    )

    peaks = measured_peaks(arguments.precision)
    clips = validation[: arguments.clips]
    rows = time_all(field, source.at(range(stage.batch_size)), clips, arguments.precision, rounds)
    boxes = f"{stage.batch_size} crops of {'x'.join(map(str, crop))}"
    title = f"train step on {boxes}; encode and decode of {len(clips)} clips of {'x'.join(map(str, clips.shape[2:]))}"
    show(title, rows, peaks)

    # Timing has trained the first ones.
    field = contenders(config, arguments.peers, arguments.lr, arguments.peer_lr)
    # Drawn now, not between steps.
    source.clips.clips(range(len(train)))
    race(
        field,
        source,
        validation,
        precision=arguments.train_precision,
        batch_size=stage.batch_size,
        limit_s=limit_s,
        every_s=arguments.every_s,
        to_db=arguments.to_db,
    )
    trained = summary(field, arguments.to_db)
    title = f"trained in {arguments.train_precision}, PSNR of {len(validation)} validation clips"
    show_training(trained, title)
    if arguments.json:
        settings = {
            "config": arguments.config,
            "set": arguments.set,
            "data": arguments.data.name if arguments.data else "shapes",
            "quick": arguments.quick,
            "rounds": rounds,
            "batch": stage.batch_size,
            "crop": list(crop),
            "clips": list(clips.shape),
            "latent_channels": config.vae.latent_channels,
            "validation_clips": len(validation),
            "train_precision": arguments.train_precision,
            "limit_s": limit_s,
            "to_db": arguments.to_db,
        }
        peaks_named = {f"{name}_flops_per_s": peak for name, peak in peaks.items()}
        write(
            arguments.json,
            {**result, "settings": settings, "peak": peaks_named, "rows": rows, "training": trained},
        )


if __name__ == "__main__":
    main()
