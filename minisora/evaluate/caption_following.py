"""Does a clip show what its caption says, judged by what tells real clips apart: classifiers on VAE latents.

One logistic regression a word, over the training clips' latents, for the words that some captions have and some have
not; or, for words that it tells better of clips that neither has learned from, a network that finds things wherever
they are (`minisora.evaluate.word_network`). A clip *follows* its caption if, of all captions of the data, its own
words are the likeliest. How often real clips that were never trained on follow theirs stands beside every such share:
the classifier is no better than that.

Letters: N clips, F features, W words, C captions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from minisora.errors import UserError
from minisora.evaluate.word_network import WordNetwork, learn_words

_LEAST = 2  # clips with a word, and clips without it
_WORDS = 256  # at most, those that halve the clips best
_CANDIDATES = 64  # captions that a clip's own is told from
_RIDGE = 1e-2
_GRID = 4  # cells per side that latents are averaged into
_FOLD = 5  # of so many training clips one chooses between the classifiers
_ENOUGH = 60  # clips; of fewer the network learns each by heart


@dataclass(frozen=True)
class CaptionJudge:
    """Tells which of a data set's captions fits a clip.

    Args:
        words: W, those that tell captions apart.
        captions: C, those that a clip's own is told from.
        weights, bias: F x W and W, of the log odds of each word.
        mean, scale: F, of the training clips' features.
        tokenize: a caption's words.
        network: that tells some of the words; None: none.
        by_network: W, which these are.
    """

    words: tuple[str, ...]
    captions: tuple[str, ...]
    weights: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    tokenize: Callable[[str], Sequence[str]]
    network: WordNetwork | None
    by_network: Tensor

    @classmethod
    def learn(
        cls,
        latents: Tensor,
        captions: Sequence[str],
        tokenize: Callable[[str], Sequence[str]] = str.split,
        files: Sequence[str] = (),
    ) -> "CaptionJudge | None":
        """From real training clips; None where captions have no word that tells clips apart.

        Args:
            latents: N Z T' H' W', normalised.
            captions: one each.
            tokenize: a caption's words, as the text encoder sees them.
            files: that the clips are of, whose clips are like each other; (): each is of its own.

        Raises:
            UserError: not one caption a clip.
        """
        if len(latents) != len(captions):
            raise UserError(
                f"{len(latents)} clips and {len(captions)} captions: one caption per clip is needed"
            )
        texts = [frozenset(tokenize(caption)) for caption in captions]
        counts: dict[str, int] = {}
        for text in texts:
            for word in text:
                counts[word] = counts.get(word, 0) + 1
        telling = [w for w, n in counts.items() if _LEAST <= n <= len(captions) - _LEAST]
        telling.sort(key=lambda w: (-min(counts[w], len(captions) - counts[w]), w))
        words = tuple(sorted(telling[:_WORDS]))
        if not words:
            return None
        features = _features(latents)
        mean, scale = features.mean(0), features.std(0, correction=0).clamp_min(1e-4)
        features = (features - mean) / scale
        has = torch.tensor([[float(word in text) for word in words] for text in texts])  # N W
        network, by_network = _choose(
            latents, features, has, files or [str(clip) for clip in range(len(latents))]
        )
        weights, bias = _fit(features, has)
        often = sorted(set(captions), key=lambda text: (-captions.count(text), text))
        candidates = tuple(often[:_CANDIDATES])
        return cls(words, candidates, weights, bias, mean, scale, tokenize, network, by_network)

    def chance(self, captions: Sequence[str] = ()) -> float:
        """Share that follows by guessing, of clips with these captions: the same guess for all, or any."""
        rows = [self._row(caption) for caption in captions]
        commonest = max(map(rows.count, rows), default=0) / max(1, len(rows))
        return max(commonest, 1 / len({*rows, *map(self._row, self.captions)}))

    def follows(self, latents: Tensor, captions: Sequence[str]) -> list[bool]:
        """Whether each clip's own caption is the likeliest of the data's; one with the same words is as good.

        Args:
            latents: N Z T' H' W', normalised.
            captions: one each.
        """
        odds = ((_features(latents) - self.mean) / self.scale) @ self.weights + self.bias  # N W
        if self.network is not None:
            odds = torch.where(self.by_network, self.network.odds(latents), odds)
        rows = sorted({self._row(caption) for caption in (*self.captions, *captions)})
        table = torch.tensor(rows, dtype=torch.float32)  # C W
        fit = table @ F.logsigmoid(odds).T + (1 - table) @ F.logsigmoid(-odds).T  # C N
        return [
            rows[int(best)] == self._row(caption)
            for best, caption in zip(fit.argmax(0), captions, strict=True)
        ]

    def _row(self, caption: str) -> tuple[bool, ...]:
        text = frozenset(self.tokenize(caption))
        return tuple(word in text for word in self.words)


def _choose(
    latents: Tensor, features: Tensor, has: Tensor, files: Sequence[str]
) -> tuple[WordNetwork | None, Tensor]:
    """The network, and which words it tells better than the regression does, W, on files that neither has seen."""
    none = torch.zeros(has.shape[1], dtype=torch.bool)
    if len(latents) < _ENOUGH:
        return None, none
    known = sorted(set(files))
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0)).tolist()
    apart = {known[place] for place in order[: len(known) // _FOLD]}
    is_apart = torch.tensor([file in apart for file in files])
    left_out, seen = is_apart.nonzero().flatten(), (~is_apart).nonzero().flatten()
    # Words that some clips of either part have and some have not: of others nothing is learned, or judged by.
    tells = torch.stack([_varies(has[part]) for part in (left_out, seen)]).all(0)
    if not tells.any():
        return None, none
    weights, bias = _fit(features[seen], has[seen])
    network = learn_words(latents[seen], has[seen])
    told = features[left_out] @ weights + bias, network.odds(latents[left_out])
    errors = [
        F.binary_cross_entropy_with_logits(odds, has[left_out], reduction="none").mean(0) for odds in told
    ]
    by_network = tells & (errors[1] < errors[0])
    return (network, by_network) if by_network.any() else (None, none)


def _varies(has: Tensor) -> Tensor:
    """Which words enough clips of N W have, and enough have not."""
    count = has.sum(0)
    return (count >= _LEAST) & (len(has) - count >= _LEAST)


def _features(latents: Tensor) -> Tensor:
    """What may tell captions apart, N F: where what is, and where what changes, in 4 x 4 cells."""
    still = F.adaptive_avg_pool2d(latents.float().mean(2), _GRID).flatten(1)
    if latents.shape[2] < 2:
        return still
    change = (latents[:, :, 1:] - latents[:, :, :-1]).float()
    moved = F.adaptive_avg_pool2d(change.abs().mean(2), _GRID).flatten(1)
    # The sign of a change over the whole clip is a direction.
    drift = F.adaptive_avg_pool2d((latents[:, :, -1] - latents[:, :, 0]).float(), _GRID).flatten(1)
    return torch.cat([still, moved, drift], dim=1)


def _fit(features: Tensor, has: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge-penalised logistic regressions, all words at once, by L-BFGS: F x W and W."""
    weights = torch.zeros(features.shape[1], has.shape[1], requires_grad=True)
    bias = torch.zeros(has.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        error = F.binary_cross_entropy_with_logits(features @ weights + bias, has, reduction="sum") / len(has)
        loss = error + _RIDGE * weights.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weights.detach(), bias.detach()
