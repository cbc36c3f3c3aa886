"""Peak memory of a train step beside the same peers, and of a clip ten times as long on the same machine.

    python benchmarks/memory.py --json benchmarks/results/memory_MACHINE_DATE.json
    python benchmarks/memory.py --quick

Every measurement is a process of its own: it notes its resident memory, builds the model, runs two train steps
(forward, backward, AdamW) and notes the highest resident memory the system saw (ru_maxrss). "step MiB" is the
difference to what the imports alone take: weights, gradients, optimizer state and what the backward pass keeps.
float32 for all, the DiTs at the sizes of dit_peers.py, the VAEs at those of vae_peers.py.

The long clip is ten times the toy's latent frames (197 video frames, 64x64): the VAE trains on crops as always and
codes it in chunks of 4 latent frames and tiles of 4 cells, the DiT trains with gradient checkpointing. Selective
checkpointing keeps the results of products and makes the cheap rest again (dit.checkpointing=selective).
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from interleave import facts, write
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from minisora.models.build import selective_checkpoint

LONG_FRAMES = 197
MIB = 2**20


def dit_step(name: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    import dit_peers

    builders = {
        "VideoDiT factorised": lambda: dit_peers.ours("factorised"),
        "VideoDiT full": lambda: dit_peers.ours("full"),
        "Latte": dit_peers.latte,
        "CogVideoX": dit_peers.cogvideox,
    }
    model, forward = builders[name.partition(",")[0]]()
    if "selective" in name:
        model.enable_gradient_checkpointing(selective_checkpoint)
    elif "checkpointing" in name:
        model.enable_gradient_checkpointing()
    size = (8, dit_peers.CHANNELS, dit_peers.FRAMES, dit_peers.SIDE, dit_peers.SIDE)
    latents, sigma = torch.randn(size), torch.rand(8)
    text = torch.randn(8, dit_peers.TEXT_TOKENS, dit_peers.TEXT_WIDTH)
    return model, lambda: forward(latents, sigma, text).square().mean()


def vae_step(name: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    import vae_peers

    from minisora.config import load
    from minisora.models.build import build_vae

    config = load("toy")
    channels = config.vae.latent_channels
    ours = build_vae(config)
    if name == "VideoVAE":
        model: nn.Module = ours
    else:
        peer = name.removesuffix(" VAE")
        base = vae_peers.base_of_size(peer, channels, vae_peers.num_params(ours))
        model = vae_peers.PEERS[peer](base, channels)
    video = torch.rand(2, 3, 17, 64, 64) * 2 - 1

    def loss() -> Tensor:
        coded = model.encode(video)
        mean = coded.mean if hasattr(coded, "mean") else coded.latent_dist.mean
        decoded = model.decode(mean)
        return ((decoded if isinstance(decoded, Tensor) else decoded.sample) - video).square().mean()

    return model, loss


def long_step(name: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The toy's DiT on a ten times longer clip, which its VAE codes in chunks and tiles first."""
    from minisora.config import load
    from minisora.models.build import build_dit, build_vae

    tenfold = "10x" in name
    bounded = "checkpointing" in name
    config = load("toy").replace(**{"dit.text_conditioning": False, "dit.checkpointing": bounded})
    frames = LONG_FRAMES if tenfold else config.clip.frames
    vae, dit = build_vae(config).eval(), build_dit(config, None)
    video = torch.rand(1, 3, frames, config.clip.height, config.clip.width) * 2 - 1
    limits = {"chunk": 4, "tile": 4} if bounded else {}
    latents = vae.to_latents(video, **limits)
    with torch.no_grad():
        vae.to_video(latents, **limits)
    return dit, lambda: dit(latents, torch.rand(1)).square().mean()


GROUPS: dict[str, tuple[Callable[[str], tuple[nn.Module, Callable[[], Tensor]]], list[str]]] = {
    "DiT, 8 clips of 320 tokens": (
        dit_step,
        [
            "VideoDiT factorised",
            "Latte",
            "VideoDiT full",
            "CogVideoX",
            "VideoDiT factorised, selective checkpointing",
            "VideoDiT full, selective checkpointing",
            "VideoDiT full, checkpointing",
        ],
    ),
    "VAE, 2 clips of 17x64x64": (vae_step, ["VideoVAE", "CogVideoX VAE", "Wan VAE"]),
    "toy DiT, one clip of 64x64, coded by its VAE": (
        long_step,
        ["17 frames", "197 frames (10x)", "197 frames (10x), checkpointing, chunks and tiles"],
    ),
}


def measure(group: str, name: str) -> dict[str, float]:
    """In a process of its own: memory before the step, and the highest after two."""
    import dit_peers  # noqa: F401 - all imports before the first look
    import vae_peers  # noqa: F401

    torch.manual_seed(0)
    before = psutil.Process().memory_info().rss
    model, loss = GROUPS[group][0](name)
    params = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for _ in range(2):
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"params": params, "start_mib": before / MIB, "peak_mib": peak / MIB}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="once each instead of three times")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, atomically")
    parser.add_argument("--one", nargs=2, metavar=("GROUP", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    result = facts()
    rows = []
    for group, (_, names) in GROUPS.items():
        table = Table(title=f"{group}: peak memory of a train step, float32", title_justify="left")
        table.add_column("model")
        for head in ("parameters", "peak MiB", "step MiB", "step, of the first"):
            table.add_column(head, justify="right")
        first = None
        for name in names:
            runs = []
            for _ in range(1 if arguments.quick else 3):
                command = [sys.executable, __file__, "--one", group, name]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                runs.append(json.loads(done.stdout.splitlines()[-1]))
            row = sorted(runs, key=lambda run: run["peak_mib"])[len(runs) // 2]
            row |= {"group": group, "model": name, "step_mib": row["peak_mib"] - row["start_mib"]}
            first = first or row["step_mib"]
            table.add_row(
                name,
                f"{row['params'] / 1e6:.2f} M",
                f"{row['peak_mib']:,.0f}",
                f"{row['step_mib']:,.0f}",
                f"{row['step_mib'] / first:.2f}",
            )
            rows.append(row)
        Console(width=110).print(table)
    if arguments.json:
        write(arguments.json, {**result, "rows": rows})


if __name__ == "__main__":
    main()
