"""What a step of training a VAE against a discriminator costs. Pure arithmetic.

The discriminator judges every frame by patches of 70 pixels (PatchGAN, arXiv 1611.07004, appendix 6.1): five
convolutions of 4 x 4, to 64, 128, 256, 512 channels and one, the first three of stride 2. A step on one clip, as in
VQGAN (arXiv 2012.09841) without its perceptual network and its weight between losses:

    VAE             3 passes of encoder and decoder: forward, and backward as two
    discriminator   2 passes over what was decoded: forward, and the gradient of its input
                    6 over the clip and what was decoded: forward, the gradients of its weights and inside; the first
                    convolution's input needs none

Ranks have clips of their own and may share weights; what they send each other is left out, as the weights are few.
Convolutions stretch by what memory moves as blocks do (`spending`), by what autograd keeps of them.
Units: FLOPs, bytes, seconds, $, kWh.
"""

import numpy as np

from minisora.plan.spending import (
    AVERAGE,
    GRADIENT,
    MOMENTS,
    TRAINING_PASSES,
    WEIGHT,
    WRITTEN_AND_READ,
    Inputs,
    Numbers,
    training_bill,
)
from minisora.plan.subject import Subject
from minisora.report.units import Number

# Of each convolution of the discriminator: channels in and out, and its stride.
CONVOLUTIONS = ((3, 64, 2), (64, 128, 2), (128, 256, 2), (256, 512, 1), (512, 1, 1))
KERNEL = 4 * 4
# Of one with strides 2, 2, 2, 1, 1 and a border of 1, which leaves one patch.
SMALLEST_SIDE = 24
# Biases of the first and the last convolution, and scales and shifts of the norms behind the others.
DISCRIMINATOR_PARAMS = float(
    sum(KERNEL * into * out for into, out, _ in CONVOLUTIONS) + 64 + 1 + 2 * (128 + 256 + 512)
)
# Numbers that autograd keeps of a pixel: each convolution's result, normed, and its input.
KEPT_BY_DISCRIMINATOR = 3 + 64 / 4 + 2 * 128 / 16 + 2 * 256 / 64 + 2 * 512 / 64
# Clips that it sees in a step: what was decoded to judge it, and both to learn.
JUDGED = 3.0
# Passes over one of them: to judge; to learn, on both.
JUDGING, LEARNING = 2.0, 6.0


def discriminator_macs(height: Number, width: Number) -> list[Number]:
    """MACs of each convolution of the discriminator over one frame of so many pixels."""
    macs: list[Number] = []
    for into, out, stride in CONVOLUTIONS:
        height, width = (np.floor((side - 2) / stride) + 1 for side in (height, width))
        macs.append(KERNEL * into * out * height * width)
    return macs


def vae_spend(subject: Subject, inputs: Inputs) -> Numbers:
    """Every result of a step of training the subject's VAE, by name.

    Args:
        subject: the model.
        inputs: as of `spending.spend`.
    """
    frames, height, width = (inputs[f"clip.{each}"] for each in ("frames", "height", "width"))
    pixels, coder = frames * height * width, subject.decoder
    size, batch, use = inputs["bytes.activation"], inputs["train.batch"], inputs["use.train"]
    fsdp, data = inputs["cards.fsdp"], inputs["cards.data"]
    judge = [frames * each for each in discriminator_macs(height, width)]
    numbers: Numbers = {
        "encode_flops": 2 * coder.encode_macs_per_pixel * pixels,
        "decode_flops": 2 * coder.macs_per_pixel * pixels,
        "discriminator_flops": 2 * ((JUDGING + LEARNING) * sum(judge) - 2 * judge[0]),
    }
    numbers["train_flops"] = numbers["discriminator_flops"] + TRAINING_PASSES * (
        numbers["encode_flops"] + numbers["decode_flops"]
    )
    kept = pixels * size * (coder.kept + JUDGED * KEPT_BY_DISCRIMINATOR)
    moved = WRITTEN_AND_READ * TRAINING_PASSES * kept
    at_peak = numbers["train_flops"] / inputs["card.peak"]
    numbers["stretch"] = 1 + moved / inputs["card.bandwidth"] / at_peak
    seconds = batch * at_peak * numbers["stretch"] / use
    numbers |= training_bill(inputs, numbers["train_flops"], seconds, data)
    held = (subject.vae_params + DISCRIMINATOR_PARAMS) / fsdp
    low = np.where(size < WEIGHT, held * size, 0.0)
    numbers |= {
        "train_weights": held * WEIGHT + low,
        "train_gradients": held * GRADIENT,
        "train_moments": held * MOMENTS,
        "train_average": subject.vae_params / fsdp * AVERAGE,
        "train_activations": batch * kept,
    }
    parts = ("weights", "gradients", "moments", "average", "activations")
    numbers["train_memory"] = sum((numbers[f"train_{part}"] for part in parts), start=0.0)
    return numbers
