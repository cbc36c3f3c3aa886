"""What makes the toy's VAE sharp: one change at a time, each trained for the same steps and judged on unseen clips.

    python benchmarks/vae_ablations.py --json benchmarks/results/vae-ablations_MACHINE_DATE.json
    python benchmarks/vae_ablations.py --quick                       # 40 steps each
    python benchmarks/vae_ablations.py --only base --data CLIPS      # the toy's settings on a folder of videos

Read PSNR beside seconds: a variant that is better at equal steps may be worse at equal time.

PSNR, SSIM   of 64 unseen clips through the posterior's mean, in float32
edges        energy of the image gradient of the reconstruction over that of the clip: below 1 is blur
survive      share of clips of the 72 prompts whose colour, shape and motion the judge still reads (shapes only)
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import torch
from interleave import facts, write
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from minisora.config import load
from minisora.data.clips import to_float
from minisora.data.dataset import open_dataset
from minisora.evaluate.likeness import psnr
from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.sample_and_judge import judge_accuracy
from minisora.models.vae import VideoVAE
from minisora.training.stages import load_vae, train_vae

VARIANTS: dict[str, list[str]] = {
    "base": [],
    "AdamW": ["train_vae.optimizer=adamw"],
    "Muon at 0.02": ["train_vae.muon_lr=0.02"],
    "12 latent channels": ["vae.latent_channels=12"],
    "L1 only": ["train_vae.l2_share=0"],
    "L2 only": ["train_vae.l2_share=1"],
    "fold 2x2 pixels": ["vae.pixel_patch=2", "vae.widths=[32,64,128]"],
    "widths 96, 192": ["vae.widths=[96,192]"],
    "one block a level": ["vae.blocks_per_level=1"],
    "crops 17x64x64, batch 2": ["train_vae.crop=[17,64,64]", "train_vae.batch_size=2"],
}


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each clip (B), mean over frames, of clips `B C T H W` in [-1, 1]."""
    batch, _, frames = first.shape[:3]
    ours, theirs = (clip.transpose(1, 2).flatten(0, 1).float() for clip in (first, second))  # (B T) C H W
    each = structural_similarity_index_measure(ours, theirs, data_range=2.0, reduction="none")  # (B T)
    assert isinstance(each, Tensor)
    return each.view(batch, frames).mean(dim=1)


def edges(video: Tensor) -> Tensor:
    """Mean size of the steps between neighbouring pixels."""
    return video.diff(dim=-1).abs().mean() + video.diff(dim=-2).abs().mean()


@torch.no_grad()
def judge_vae(vae: VideoVAE, clips: Tensor, shapes: bool) -> dict[str, float]:
    rebuilt = torch.cat([vae.to_video(vae.to_latents(part)) for part in clips.split(8)])
    row = {
        "psnr_db": psnr(rebuilt, clips).mean().item(),
        "worst_psnr_db": psnr(rebuilt, clips).min().item(),
        "ssim": ssim(rebuilt, clips).mean().item(),
        "edges": (edges(rebuilt) / edges(clips)).item(),
    }
    if shapes:
        size = (clips.shape[2], clips.shape[3], clips.shape[4])
        score = judge_accuracy(
            prompt_set("72"), size, num_clips=144, degrade=lambda video: vae.to_video(vae.to_latents(video))
        )
        row["survive"] = score.all_right.right / score.all_right.total
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 steps each")
    parser.add_argument("--steps", type=int, default=300, help="of each variant (default 300)")
    parser.add_argument("--only", nargs="+", choices=tuple(VARIANTS), default=tuple(VARIANTS))
    parser.add_argument("--data", type=Path, help="train and judge on a folder of videos instead of shapes")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, atomically")
    arguments = parser.parse_args()
    steps = 40 if arguments.quick else arguments.steps
    result = facts()
    changes = {f"train_vae.{key}": steps for key in ("steps", "validate_every", "save_every")}
    if arguments.data is not None:
        folder = {"data.source": "folder", "data.path": arguments.data, "data.require_captions": False}
        changes |= folder
    table = Table(title=f"{steps} steps of the toy's VAE, one change at a time", title_justify="left")
    for head in ("variant", "seconds", "PSNR dB", "worst", "SSIM", "edges", "survive"):
        table.add_column(head, justify="left" if head == "variant" else "right")
    rows = []
    for name in arguments.only:
        config = load("toy", VARIANTS[name], changes)
        run = Path(tempfile.mkdtemp())
        start = time.perf_counter()
        train_vae(config, run, Console(quiet=True))
        seconds = time.perf_counter() - start
        unseen = open_dataset(config, "validation")
        clips = to_float(unseen.clips(range(min(len(unseen), 64))))
        row = judge_vae(load_vae(run / "vae" / "model"), clips, shapes=arguments.data is None)
        shutil.rmtree(run)
        rows.append({"variant": name, "overrides": VARIANTS[name], "seconds": seconds, **row})
        table.add_row(
            name,
            f"{seconds:.0f}",
            f"{row['psnr_db']:.2f}",
            f"{row['worst_psnr_db']:.2f}",
            f"{row['ssim']:.4f}",
            f"{row['edges']:.2f}",
            f"{row['survive']:.1%}" if "survive" in row else "-",
        )
    Console(width=110).print(table)
    if arguments.json:
        write(
            arguments.json,
            {**result, "steps": steps, "data": "folder" if arguments.data else "shapes", "rows": rows},
        )


if __name__ == "__main__":
    main()
