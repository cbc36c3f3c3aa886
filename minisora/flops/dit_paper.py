"""The thirteen configurations of the DiT paper: published against counted.

The paper prints multiply-accumulates under the name "Gflops" (its author says so in facebookresearch/DiT
issue 14); read as MACs they agree with every way of counting, and real FLOPs are twice as many.
"""

from dataclasses import dataclass
from typing import Any

import torch

from minisora.config import load
from minisora.flops.agree import Agreement
from minisora.flops.ledger import count_pass
from minisora.flops.passes import dit_pass
from minisora.models.build import build_dit
from minisora.screen import Table

PUBLISHED: dict[str, tuple[float, float]] = {
    "s8": (0.36, 33e6),
    "s4": (1.41, 33e6),
    "s2": (6.06, 33e6),
    "b8": (1.42, 131e6),
    "b4": (5.56, 130e6),
    "b2": (23.01, 130e6),
    "l8": (5.01, 459e6),
    "l4": (19.70, 458e6),
    "l2": (80.71, 458e6),
    "xl8": (7.39, 676e6),
    "xl4": (29.05, 675e6),
    "xl2": (118.64, 675e6),
    "xl2_512": (524.60, 675e6),
}
"""Config name: (GMACs, printed as "Gflops"; parameters), from arXiv 2212.09748, table 4 and section 5."""


@dataclass(frozen=True)
class DiTRow:
    """One configuration; MACs of one forward pass of one sample."""

    name: str
    published_gmacs: float
    counts: Agreement
    published_params: float
    params: int

    @property
    def gmacs(self) -> float:
        """What was counted, by fvcore."""
        return self.counts.counts[0].total_macs / 1e9

    @property
    def error(self) -> float:
        """Counted over published, less one. Two printed decimals are all there is of the published one."""
        return self.gmacs / self.published_gmacs - 1

    @property
    def params_error(self) -> float:
        """Parameters over the published ones, less one."""
        return self.params / self.published_params - 1

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the differences."""
        derived = {"gmacs": self.gmacs, "error": self.error, "params_error": self.params_error}
        return {**vars(self), "counts": self.counts.to_dict(), **derived}


@dataclass(frozen=True)
class DiTTable:
    """All rows."""

    rows: list[DiTRow]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"rows": [row.to_dict() for row in self.rows]}

    def table(self) -> Table:
        """Published beside counted, a row a model."""
        table = Table(title="DiT (arXiv 2212.09748): published 'Gflops' are MACs", title_justify="left")
        published = ("", "published", "counted GMACs", "difference", "real GFLOPs")
        for column in (*published, "published M", "params M", "difference"):
            table.add_column(column, justify="left" if not column else "right")
        for row in self.rows:
            size, _, pixels = row.name.partition("_")
            table.add_row(
                f"DiT-{size[:-1].upper()}/{size[-1]} {pixels or 256}",
                f"{row.published_gmacs:.2f}",
                f"{row.gmacs:.3f}",
                f"{row.error:+.2%}",
                f"{2 * row.gmacs:,.2f}",
                f"{row.published_params / 1e6:.0f}",
                f"{row.params / 1e6:.2f}",
                f"{row.params_error:+.2%}",
            )
        table.caption = "fvcore, torch and the closed form agree on every row. 1 MAC = 2 FLOPs"
        return table


def count_row(name: str) -> DiTRow:
    """Count one configuration (`xl2_512`) on meta tensors, three ways."""
    config = load(f"dit/{name}")
    s = config.vae.spatial_factor
    latent_size = (1, config.clip.height // s, config.clip.width // s)
    with torch.device("meta"):
        dit = build_dit(config, None)
    count = count_pass(dit_pass(config, dit, latent_size, text_width=None))
    gmacs, params = PUBLISHED[name]
    return DiTRow(name, gmacs, count.agreement, params, count.params)


def count_table() -> DiTTable:
    """Count all thirteen."""
    return DiTTable([count_row(name) for name in PUBLISHED])
