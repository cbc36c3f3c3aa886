"""Text: a reproducible vocabulary, masks that hide padding, and transformers' encoders from a folder."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minisora.errors import UserError
from minisora.models.text import PretrainedTextEncoder, TextEncoder
from minisora.models.tokenizer import Tokenizer, build_vocabulary

CAPTIONS = ["a red circle moving left", "a blue square, moving up", "A RED triangle"]


@pytest.fixture
def encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(build_vocabulary(CAPTIONS, 100), width=16, depth=1, heads=2, max_tokens=12).eval()


def test_vocabulary_is_by_frequency_then_alphabet() -> None:
    assert build_vocabulary(CAPTIONS, 4) == ["a", "moving", "red", ","]
    assert build_vocabulary(reversed(CAPTIONS), 100) == build_vocabulary(CAPTIONS, 100)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_tokenizer_takes_any_text(prompts: list[str]) -> None:
    ids, mask = Tokenizer(["a", "red"], 8)(prompts)
    assert ids.shape == mask.shape == (len(prompts), 8)
    assert mask[:, 0].all()


def test_features_do_not_depend_on_the_rest_of_the_batch(encoder: TextEncoder) -> None:
    alone = encoder.encode(["a red circle"])
    together = encoder.encode(["a red circle", "a blue square, moving up up up up"])
    real = alone.mask[0].sum()
    torch.testing.assert_close(together.tokens[0, :real], alone.tokens[0, :real], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.pooled[0], alone.pooled[0], atol=1e-4, rtol=1e-4)
    assert (together.pooled[0] - together.pooled[1]).abs().max() > 1e-3


def test_a_prompt_without_a_known_word_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(UserError, match="knows no word of the prompt 'circel'.*did you mean 'circle'"):
        encoder.check("circel")
    assert encoder.check("a green circle") == ["green"]
    assert encoder.check("") == []


def test_the_saved_encoder_carries_its_tokenizer(encoder: TextEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    loaded = TextEncoder.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded.encode(CAPTIONS).tokens, encoder.encode(CAPTIONS).tokens)


def _tiny_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    fast = Fast(WordLevel({"<pad>": 0, "<unk>": 1, "a": 2, "red": 3, "circle": 4}, unk_token="<unk>"))
    fast.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        folder
    )


@pytest.mark.parametrize("kind", ["t5", "clip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_local_transformers_encoder(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "t5":
        config = transformers.T5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        transformers.T5EncoderModel(config).to(dtype).save_pretrained(tmp_path / "in")
    else:
        config = transformers.CLIPTextConfig(
            vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
        transformers.CLIPTextModel(config).to(dtype).save_pretrained(tmp_path / "in")
    _tiny_tokenizer(tmp_path / "in")
    encoder = PretrainedTextEncoder(str(tmp_path / "in"), max_tokens=6)
    features = encoder.encode(["a red circle", ""])
    assert features.tokens.shape == (2, 6, 16) == (2, 6, encoder.width)
    # As the rest of the model, whatever its folder says.
    assert features.tokens.dtype == torch.float32
    assert features.mask.tolist() == [[True] * 3 + [False] * 3, [True] + [False] * 5]
    assert not any(p.requires_grad for p in encoder.parameters())
    encoder.save_pretrained(tmp_path / "out")
    again = PretrainedTextEncoder.from_pretrained(tmp_path / "out")
    assert again.config.max_tokens == 6
    assert again.encode(["a red circle"]).tokens.shape == (1, 6, 16)
    assert PretrainedTextEncoder.from_pretrained(tmp_path / "out", max_tokens=4).config.max_tokens == 4
    assert PretrainedTextEncoder.from_pretrained(tmp_path / "in").config.max_tokens == 77  # of transformers
    torch.testing.assert_close(again.encode(["a red circle"]).pooled, encoder.encode(["a red circle"]).pooled)


def test_a_damaged_limit_of_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "minisora.json").write_text("{}")
    with pytest.raises(UserError, match=r"minisora\.json is damaged: it holds no max_tokens"):
        PretrainedTextEncoder.from_pretrained(tmp_path)


def test_a_folder_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text encoder in"):
        PretrainedTextEncoder(str(tmp_path))
