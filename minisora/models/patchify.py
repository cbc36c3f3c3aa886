"""Spacetime patches: latents to tokens and back. Which sizes divide into them: `minisora.models.clip_grid`."""

from einops import rearrange
from torch import Tensor

from minisora.models.clip_grid import Patch


def patchify(latents: Tensor, patch: Patch) -> Tensor:
    """Cut latents B C (T pt) (H ph) (W pw) into tokens B T (H W) (C pt ph pw)."""
    pt, ph, pw = patch
    return rearrange(latents, "b c (t pt) (h ph) (w pw) -> b t (h w) (c pt ph pw)", pt=pt, ph=ph, pw=pw)


def unpatchify(tokens: Tensor, patch: Patch, grid: tuple[int, int, int]) -> Tensor:
    """Undo `patchify`: tokens B T S (C pt ph pw) to latents B C (T pt) (H ph) (W pw)."""
    (pt, ph, pw), (t, h, w) = patch, grid
    return rearrange(
        tokens, "b t (h w) (c pt ph pw) -> b c (t pt) (h ph) (w pw)", t=t, h=h, w=w, pt=pt, ph=ph, pw=pw
    )
