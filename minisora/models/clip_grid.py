"""Which clips divide into latents and patches, and into how many: without torch, so that a cost is counted quickly."""

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


def check_clip(
    frames: int,
    height: int,
    width: int,
    *,
    temporal_factor: int,
    spatial_factor: int,
    patch: Patch = (1, 1, 1),
) -> tuple[int, int, int]:
    """Latent grid (T', H', W') of a clip of that many frames and pixels.

    Latent frames are 1 + (frames - 1) / temporal_factor; all three must divide by the patch.

    Raises:
        UserError: they do not; the message names the two nearest sizes that do.
    """
    step = temporal_factor * patch[0]
    # The shortest clip that fits.
    first = 1 + (patch[0] - 1) * temporal_factor
    if frames < first or (frames - first) % step:
        low = first + max(0, frames - first) // step * step
        near = f"{low} or {low + step}" if low <= frames else f"{low}"
        raise UserError(
            f"{frames} frames do not fit the temporal stride {step} ({first} + a multiple of it): use {near}"
        )
    for name, size, cells in (("height", height, patch[1]), ("width", width, patch[2])):
        step = spatial_factor * cells
        if size < 1 or size % step:
            low = size // step * step
            near = f"{low} or {low + step}" if low > 0 else str(step)
            raise UserError(f"{name} {size} does not fit the spatial stride {step}: use {near}")
    return 1 + (frames - 1) // temporal_factor, height // spatial_factor, width // spatial_factor
