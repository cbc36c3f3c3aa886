"""What is measured of a finished run beside its validation loss: the judge's score, and a metric of latents alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from minisora.data.shapes_world.grammar import parse
from minisora.evaluate.judge.verdict import judge_all
from minisora.evaluate.score import Score
from minisora.limits import seed_after
from minisora.pipelines.pipeline import MiniSoraPipeline


def latent_distance(made: Tensor, real: Tensor) -> float:
    """Frechet distance of two sets of latents, without a decoder or a learned feature.

    Each cell of the grid is a point: its channels, and their change to the next latent frame. Both sets of points
    are taken as Gaussians (Dowson & Landau 1982, as in FID). 0 is equal in mean and covariance.

    Args:
        made, real: N Z T' H' W', T' at least 2.
    """
    means, covariances = [], []
    for latents in (made, real):
        features = torch.cat([latents[:, :, :-1], latents.diff(dim=2)], dim=1)  # N 2Z T'-1 H' W'
        points = features.movedim(1, -1).flatten(0, -2).double().numpy()
        means.append(points.mean(0))
        covariances.append(np.cov(points, rowvar=False))
    root = np.real(sqrtm(covariances[0] @ covariances[1]))
    distance = np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    return float(max(distance, 0.0))


def judge_run(
    pipeline: MiniSoraPipeline, prompts: Sequence[str], real: Tensor, seed: int = 0, batch_size: int = 24
) -> dict[str, Any]:
    """Sample every prompt once: judge's counts, and the distance of the latents to those of real clips.

    Args:
        pipeline: a model of the shapes world.
        prompts: of its grammar.
        real: latents of unseen clips, N Z T' H' W'.
        seed: prompt i starts from the noise of seed + i.
        batch_size: prompts at a time.
    """
    parts = []
    for start in range(0, len(prompts), batch_size):
        said = list(prompts[start : start + batch_size])
        parts.append(
            pipeline(said, seed=seed_after(seed, start), output_type="latent", progress=False).videos.cpu()
        )
    latents = torch.cat(parts)
    with torch.no_grad():
        verdicts = [
            verdict
            for part in latents.split(8)
            for verdict in judge_all(pipeline.vae.to_video(part.to(pipeline.vae.device)).float().cpu())
        ]
    score = Score.of(verdicts, [parse(prompt) for prompt in prompts])
    counts = {name: getattr(score, name).right for name in ("color", "shape", "motion", "all_right")}
    return {"right": counts, "prompts": len(prompts), "latent_distance": latent_distance(latents, real)}
