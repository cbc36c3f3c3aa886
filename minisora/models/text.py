"""Text to features: a small transformer over words, trained from scratch with the DiT, or a frozen T5 or CLIP encoder
from a local folder. Both answer `encode(prompts)` with the same `TextFeatures`.

Letters: B batch, M tokens, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from minisora.errors import UserError
from minisora.files import read_json, write_json
from minisora.models.dit import MLP, attend, zero_init
from minisora.models.tokenizer import NUM_SPECIAL, CaptionTokenizer, Subwords, Tokenizer, read_subwords

# In the folder of a pretrained encoder.
_OWN = "minisora.json"


@dataclass(frozen=True)
class TextFeatures:
    """What a denoiser sees of a prompt."""

    tokens: Tensor  # B M D
    mask: Tensor  # B M, true where the token is real
    pooled: Tensor  # B D


class TextBlock(nn.Module):
    """A pre-norm transformer block over text tokens."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map tokens B M D to B M D; mask B M."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attend(q, k, v, mask[:, None, None, :])
        x = x + self.out(attended.transpose(1, 2).flatten(2))  # B M D
        return x + self.mlp(self.norm2(x))


class TextEncoder(ModelMixin, ConfigMixin):
    """Tokenizer and transformer trained from scratch with the DiT.

    The vocabulary is part of the saved config, so a model folder carries its own tokenizer.

    Args:
        vocabulary: known words, most frequent first.
        width, depth, heads: channels, layers and attention heads of the transformer.
        max_tokens: longer captions are cut.
        tokenizer_version: how `minisora.models.tokenizer.words` splits; 1 where a saved encoder does not say.
    """

    @register_to_config
    def __init__(
        self,
        vocabulary: list[str],
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        max_tokens: int = 24,
        tokenizer_version: int = 1,
    ):
        super().__init__()
        if width % heads:
            raise UserError(f"text width = {width} is not a multiple of text heads = {heads}")
        self.tokenizer = Tokenizer(vocabulary, max_tokens, tokenizer_version)
        self.embed = nn.Embedding(NUM_SPECIAL + len(vocabulary), width)
        self.position = nn.Parameter(torch.randn(max_tokens, width) * 0.02)
        self.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        # Words start far apart and the blocks as the identity: what tells "left" from "right" must not drown in
        # what all captions share before the DiT had a chance to ask for it.
        nn.init.normal_(self.embed.weight, std=1.0)
        for block in self.blocks:
            assert isinstance(block, TextBlock)
            zero_init(block.out)
            zero_init(block.mlp.down)

    @property
    def width(self) -> int:
        """Channels of the tokens and of the pooled text."""
        return self.config.width

    def forward(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Encode token ids (B M) under their mask (B M)."""
        x = self.embed(ids) + self.position[: ids.shape[1]]  # B M D
        for block in self.blocks:
            x = block(x, mask)  # B M D
        x = self.norm(x)
        weight = mask[..., None].to(x.dtype)
        pooled = (x * weight).sum(1) / weight.sum(1).clamp(min=1)  # B D
        return TextFeatures(x, mask, pooled)

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask of prompts, each B M, on the CPU."""
        return self.tokenizer(prompts)

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """Features of prompts, on the encoder's device."""
        ids, mask = self.tokenize(prompts)
        return self(ids.to(self.device), mask.to(self.device))

    def check(self, prompt: str) -> list[str]:
        """Unknown words of a prompt; raises UserError when all are."""
        return self.tokenizer.check(prompt)

    @property
    def lengths(self) -> CaptionTokenizer:
        """The tokenizer, asked how much of a prompt is read."""
        return self.tokenizer


class PretrainedTextEncoder(ModelMixin, ConfigMixin):
    """A frozen T5 or CLIP text encoder, read by transformers from a local folder.

    Saving a pipeline copies encoder and tokenizer into the model folder, so the folder stays complete. What
    transformers has no place for lies beside them in minisora.json.

    Args:
        path: a folder with config.json, safetensors weights and a tokenizer.
        max_tokens: longer captions are cut.

    Raises:
        UserError: transformers is not installed, or the folder is not such an encoder.
    """

    @register_to_config
    def __init__(self, path: str, max_tokens: int = 77):
        super().__init__()
        try:
            from transformers import AutoConfig, CLIPTextModel, T5EncoderModel
        except ImportError as error:
            raise UserError(
                "text.kind=pretrained needs transformers: pip install 'minisora[text]'"
            ) from error
        if not (Path(path) / "config.json").is_file():
            raise UserError(
                f"no text encoder in '{path}': it needs config.json, model.safetensors and a tokenizer"
            )
        kinds = {"t5": T5EncoderModel, "clip": CLIPTextModel, "clip_text_model": CLIPTextModel}
        try:
            kind = AutoConfig.from_pretrained(path, local_files_only=True).model_type
            if kind not in kinds:
                raise UserError(f"'{path}' holds a '{kind}' model; T5 and CLIP text encoders are supported")
            # Its folder may say another format than that of the rest of the model.
            self.encoder = (
                kinds[kind].from_pretrained(path, local_files_only=True, use_safetensors=True).float()
            )
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"the text encoder in '{path}' cannot be read: {first}") from error
        self.tokenizer = read_subwords(path)
        self.encoder.requires_grad_(False).eval()

    @property
    def width(self) -> int:
        """Channels of the tokens and of the pooled text."""
        encoder_config = self.encoder.config
        return getattr(encoder_config, "d_model", None) or encoder_config.hidden_size

    def train(self, mode: bool = True) -> "PretrainedTextEncoder":
        """Stay in evaluation mode: the encoder is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Encode token ids (B M) under their mask (B M); the pooled text is the mean of the real tokens."""
        x = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state  # B M D
        weight = mask[..., None].to(x.dtype)
        return TextFeatures(x, mask, (x * weight).sum(1) / weight.sum(1).clamp(min=1))

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask of prompts, each B M, on the CPU."""
        batch = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.config.max_tokens,
            return_tensors="pt",
        )
        mask = batch.attention_mask.bool()
        # An empty prompt still has one token to attend to.
        mask[:, 0] = True
        return batch.input_ids, mask

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """Features of prompts, on the encoder's device."""
        ids, mask = self.tokenize(prompts)
        return self(ids.to(self.device), mask.to(self.device))

    def check(self, prompt: str) -> list[str]:
        """A subword tokenizer knows every word."""
        return []

    @property
    def lengths(self) -> CaptionTokenizer:
        """The tokenizer, asked how much of a prompt is read."""
        return Subwords(self.tokenizer, self.config.max_tokens)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Write encoder, tokenizer and the limit of tokens into the folder itself."""
        self.encoder.save_pretrained(save_directory)
        self.tokenizer.save_pretrained(save_directory)
        write_json(Path(save_directory) / _OWN, {"max_tokens": self.config.max_tokens})

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, max_tokens: int | None = None, **kwargs: Any
    ) -> "PretrainedTextEncoder":
        """Read an encoder from a folder, saved by this class or by transformers.

        Args:
            path: the folder.
            max_tokens: longer captions are cut; by default as when it was saved, 77 in a folder of transformers.
            kwargs: what diffusers passes to all parts of a pipeline; not used.

        Raises:
            UserError: the folder is not such an encoder, or its minisora.json is damaged.
        """
        file = Path(path) / _OWN
        if max_tokens is None and file.is_file():
            try:
                max_tokens = int(read_json(file)["max_tokens"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{file} is damaged: it holds no max_tokens; copy the folder again"
                ) from error
        return cls(str(path)) if max_tokens is None else cls(str(path), max_tokens=max_tokens)
