"""Many texts as vectors."""

from typing import Any

import jax
import numpy as np
import pytest

from incremental.encoders.encode import batches, encode
from incremental.encoders.load import Encoder, load
from incremental.errors import UserError
from tests.encoders.conftest import WORDS, Checkpoint


@pytest.fixture
def encoder(checkpoint: Checkpoint) -> Encoder:
    return load(checkpoint("bert"))


def some(number: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS[4:], rng.integers(1, 9))) for _ in range(number)]


def test_a_vector_depends_on_its_own_text_alone(encoder: Encoder) -> None:
    texts = some(30)
    vectors = encode(encoder, texts, tokens=64)
    assert (vectors.shape, vectors.dtype) == ((30, 8), np.float32)
    ids, mask = encoder.tokenize(texts, 12)
    states: Any = jax.jit(encoder.module.apply)({"params": encoder.params}, ids, mask)
    np.testing.assert_allclose(vectors, np.asarray(jax.jit(encoder.pool)(states, mask)), atol=1e-5)
    np.testing.assert_array_equal(encode(encoder, texts[::-1], tokens=64)[::-1], vectors)
    assert encode(encoder, []).shape == (0, 8)


def test_length_one_and_bfloat16(encoder: Encoder) -> None:
    plain, unit, rough = (
        encode(encoder, ["lip", "red balm"], **chosen)
        for chosen in ({}, {"normalise": True}, {"precision": "bfloat16"})
    )
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(unit * np.linalg.norm(plain, axis=1, keepdims=True), plain, atol=1e-5)
    assert 0 < np.abs(rough - plain).max() < 0.1


def test_a_text_is_cut_where_told(encoder: Encoder) -> None:
    one, other = ("red lip balm nail", "red lip polish blue")  # alike in the first two words
    vectors = encode(encoder, [one, other, "red lip"], length=4, tokens=64)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)


def test_an_empty_text_is_refused(encoder: Encoder) -> None:
    with pytest.raises(UserError, match="text 1: empty"):
        encode(encoder, ["red", ""])


def test_few_shapes_hold_every_text_once() -> None:
    lengths = np.random.default_rng(0).integers(0, 40, 1000)
    made = batches(lengths, 36, 512)
    assert sorted(row for rows, _, _ in made for row in rows) == list(range(1000))
    assert all(len(rows) <= count and width >= min(lengths[rows].max(), 36) for rows, width, count in made)
    assert all(width * count <= 512 for _, width, count in made)
    assert len({(width, count) for _, width, count in made}) <= 10


def test_one_program_a_shape(encoder: Encoder) -> None:
    traced = []

    def pool(states: Any, mask: Any) -> Any:
        traced.append(states.shape)
        return encoder.pool(states, mask)

    texts, counted = some(40), encoder._replace(pool=pool)
    encode(counted, texts, tokens=64)
    other = jax.tree.map(lambda leaf: leaf * 2, encoder.params)
    encode(counted._replace(params=other), texts[5:], tokens=64)
    assert len(traced) == len(set(traced)) == 2
