"""Exponents that others found: how the best size and the loss follow compute."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedLaw:
    """N* = k C^a, with C in FLOPs and N in parameters; `loss_exponent` of L or L - E in C, where it is given."""

    name: str
    source: str
    k: float
    a: float
    fitted: tuple[float, float] | None  # FLOPs, where the paper says
    loss_exponent: float | None = None


PUBLISHED = (
    PublishedLaw("Liang et al. 2024, images", "arXiv 2410.08184", 9e-4, 0.5681, (1e17, 6e18), 0.0273),
    PublishedLaw("Yin et al. 2024, video", "arXiv 2411.17470", 1.5787, 0.4146, None),
    # Given in 1e9 parameters and PFLOPs (1e15).
    PublishedLaw("HunyuanVideo, images", "arXiv 2412.03603", 5.48e-4 * 1e9 / 1e15**0.5634, 0.5634, None),
    PublishedLaw("HunyuanVideo, video", "arXiv 2412.03603", 0.0189 * 1e9 / 1e15**0.3618, 0.3618, None),
    # C = 6 N D with D = 20 N gives N = (C / 120)^0.5.
    PublishedLaw("Chinchilla, text", "arXiv 2203.15556", 120**-0.5, 0.5, None),
)
