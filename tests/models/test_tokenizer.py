"""Words in every script, the same however they are encoded; what is cut, and that it is said."""

import unicodedata
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minisora.config import Config, TextConfig, override
from minisora.errors import UserError
from minisora.models.build import build_text_encoder
from minisora.models.captioner import VideoCaptioner
from minisora.models.text import TextEncoder
from minisora.models.tokenizer import (
    UNKNOWN,
    Tokenizer,
    build_vocabulary,
    caption_tokenizer,
    cut_captions,
    fitting_tokens,
    join_words,
    words,
)
from minisora.pipelines.shipped_models import WEIGHTS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red circle, moving left.", ["a", "red", "circle", ",", "moving", "left", "."]),
        ("un CAFÉ rouge", ["un", "café", "rouge"]),
        ("một hình tròn đỏ", ["một", "hình", "tròn", "đỏ"]),  # Vietnamese
        ("빨간 원이 움직인다", ["빨간", "원이", "움직인다"]),  # Korean has spaces
        ("一个红色的圆", ["一", "个", "红", "色", "的", "圆"]),
        ("3个 circle", ["3", "个", "circle"]),
        ("赤い円が、時々", ["赤", "い", "円", "が", "、", "時", "々"]),
        ("スーパー", ["ス", "ー", "パ", "ー"]),
        ("วงกลมสีน้ำเงิน", ["ว", "ง", "ก", "ล", "ม", "สี", "น้ำ", "เ", "งิ", "น"]),  # Thai
        ("एक लाल वृत्त", ["एक", "लाल", "वृत्त"]),  # Hindi
        ("دَائِرَةٌ حَمْرَاءُ", ["دَائِرَةٌ", "حَمْرَاءُ"]),  # Arabic with harakat
        ("می\u200cخواهم \u200c", ["می\u200cخواهم"]),  # Persian, a joiner within a word
        ("দৃশ্য", ["দৃশ্য"]),  # Bengali
        ("cir\u00adcle \u200eleft\ufeff", ["circle", "left"]),  # soft hyphen, direction, byte order mark
        ("👩🏽\u200d🚀 👍🏽❤\ufe0f", ["👩🏽\u200d🚀", "👍🏽", "❤"]),
        ("a\u200bb\x1bc", ["a", "b", "c"]),  # a zero-width space separates, a control character too
        ("\u0301a", ["\u0301a"]),  # a mark without a letter
        ("", []),
    ],
)
def test_words_of_every_script(text: str, expected: list[str]) -> None:
    expected = [unicodedata.normalize("NFC", word) for word in expected]
    for form in ("NFC", "NFD"):
        assert words(unicodedata.normalize(form, text)) == expected


@given(st.text(max_size=30))
def test_words_do_not_depend_on_how_a_text_is_encoded(text: str) -> None:
    # A text of its own: a mark that is put beside another letter by what stands before it may compose with that.
    assert words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text))


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
def test_english_is_split_as_before(text: str) -> None:
    assert words(text) == words(text, version=1)
    assert words(f"{text} é") == [*words(text, version=1), "é"]  # not by the short way of ASCII


@pytest.mark.parametrize("text", ["一个红色的圆 moving left", "a red circle", "สีน้ำเงิน ok", ""])
def test_joined_words_split_alike(text: str) -> None:
    assert words(join_words(words(text))) == words(text)
    assert " " not in join_words(words("一个红色的圆"))


def test_a_new_prompt_of_known_letters_is_understood() -> None:
    captions = ["一个红色的圆向左移动", "一个蓝色的方块向右移动"]
    tokenizer = Tokenizer(build_vocabulary(captions, 100), 24)
    assert tokenizer.check("一个蓝色的圆") == []
    assert tokenizer.check("一个绿色的圆") == ["绿"]
    ids, mask = tokenizer(["一个蓝色的圆"])
    assert mask.sum() == 7
    assert UNKNOWN not in ids


def test_an_old_model_keeps_its_tokenizer(tmp_path: Path) -> None:
    shipped = TextEncoder.from_pretrained(WEIGHTS / "toy" / "text_encoder")
    assert shipped.tokenizer.version == 1
    old = TextEncoder(["e\u0301"[0], "\u0301"], width=8, depth=1, heads=2)
    old.save_pretrained(tmp_path / "old")
    assert TextEncoder.from_pretrained(tmp_path / "old").tokenizer.words("e\u0301") == ["e", "\u0301"]
    new = build_text_encoder(Config(text=TextConfig(width=8, depth=1, heads=2)), ["e\u0301"])
    assert isinstance(new, TextEncoder)
    new.save_pretrained(tmp_path / "new")
    again = TextEncoder.from_pretrained(tmp_path / "new")
    assert again.tokenizer.ids.keys() == {"é"}
    assert again.tokenize(["e\u0301"])[0].equal(again.tokenize(["é"])[0])


def test_a_tokenizer_from_the_future_is_refused() -> None:
    with pytest.raises(UserError, match="tokenizer has version 3, this minisora reads 1 to 2: update"):
        Tokenizer(["a"], 8, version=3)


@pytest.mark.parametrize(
    ("num_words", "tokens"), [(0, 24), (23, 24), (24, 32), (33, 40), (254, 256), (255, 256), (400, 256)]
)
def test_max_tokens_fits_the_captions_within_a_bound(num_words: int, tokens: int) -> None:
    captions = ["short", "word " * num_words]
    tokenizer = caption_tokenizer(TextConfig())
    assert fitting_tokens(tokenizer, captions) == tokens
    tokenizer.max_tokens = tokens
    assert (cut_captions(tokenizer, captions) is None) == (num_words < tokens)


def test_captions_that_are_cut_are_named_with_the_remedy() -> None:
    tokenizer = Tokenizer(["red", "blue"], 4)
    captions = ["in this calm scene red", "in this calm scene blue", "red"]
    ids, _ = tokenizer(captions)
    assert ids[0].equal(ids[1])
    assert cut_captions(tokenizer, captions) == (
        "2 of 3 captions are cut after 'in this calm'; set text.max_tokens=6 (it is 4)"
    )
    tokenizer.longest = 4
    line = cut_captions(tokenizer, captions)
    assert line is not None
    assert line.endswith("'in this calm'; shorten them: the encoder reads 4 tokens at most")
    assert cut_captions(Tokenizer([], 6), captions) is None
    assert cut_captions(tokenizer, []) is None
    long = cut_captions(Tokenizer([], 30), [f"{'word ' * 28}last more"])
    assert long is not None
    assert long.startswith("1 of 1 captions is cut after '... word word")
    assert "word last'; set text.max_tokens=31 (it is 30)" in long


def test_a_config_counts_with_the_fewest_tokens_until_a_run_has_chosen() -> None:
    assert Config().text.max_tokens is None
    assert Config().text.tokens == 24
    assert override({}, ["text.max_tokens=7"]).text.tokens == 7


def test_the_captioner_writes_chinese_without_spaces() -> None:
    torch.manual_seed(0)
    captioner = VideoCaptioner(
        ["红", "圆"], in_channels=2, width=16, blocks=1, depth=1, heads=2, max_tokens=6, tokenizer_version=2
    ).eval()
    with torch.no_grad():
        captioner.head.weight.zero_()
        captioner.head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0]))
    assert captioner.caption(torch.zeros(1, 2, 2, 2, 2))[0].text == "红" * 5
