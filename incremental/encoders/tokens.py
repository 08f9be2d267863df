"""Texts as token ids, by a checkpoint's own tokenizer."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from incremental.encoders.layers import Config
from incremental.errors import UserError

Tokens = tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]
FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
Tokenize = Callable[[Sequence[str], int], Tokens]


def tokenizer(folder: Path, config: Config, *, prompt: str = "", lower: bool = False) -> Tokenize:
    """`tokenize(texts, length) -> (ids [N, length] int32, mask [N, length] bool)`, padded behind the text.

    A longer text is cut, its closing token kept. A text without words has no tokens: its mask is False throughout.
    `prompt` stands before every other text; `lower`: in small letters. Raises UserError for a tokenizer that does not
    fit the encoder; `tokenize` does so for what is no text, and for a length that leaves no room for a token of the
    text beside those that the tokenizer puts around it.
    """
    from transformers import AutoTokenizer

    if not any((folder / file).is_file() for file in FILES):  # or `transformers` makes one that knows no word
        raise UserError(f"{folder}: no tokenizer ({', '.join(FILES)}); copy the checkpoint's own")
    try:
        own: Any = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # each kind of tokenizer raises its own
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder}: no tokenizer that transformers reads ({said}); copy it again") from None
    if len(own) > config.vocabulary:
        raise UserError(
            f"{folder}: the tokenizer has {len(own):,} tokens, the encoder's table {config.vocabulary:,} rows; "
            "expected the tokenizer that the encoder was trained with"
        )
    padding = own.eos_token_id if own.pad_token_id is None else own.pad_token_id  # GPT-2 has none
    if padding is None:
        raise UserError(
            f"{folder}: the tokenizer has neither pad_token nor eos_token; name one in tokenizer_config.json"
        )

    around = len(own(prompt)["input_ids"])

    def tokenize(texts: Sequence[str], length: int) -> Tokens:
        if not around < length <= config.positions:
            raise UserError(
                f"length={length}: expected {around + 1} (one token of the text, {around} that the tokenizer puts "
                f"around it) to {config.positions}, the encoder's positions"
            )
        check(texts)
        ids = np.full((len(texts), length), padding, np.int32)
        mask = np.zeros((len(texts), length), np.bool_)
        with_words = [i for i, text in enumerate(texts) if text.strip()]
        if with_words:
            given = [prompt + (texts[i].lower() if lower else texts[i]) for i in with_words]
            told = own(given, truncation=True, max_length=length, padding=False)["input_ids"]
            for i, each in zip(with_words, told, strict=True):
                ids[i, : len(each)], mask[i, : len(each)] = each, True
        return ids, mask

    return tokenize


def check(texts: Sequence[str], *, name: Callable[[int], str] = "text {}".format, empty: bool = True) -> None:
    """Raises UserError for what is no text, and with `empty=False` for a text without words; `name` says which."""
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"{name(i)}: {type(text).__name__}, expected text; decode bytes first (UTF-8)")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            wrong = text[error.start]
            raise UserError(
                f"{name(i)}: {wrong!r} at character {error.start} is not UTF-8 text; read the file in its own encoding"
            ) from None
        if not empty and not text.strip():
            raise UserError(f"{name(i)}: empty; leave it out, or give the item a text")
