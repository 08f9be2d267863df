"""Item titles as numbers: those of a log, and vectors without a language model."""

import unicodedata
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from incremental.data.ids import WORDS
from incremental.data.interactions import Interactions, Side
from incremental.domains import Count, checked
from incremental.errors import UserError

Encoder = Callable[[Sequence[str]], npt.NDArray[np.float32]]


def with_texts(log: Interactions, encode: Encoder, origin: str) -> tuple[Interactions, tuple[str, ...]]:
    """The log with what `encode` makes of its titles as the side table "text"; and what there is to be said of them."""
    if log.titles is None:
        raise UserError(
            f"data.text: {origin} has no titles; name the column with them (data.source.text), or set it to null"
        )
    notes: tuple[str, ...] = ()
    if not any(log.titles):  # of a live log, whose items may have some later
        notes = (f"data.text: no item of {origin} has a title, so that all texts are empty",)
    nothing = [title for title in log.titles if title.strip() in WORDS]
    if len(nothing) > 1:
        notes += (
            f"data.text: {len(nothing):,} items of {origin} have a title such as {nothing[0]!r}, which is read as "
            "a text; empty these cells if there is no title",
        )
    return replace(log, side={"text": Side("item", encode(log.titles))}), notes


@checked
def hashed_words(*, width: Count = 256) -> Encoder:
    """Titles -> [titles, `width`] float32: each word adds ±1 at the place its hash says (Weinberger et al. 2009, arXiv
    0902.2206), then length 1. A title without words (`words`) is 0. One title's vector depends on no other's.

    >>> one, other, third, empty = hashed_words(width=64)(["Blue Moon", "moon, blue!", "red moon", "?"])
    >>> bool((one == other).all()), round(float(one @ one), 6), bool((one == third).all()), float(empty @ empty)
    (True, 1.0, False, 0.0)
    """

    def encode(titles: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = np.zeros((len(titles), width), np.float32)
        for vector, title in zip(vectors, titles, strict=True):
            for word in words(title):
                place, sign = divmod(zlib.crc32(word.encode()), 2)
                vector[place % width] += 1 - 2 * sign
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, length, out=vectors, where=length > 0)

    return encode


def words(title: str) -> list[str]:
    """The runs of letters, their marks and digits of any script (Unicode's L, M and N), case folded, composed (NFC).

    What stands between them (spaces, punctuation, symbols) belongs to no word.

    >>> words("Crime, CRIME & (neo-)noir: Straße 3")
    ['crime', 'crime', 'neo', 'noir', 'strasse', '3']
    """
    folded = unicodedata.normalize("NFC", title.casefold())
    return "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded).split()
