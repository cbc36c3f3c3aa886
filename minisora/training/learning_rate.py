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


def steps_changed(step: int, before: int, settings: TrainConfig) -> str:
    """What another number of steps does to the learning rate of a stage that goes on; one line.

    Args:
        step: optimizer steps done.
        before: steps that they were meant to be.
        settings: of the stage now.
    """
    steps = settings.steps
    if step >= steps:
        return f"{step} steps are done, so nothing is trained: set steps above {step} to go on"
    then = lr_scale(step, settings.replace(steps=before))
    now = lr_scale(step, settings)
    falls = round(steps - settings.decay_share * steps)
    last = f"{settings.final_lr_share:.0%} at step {steps}"
    if settings.decay_share == 0:
        return "the learning rate does not depend on the number of steps"
    if then == now == lr_scale(step, settings.replace(decay_share=0.0)):
        return f"the learning rate falls from step {falls} to {last}, as if planned so from the start"
    way = "rises" if now > then else "drops"
    return (
        f"the learning rate {way} at once from {then:.0%} to {now:.0%} of its peak, then falls from step "
        f"{max(step, falls)} to {last}; a run of {steps} steps from the start has other losses"
    )
