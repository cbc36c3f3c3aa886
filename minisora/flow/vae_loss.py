"""What the VAE is trained on: reconstruction in pixels, and a light pull of the posterior to a Gaussian."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class VAELoss:
    """`total` is minimised; the parts are reported. Pixel errors are on the [-1, 1] scale."""

    total: Tensor
    l1: Tensor
    mse: Tensor
    kl: Tensor  # nats per latent element


def vae_loss(
    reconstruction: Tensor, video: Tensor, kl: Tensor, *, kl_weight: float, l2_share: float
) -> VAELoss:
    """Loss of a batch; videos are B 3 T H W in [-1, 1], `kl` is the posterior's divergence, nats per element.

    L1 keeps edges, L2 is what PSNR measures; `l2_share` mixes them.
    """
    error = reconstruction.float() - video
    l1, mse = error.abs().mean(), error.square().mean()
    total = (1 - l2_share) * l1 + l2_share * mse + kl_weight * kl
    return VAELoss(total, l1, mse, kl)
