"""What a model of ours must cost, by arithmetic from its config alone: the third count.

A model is a list of `Term`s, one per matrix product or convolution, each with its module's path. Sums over
groups give the rows of the ledger; sums over paths are compared with what fvcore and torch saw of a real
pass.

**Forward**, MACs per sample, for N = T S tokens of width D (T frames of S), hidden width f D, M text tokens
of width W, L blocks, p latent values a patch (one noise level a clip):

    embed            N p D + 256 D + D^2             patches; sigma's sinusoid (256) and MLP
                     + M W D + W D                   text tokens, pooled text
    attention_linear 4 N D^2                  x L    q, k, v, out
    attention_quadratic 2 N K D               x L    scores and weighted sum over K keys: K = N (full);
                                                     S and T on even and odd blocks (factorised)
    cross_linear     2 N D^2 + 2 M D^2        x L    q and out over tokens; k, v over text
    cross_quadratic  2 N M D                  x L
    mlp              2 f N D^2                x L
    modulation       6 D^2 x L, or once if shared; + 2 D^2 for the head's
    head             N p' D

Modulation runs once per *sample*: its 6 L D^2 parameters do not meet every token, so "6 FLOPs per parameter
and token" overcounts a DiT (a third of DiT-XL/2's parameters are modulation).

**Backward.** A product y = x w costs its forward again for the gradient of w, and again for that of x if x
needs one (the first layers' inputs do not). A fused attention kernel does five products where forward does
two, since it rebuilds the scores: 2.5 times forward, of which 0.5 is recomputation. Under checkpointing every
block's forward runs once more.

Elementwise work (norms, activations, softmax, residuals) is in no total here: it loads memory, not
multipliers.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from minisora.config import Config
from minisora.errors import UserError
from minisora.models.patchify import token_grid

SIGMA_FEATURES = 256  # width of the sinusoid that embeds the noise level

DIT_GROUPS = (
    "embed",
    "attention_linear",
    "attention_quadratic",
    "cross_linear",
    "cross_quadratic",
    "mlp",
    "modulation",
    "head",
)


@dataclass(frozen=True)
class Term:
    """One product of a forward pass.

    Args:
        module: path of the module that runs it.
        group: row of the ledger.
        macs: forward MACs for one sample.
        quadratic: a fused attention, two operand products, rather than a layer with a weight.
        input_grad: whether its input needs a gradient in training.
        checkpointed: whether it lies in a block that checkpointing runs again.
    """

    module: str
    group: str
    macs: int
    quadratic: bool = False
    input_grad: bool = True
    checkpointed: bool = False

    def backward_macs(self) -> int:
        """MACs of its gradients, with the scores that fused attention rebuilds, without checkpointing."""
        if self.quadratic:
            return self.macs * 5 // 2
        return self.macs * (2 if self.input_grad else 1)

    def rebuilt_macs(self) -> int:
        """The part of `backward_macs` that computes scores a second time."""
        return self.macs // 2 if self.quadratic else 0


def total(terms: Iterable[Term]) -> int:
    """Forward MACs."""
    return sum(term.macs for term in terms)


def by_group(terms: Iterable[Term]) -> dict[str, int]:
    """Forward MACs by row of the ledger."""
    sums: Counter[str] = Counter()
    for term in terms:
        sums[term.group] += term.macs
    return dict(sums)


def by_module(terms: Iterable[Term]) -> dict[str, int]:
    """Forward MACs by the module that runs them (its own work, without its children's)."""
    sums: Counter[str] = Counter()
    for term in terms:
        sums[term.module] += term.macs
    return dict(sums)


@dataclass(frozen=True)
class TrainMacs:
    """MACs of a training step of one sample, as `counter.StepCount` counts them (that one in FLOPs)."""

    forward: int
    train: int
    recompute: int


def train_macs(terms: Iterable[Term], *, checkpointing: bool) -> TrainMacs:
    """Forward, everything, and of it what is computed a second time."""
    terms = list(terms)
    forward = total(terms)
    again = sum(term.macs for term in terms if term.checkpointed) if checkpointing else 0
    backward = sum(term.backward_macs() for term in terms)
    rebuilt = sum(term.rebuilt_macs() for term in terms)
    return TrainMacs(forward, forward + backward + again, again + rebuilt)


def dit_terms(
    config: Config,
    latent_size: tuple[int, int, int],
    *,
    text_width: int | None,
    text_tokens: int,
    latent_grad: bool = False,
    text_grad: bool = True,
) -> list[Term]:
    """The products of one denoising pass of one sample of the config's DiT.

    Args:
        config: of the model.
        latent_size: latent grid (T', H', W').
        text_width: channels of the text encoder; None for a model without text.
        text_tokens: M.
        latent_grad: whether the latents need a gradient (never in training; in guidance by a loss they do).
        text_grad: whether the text tokens do (they do where the text encoder learns too).
    """
    dit = config.dit
    grid = token_grid(latent_size, dit.patch)
    frames, places = grid[0], grid[1] * grid[2]
    n, d, cells = frames * places, dit.width, dit.patch[0] * dit.patch[1] * dit.patch[2]
    hidden, channels = int(d * dit.mlp_ratio), config.vae.latent_channels
    m, has_text = text_tokens, dit.text_conditioning and text_width is not None

    terms = [
        Term("embed", "embed", n * channels * cells * d, input_grad=latent_grad),
        Term("embed_sigma.up", "embed", SIGMA_FEATURES * d, input_grad=False),
        Term("embed_sigma.down", "embed", d * d),
    ]
    if has_text and text_width is not None:
        terms += [
            Term("embed_text", "embed", m * text_width * d, input_grad=text_grad),
            Term("embed_pooled", "embed", text_width * d, input_grad=text_grad),
        ]
    if dit.modulation == "shared":
        terms.append(Term("shared_modulation", "modulation", 6 * d * d))
    keys = (n,) if dit.attention == "full" else (places, frames)
    for i in range(dit.depth):
        block = f"blocks.{i}"
        if dit.modulation == "per_block":
            terms.append(Term(f"{block}.modulation", "modulation", 6 * d * d, checkpointed=True))
        attention, group = f"{block}.attention", "attention_linear"
        terms += [
            Term(f"{attention}.qkv", group, 3 * n * d * d, checkpointed=True),
            Term(attention, "attention_quadratic", 2 * n * keys[i % len(keys)] * d, True, checkpointed=True),
            Term(f"{attention}.out", group, n * d * d, checkpointed=True),
        ]
        if has_text:
            cross, group = f"{block}.cross", "cross_linear"
            terms += [
                Term(f"{cross}.q", group, n * d * d, checkpointed=True),
                Term(f"{cross}.kv", group, 2 * m * d * d, checkpointed=True),
                Term(cross, "cross_quadratic", 2 * n * m * d, True, checkpointed=True),
                Term(f"{cross}.out", group, n * d * d, checkpointed=True),
            ]
        terms += [
            Term(f"{block}.mlp.up", "mlp", n * d * hidden, checkpointed=True),
            Term(f"{block}.mlp.down", "mlp", n * hidden * d, checkpointed=True),
        ]
    out_channels = channels * (2 if dit.learn_sigma else 1)
    return [
        *terms,
        Term("modulation_out", "modulation", 2 * d * d),
        Term("head", "head", n * d * out_channels * cells),
    ]


def optimizer_flops(params: int, *, clip: bool = True, ema: bool = True) -> int:
    """Elementwise FLOPs of one AdamW step (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2).

    Per parameter: two moments (3 + 4), the update's root, quotient and step (5), decay (2); clipping by the
    global norm reads and scales every gradient (3), the average of the weights is a lerp (3). It is bound by
    memory and tiny beside the passes: its own column, in no total.
    """
    return params * (14 + 3 * clip + 3 * ema)


def refuse_disagreement(what: str, counted: int, derived: int) -> None:
    """Raise UserError if a counted figure is not within half a per cent of the derived one."""
    if abs(counted - derived) > 0.005 * max(counted, derived):
        raise UserError(
            f"{what}: torch counted {counted:,} FLOPs, the closed form says {derived:,} "
            f"({counted / max(derived, 1) - 1:+.2%}), so none is given"
        )
