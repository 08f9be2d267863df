import numpy as np
import polars as pl
import pytest

from incremental.data.interactions import Table, encode
from incremental.data.text import hashed_words, with_texts, words
from incremental.errors import UserError
from tests import lab


def test_words_not_their_order_nor_case_nor_neighbours_make_a_vector() -> None:
    encode = hashed_words(width=32)
    one, other, third, none = encode(["Blue Moon", "moon  BLUE", "red moon", " "])
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)
    np.testing.assert_array_equal(none, 0.0)
    np.testing.assert_allclose(np.linalg.norm([one, third], axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(encode(["red moon"])[0], third)


@pytest.mark.parametrize(
    ("title", "same"),
    [
        ("Crime, Drama", "drama CRIME"),
        ("The Bank (1915): Comedy, Short", "the bank 1915 comedy short"),
        ("sci-fi/fantasy", "sci fi fantasy"),
        ("STRASSE", "straße"),
        ("Café", "cafe\u0301"),  # one character, or a letter and its mark
        ("«Преступление» и наказание!", "преступление И НАКАЗАНИЕ"),
        ("हिन्दी, सिनेमा", "सिनेमा हिन्दी"),  # vowel signs are marks within a word
    ],
)
def test_punctuation_case_and_composition_make_no_other_word(title: str, same: str) -> None:
    one, other = hashed_words(width=4096)([title, same])
    np.testing.assert_array_equal(one, other)
    assert len(words(title)) == len(words(same)) == len(title.replace("-", " ").replace("/", " ").split())
    np.testing.assert_array_equal(hashed_words()(["?!", "—"]), 0.0)


def test_shared_words_are_the_inner_product() -> None:
    one, other = hashed_words(width=4096)(["a b c d", "c d e f"])
    assert float(one @ other) == pytest.approx(0.5)


def test_an_update_sees_the_texts_of_items_that_have_occurred() -> None:
    stream = lab.stream(text=hashed_words(width=16))
    text = stream.interactions.side["text"].values
    program = lab.build(lab.Spec())(lab.sizes_at(stream, 1))
    data, _ = lab.update_data(stream, program, 1)
    known = int(stream.interactions.item[: stream.bounds(1)[1]].max()) + 1
    assert known < len(text)
    np.testing.assert_array_equal(data.side["text"][:known], text[:known])
    np.testing.assert_array_equal(data.side["text"][known:], 0.0)
    short = stream.prefix(1)
    np.testing.assert_array_equal(short.interactions.side["text"].values, text[:known])


def test_a_stream_without_titles_is_refused() -> None:
    with pytest.raises(UserError, match=r"hand-made has no titles; .*data\.source\.text"):
        lab.written([[("u", "a"), ("u", "b")], [("u", "a")]], text=hashed_words())


def test_titles_that_say_that_there_is_none_are_noted() -> None:
    """One may be a title: there is a film called None. Of several the file has the word where it has nothing."""

    def notes(*titles: str) -> tuple[str, ...]:
        items = [str(i) for i in range(len(titles))]
        frame = pl.DataFrame({"user": ["u"] * len(items), "item": items, "time": range(len(items))})
        log = encode(Table(frame, "items.csv", text=dict(zip(items, titles, strict=True))))
        return with_texts(log, hashed_words(width=8), "items.csv")[1]

    assert notes("A", "None", "B") == notes("A", "", "B") == ()
    (note,) = notes("NULL", " NULL", "B")
    assert note.startswith(
        "data.text: 2 items of items.csv have a title such as 'NULL', which is read as a text; empty"
    )
