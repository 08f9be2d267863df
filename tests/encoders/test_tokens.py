"""Texts as ids."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from incremental.encoders.layers import Config
from incremental.encoders.tokens import check, tokenizer
from incremental.errors import UserError
from tests.encoders.conftest import WORDS, write_tokenizer

CONFIG = Config(vocabulary=24, width=8, layers=1, heads=1, inner=8, positions=12, activation="gelu")


def test_ids_and_mask_of_several_texts(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenize = tokenizer(tmp_path, CONFIG)
    ids, mask = tokenize(["red lip balm", "", "nail polish red blue nail", "gloss"], 5)
    assert ids.tolist() == [[2, 6, 4, 5, 3], [0] * 5, [2, 8, 9, 6, 3], [2, 1, 3, 0, 0]]
    assert mask.sum(1).tolist() == [5, 0, 5, 3]
    assert (ids.dtype, mask.dtype) == (np.int32, np.bool_)
    assert [each.shape for each in tokenize([], 5)] == [(0, 5), (0, 5)]


def test_without_a_padding_token_it_is_the_end_of_text(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, pad=False, template=False)
    ids, mask = tokenizer(tmp_path, CONFIG)(["red lip"], 4)
    assert ids.tolist() == [[6, 4, 3, 3]]
    assert mask.tolist() == [[True, True, False, False]]


def test_a_tokenizer_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer \(tokenizer.json, vocab.txt, vocab.json\); copy the che"):
        tokenizer(tmp_path, CONFIG)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"no tokenizer that transformers reads .*; copy it again"):
        tokenizer(tmp_path, CONFIG)
    write_tokenizer(tmp_path, words=(*WORDS, *map(str, range(15))))
    with pytest.raises(UserError, match="the tokenizer has 25 tokens, the encoder's table 24 rows; expected the tok"):
        tokenizer(tmp_path, CONFIG)
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(UserError, match=r"neither pad_token nor eos_token; name one in tokenizer_config.json"):
        tokenizer(tmp_path, CONFIG)


@pytest.mark.parametrize(("template", "least"), [(True, 3), (False, 1)])
def test_a_length_without_room_for_the_text(tmp_path: Path, template: bool, least: int) -> None:
    write_tokenizer(tmp_path, template=template)
    tokenize = tokenizer(tmp_path, CONFIG)
    one, other = tokenize(["red", "blue"], least)[0].tolist()
    assert one != other
    said = rf"expected {least} \(one token of the text, {least - 1} that .* to 12, the encoder's positions"
    for length in (least - 1, 13):
        with pytest.raises(UserError, match=f"length={length}: {said}"):
            tokenize(["red"], length)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"rouge", "text 1: bytes, expected text; decode bytes first"),
        (None, "text 1: NoneType, expected text"),
        ("ros\udce9", r"text 1: '\\udce9' at character 3 is not UTF-8 text; read the file in its own encoding"),
    ],
)
def test_what_is_no_text(tmp_path: Path, text: Any, said: str) -> None:
    write_tokenizer(tmp_path)
    with pytest.raises(UserError, match=said):
        tokenizer(tmp_path, CONFIG)(["red", text], 4)


def test_an_empty_text_is_named() -> None:
    check(["red", " \t"])
    with pytest.raises(UserError, match="item 7: empty; leave it out, or give the item a text"):
        check(["red", " \t"], name=lambda i: f"item {i + 6}", empty=False)
