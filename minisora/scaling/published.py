"""Exponents that others found: how the best size and the loss follow compute."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PublishedLaw:
    """N* = k C^a, with C in FLOPs of 6 N D and N in parameters.

    Args:
        name, source: of the paper.
        of: what its models make. A law of text says little of video.
        k, a: of the law.
        largest_flops: of the runs that it was fitted to, where the paper says, or
        largest_params: of those runs, which the law itself turns into FLOPs.
        loss_exponent: of L or L - E in C, where it is given.
    """

    name: str
    source: str
    of: Literal["images", "video", "text"]
    k: float
    a: float
    largest_flops: float | None = None
    largest_params: float | None = None
    loss_exponent: float | None = None

    def params(self, flops: float) -> float:
        """The best size at a budget."""
        return float(self.k * flops**self.a)

    @property
    def fitted_until(self) -> float:
        """FLOPs of the largest run that it was fitted to."""
        if self.largest_flops is not None:
            return self.largest_flops
        assert self.largest_params is not None
        return float((self.largest_params / self.k) ** (1 / self.a))


PUBLISHED = (
    PublishedLaw("Liang et al. 2024, images", "arXiv 2410.08184", "images", 9e-4, 0.5681, 6e18, None, 0.0273),
    PublishedLaw("Yin et al. 2024, video", "arXiv 2411.17470", "video", 1.5787, 0.4146, None, 0.26e9),
    # Given in 1e9 parameters and PFLOPs (1e15).
    PublishedLaw(
        "HunyuanVideo, images",
        "arXiv 2412.03603",
        "images",
        5.48e-4 * 1e9 / 1e15**0.5634,
        0.5634,
        None,
        6.6e9,
    ),
    PublishedLaw(
        "HunyuanVideo, video", "arXiv 2412.03603", "video", 0.0189 * 1e9 / 1e15**0.3618, 0.3618, None, 6.6e9
    ),
    # C = 6 N D with D = 20 N gives N = (C / 120)^0.5; isoFLOP budgets of 6e18 to 3e21.
    PublishedLaw("Chinchilla, text", "arXiv 2203.15556", "text", 120**-0.5, 0.5, 3e21),
)
