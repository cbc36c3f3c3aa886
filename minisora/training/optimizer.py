"""The optimizers, fused AdamW and Muon for the matrices of the repeated blocks; and their learning rate.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) replaces each matrix's momentum by its nearest
orthogonal matrix, found by five Newton-Schulz steps; a convolution counts as the matrix from all its taps to
its output channels. torch.optim.Muon does them in bfloat16, which a CPU without such units runs many times slower;
here they run in the precision that the stage trains in, all matrices of a shape at once.

The learning rate is a pure function of the step, so a resumed run needs no scheduler state.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minisora.config import TrainConfig
from minisora.models.dit import DiTBlock
from minisora.models.text import TextBlock
from minisora.models.vae import ResBlock

_BLOCKS = (DiTBlock, TextBlock, ResBlock)
# Jordan et al.: singular values land in about [0.7, 1.2].
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_MOMENTUM = 0.95
# Layers that hold several maps side by side; each is orthogonalised by itself.
_FUSED = {"qkv": 3, "kv": 2}


def make_optimizer(
    model: nn.Module, settings: TrainConfig, dtype: torch.dtype = torch.float32
) -> torch.optim.Optimizer:
    """The optimizer of a stage; each group's "peak_lr" is what the schedule scales. `dtype` is for Muon's products.

    Only matrices decay, not gains and biases. With Muon, AdamW keeps what is not a matrix of a block:
    embeddings, modulations and the head.
    """
    blocks = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, _BLOCKS))
    groups: dict[tuple[str, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        in_block = name.startswith(blocks) and "modulation" not in name
        if settings.optimizer == "muon" and in_block and parameter.ndim > 1:
            key = ("muon", _FUSED.get(name.split(".")[-2], 1))
        else:
            key = ("matrix" if parameter.ndim > 1 else "vector", 0)
        groups.setdefault(key, []).append(parameter)
    options: list[dict[str, Any]] = []
    for (kind, parts), parameters in groups.items():
        lr = settings.muon_lr if kind == "muon" else settings.lr
        decay = 0.0 if kind == "vector" else settings.weight_decay
        group = {"params": parameters, "weight_decay": decay, "lr": lr, "peak_lr": lr, "muon_parts": parts}
        options.append(group)
    if settings.optimizer == "muon":
        return Muon(options, lr=settings.lr, betas=settings.betas, fused=True, dtype=dtype)
    return torch.optim.AdamW(options, lr=settings.lr, betas=settings.betas, fused=True)


class Muon(torch.optim.AdamW):
    """AdamW in which groups with "muon_parts" > 0 take orthogonalised momentum steps instead.

    Such a group holds matrices and kernels only; each is cut into that many equal maps along its rows. Their step has
    the length muon lr * sqrt(max(1, rows / columns)).

    Args:
        options: parameter groups.
        dtype: of the Newton-Schulz products; parameters and momentum keep their own.
        others: as AdamW's.
    """

    def __init__(
        self, options: list[dict[str, Any]], *, dtype: torch.dtype = torch.float32, **others: Any
    ) -> None:
        super().__init__(options, **others)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every group."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            if group["muon_parts"]:
                self._orthogonal_step(group)
        super().step()
        return loss

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
                # Unused; AdamW asks every state for it when one is loaded.
                state["step"] = torch.zeros(())
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, _MOMENTUM)  # Nesterov
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        # By shape: (weight, update).
        maps: defaultdict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter, update in zip(parameters, ahead, strict=True):
            matrix, count = parameter.view(len(parameter), -1), group["muon_parts"]
            for part, of_part in zip(matrix.chunk(count), update.view_as(matrix).chunk(count), strict=True):
                maps[part.shape].append((part, of_part))
            # So that AdamW passes over it.
            parameter.grad = None
        for shape, pairs in maps.items():
            steps = orthogonalise(torch.stack([update for _, update in pairs]).to(self._dtype))
            length = max(1.0, shape[0] / shape[1]) ** 0.5
            for (part, _), step in zip(pairs, steps, strict=True):
                part.add_(step.to(part.dtype), alpha=-group["lr"] * length)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """About the nearest orthogonal matrix (all singular values near 1), by a quintic Newton-Schulz iteration.

    A step multiplies X by a polynomial of its Gram matrix X X'. These polynomials commute, so for long float32
    matrices the iteration runs on the small Gram matrix alone and X is multiplied once, by their product: the same
    to 1e-4 even at low rank.

    Args:
        matrices: ... rows x columns, any shape.
        steps: of the iteration.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x.reshape(-1, *x.shape[-2:])
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    # On the Gram matrix bfloat16 is too coarse, and a square one has nothing to gain.
    if x.dtype == torch.bfloat16 or x.shape[-1] < 2 * x.shape[-2]:
        for _ in range(steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    else:
        gram = x @ x.mT
        product = polynomial = _polynomial(gram)
        for _ in range(steps - 1):
            gram = polynomial @ gram @ polynomial
            polynomial = _polynomial(gram)
            product = polynomial @ product
        x = product @ x
    return (x.mT if tall else x).reshape(matrices.shape)


def _polynomial(gram: Tensor) -> Tensor:
    """a + b G + c G^2 of Gram matrices, K n n."""
    a, b, c = _NEWTON_SCHULZ
    result = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    result.diagonal(dim1=-2, dim2=-1).add_(a)
    return result


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
