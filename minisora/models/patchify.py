"""Spacetime patches: latents to tokens and back, and how many there are. The only place that knows."""

from einops import rearrange
from torch import Tensor

from minisora.errors import UserError

Patch = tuple[int, int, int]  # (time, height, width), in latent cells


def token_grid(latent_size: tuple[int, int, int], patch: Patch) -> tuple[int, int, int]:
    """Tokens along (time, height, width) for latents of that size.

    Raises:
        UserError: the patch does not divide the latents.
    """
    for axis, cells, step in zip(("frames", "height", "width"), latent_size, patch, strict=True):
        if cells % step:
            low, high = cells - cells % step, cells - cells % step + step
            near = f"{low} or {high}" if low else str(high)
            raise UserError(f"latent {axis} = {cells} is not a multiple of the patch {step}: make it {near}")
    return latent_size[0] // patch[0], latent_size[1] // patch[1], latent_size[2] // patch[2]


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
