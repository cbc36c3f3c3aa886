"""VideoCaptioner: latents of a clip to its caption, word by word.

DALL-E 3 (Betker et al. 2023) trains on captions that a model wrote, because what people write leaves most things out;
the same recipe fills in what is missing in a set. This is the smallest form of it: convolutions over VAE latents and
their change in time, pooled over the clip, and torch's transformer decoder over words. Convolutions, because an object
is the same wherever it is, and a few hundred labels do not teach that to a transformer over patches.

Letters: B batch, Z channels, T' H' W' latent grid, M words, D width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from minisora.models.causal_conv import FrameConv, ResBlock
from minisora.models.tokenizer import NUM_SPECIAL, PAD, START, UNKNOWN, Tokenizer, join_words

# What follows the last word.
_END = PAD


@dataclass(frozen=True)
class Caption:
    """A caption and the probability that the captioner gives to the whole of it, in [0, 1]."""

    text: str
    confidence: float


class VideoCaptioner(ModelMixin, ConfigMixin):
    """Words from latents.

    Args:
        vocabulary: known words; it is saved with the weights.
        in_channels: Z of the latents.
        width: channels of the convolutions and of the decoder.
        blocks: residual blocks of the encoder, each a convolution per frame and one over time.
        depth, heads: layers and attention heads of the decoder.
        max_tokens: longest caption in words, and one for its start.
        dropout: rate in training.
        tokenizer_version: how `minisora.models.tokenizer.words` splits; 1 where a saved captioner does not say.
    """

    @register_to_config
    def __init__(
        self,
        vocabulary: list[str],
        in_channels: int = 8,
        width: int = 96,
        blocks: int = 3,
        depth: int = 2,
        heads: int = 4,
        max_tokens: int = 24,
        dropout: float = 0.1,
        tokenizer_version: int = 1,
    ):
        super().__init__()
        self.tokenizer = Tokenizer(vocabulary, max_tokens, tokenizer_version)
        self.words = ["", "", "", *vocabulary]
        self.embed = FrameConv(2 * in_channels, width)
        self.trunk = nn.Sequential(*(ResBlock(width) for _ in range(blocks)))
        self.norm_out = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        self.embed_word = nn.Embedding(NUM_SPECIAL + len(vocabulary), width)
        self.position = nn.Parameter(torch.randn(max_tokens, width) * 0.02)
        layer: dict[str, Any] = {
            "dim_feedforward": 4 * width,
            "dropout": dropout,
            "activation": "gelu",
            "batch_first": True,
            "norm_first": True,
        }
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(width, heads, **layer), depth, nn.LayerNorm(width)
        )
        self.head = nn.Linear(width, NUM_SPECIAL + len(vocabulary))

    def encode(self, latents: Tensor) -> Tensor:
        """Memory B 2 D of latents B Z T' H' W': what is everywhere, and what is anywhere."""
        change = latents.diff(dim=2, prepend=latents[:, :, :1])  # B Z T' H' W'
        x = self.embed(torch.cat([latents, change], dim=1).permute(0, 2, 3, 4, 1))  # B T' H' W' D
        x = self.norm_out(self.trunk(x)).flatten(1, 3)  # B (T' H' W') D
        return self.drop(torch.stack([x.mean(1), x.amax(1)], dim=1))

    def forward(self, latents: Tensor, ids: Tensor) -> Tensor:
        """Logits B M V of the word that follows each of `ids` (B M)."""
        return self._next(self.encode(latents), ids)

    def _next(self, memory: Tensor, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        x = self.embed_word(ids) + self.position[:length]  # B M D
        mask = torch.full((length, length), -torch.inf, device=ids.device).triu(1)
        return self.head(self.decoder(x, memory, tgt_mask=mask, tgt_is_causal=True))

    @staticmethod
    def word_loss(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Mean cross-entropy of what follows each word, the end too: logits B M V, ids and mask B M."""
        target = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], _END)], dim=1)
        return nn.functional.cross_entropy(logits.float()[mask], target[mask])

    @torch.no_grad()
    def caption(self, latents: Tensor) -> list[Caption]:
        """One caption per clip, the likeliest word at every position until the end."""
        memory = self.encode(latents)
        batch = len(latents)
        ids = torch.full((batch, 1), START, device=latents.device)
        logs = torch.zeros(batch, device=latents.device)
        ended = torch.zeros(batch, dtype=torch.bool, device=latents.device)
        for _ in range(self.config.max_tokens - 1):
            logits = self._next(memory, ids)[:, -1].float()
            logits[:, [START, UNKNOWN]] = -torch.inf
            log, word = logits.log_softmax(-1).max(-1)  # B
            word = torch.where(ended, _END, word)
            logs = logs + torch.where(ended, 0.0, log)
            ended = ended | (word == _END)
            ids = torch.cat([ids, word[:, None]], dim=1)
            if bool(ended.all()):
                break
        version = self.tokenizer.version
        texts = [join_words([self.words[i] for i in row[1:] if i != _END], version) for row in ids.tolist()]
        return [Caption(text, value) for text, value in zip(texts, logs.exp().tolist(), strict=True)]
