"""What one generated video costs: denoising passes, guidance, text and decode.

Units: FLOPs per video (1 MAC = 2 FLOPs).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minisora.config import SampleConfig


@dataclass(frozen=True)
class VideoCost:
    """FLOPs of one video.

    `passes_per_step` is 2 under guidance (with and without the prompt); `passes` is that times the model
    evaluations of the scheduler: one a step for Euler, two a step but the last for Heun.
    """

    steps: int
    guidance: float
    passes_per_step: int
    passes: int
    step_flops: int
    text_flops: int
    decode_flops: int

    @property
    def denoise_flops(self) -> int:
        """All denoising passes."""
        return self.passes * self.step_flops // self.passes_per_step

    @property
    def flops(self) -> int:
        """The whole video."""
        return self.denoise_flops + self.text_flops + self.decode_flops

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "denoise_flops": self.denoise_flops, "flops": self.flops}


def video_cost(sample: SampleConfig, macs: Mapping[str, int]) -> VideoCost:
    """Cost of one video under the config's sampling defaults.

    Args:
        sample: steps, guidance and scheduler. Guidance of 1 is none, and a model without text has nothing to
            guide by (`MiniSoraPipeline` does the same).
        macs: MACs per sample of "dit", "vae_decode" and, if there is text, "text_encoder".
    """
    guided = sample.guidance != 1 and "text_encoder" in macs
    per_step = 2 if guided else 1
    evaluations = 2 * sample.steps - 1 if sample.scheduler == "heun" else sample.steps
    return VideoCost(
        steps=sample.steps,
        guidance=sample.guidance if guided else 1.0,
        passes_per_step=per_step,
        passes=evaluations * per_step,
        step_flops=2 * macs["dit"] * per_step,
        text_flops=2 * macs.get("text_encoder", 0) * per_step,
        decode_flops=2 * macs["vae_decode"],
    )
