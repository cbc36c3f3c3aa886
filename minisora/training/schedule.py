"""Learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

from minisora.config import TrainConfig


def lr_scale(step: int, settings: TrainConfig) -> float:
    """Factor on the learning rate at optimizer step `step` (from 0): warm-up, plateau, linear decay.

    The plateau lets a run be extended: only its last `decay_share` depends on the number of steps.
    """
    warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    decay_steps = settings.decay_share * settings.steps
    if decay_steps == 0:
        return warmup
    left = max(0.0, min(1.0, (settings.steps - step) / decay_steps))
    return warmup * (settings.final_lr_share + (1 - settings.final_lr_share) * left)
