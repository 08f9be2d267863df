"""Titles as an encoder's vectors, and the file that keeps them."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from incremental.data import encoded as module
from incremental.data.encoded import encoded, states
from incremental.data.tokens import tokens
from incremental.encoders import encode as encoders
from incremental.encoders.encode import encode
from incremental.encoders.load import load
from incremental.errors import UserError
from tests.encoders.conftest import checkpoint  # noqa: F401

TITLES = ["", "lip balm", "red nail polish", "lip balm", " "]


def test_a_title_is_what_the_encoder_makes_of_it(checkpoint: Any, tmp_path: Path) -> None:  # noqa: F811
    folder = checkpoint("bert")
    vectors = encoded(path=str(folder), cache=str(tmp_path / "kept"))(TITLES)
    np.testing.assert_array_equal(vectors[[0, 4]], 0.0)
    expected = encode(load(folder), ["lip balm", "red nail polish"], length=64, normalise=True)
    np.testing.assert_array_equal(vectors[[1, 2, 3]], expected[[0, 1, 0]])
    # Alone, as in a stream that is cut short.
    np.testing.assert_array_equal(encoded(path=str(folder), cache=str(tmp_path / "other"))(TITLES[:2]), vectors[:2])
    # Where there is no title yet, as at the beginning of a log.
    none = encoded(path=str(folder), cache=str(tmp_path / "third"))(["", " "])
    np.testing.assert_array_equal(none, np.zeros((2, vectors.shape[1])))


def test_only_what_is_new_is_encoded(checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    folder, kept = checkpoint("bert"), tmp_path / "kept"
    done: list[list[str]] = []
    original = encoders.encode

    def noted(encoder: Any, texts: Any, **settings: Any) -> Any:
        done.append(list(texts))
        return original(encoder, texts, **settings)

    monkeypatch.setattr(encoders, "encode", noted)
    first = encoded(path=str(folder), cache=str(kept))(TITLES)
    np.testing.assert_array_equal(encoded(path=str(folder), cache=str(kept))(TITLES), first)
    assert done == [["lip balm", "red nail polish"]]
    np.testing.assert_array_equal(encoded(path=str(folder), cache=str(kept))([*TITLES, "blue lip"])[:-1], first)
    assert done[1:] == [["blue lip"]]
    (own,) = kept.iterdir()
    # Another setting, and another content of the folder, are other vectors.
    encoded(path=str(folder), cache=str(kept), normalise=False)(TITLES)
    (folder / "tokenizer_config.json").write_text((folder / "tokenizer_config.json").read_text() + "\n")
    encoded(path=str(folder), cache=str(kept))(TITLES)
    assert done[2:] == [["lip balm", "red nail polish"]] * 2
    assert len(list(kept.iterdir())) == 3
    # As is a folder elsewhere with the same content.
    moved = folder.rename(tmp_path / "moved")
    encoded(path=str(moved), cache=str(kept))(TITLES)
    assert len(done) == 4
    assert own.exists()


def test_a_stop_while_writing_leaves_what_was_there(checkpoint: Any, tmp_path: Path, monkeypatch: Any) -> None:  # noqa: F811
    folder, kept = checkpoint("bert"), tmp_path / "kept"
    first = encoded(path=str(folder), cache=str(kept))(TITLES)

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.np, "savez", stopped)
    with pytest.raises(KeyboardInterrupt):
        encoded(path=str(folder), cache=str(kept))([*TITLES, "blue"])
    monkeypatch.undo()
    np.testing.assert_array_equal(encoded(path=str(folder), cache=str(kept))(TITLES), first)


def test_two_runs_that_write_lose_nothing(checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Another run reads and writes the cache between this one's reading and its writing."""
    folder, kept = checkpoint("bert"), tmp_path / "kept"
    own = encoded(path=str(folder), cache=str(kept))
    done: list[str] = []
    original = encoders.encode

    def beside(encoder: Any, texts: Any, **settings: Any) -> Any:
        done.extend(texts)
        if "blue" not in texts:
            own(["lip balm", "blue"])
        return original(encoder, texts, **settings)

    monkeypatch.setattr(encoders, "encode", beside)
    own(["lip balm", "red"])
    assert sorted(done) == ["blue", "lip balm", "lip balm", "red"]
    own(["lip balm", "red", "blue"])  # all are there
    assert len(done) == 4
    assert not list(kept.rglob("*.part"))


def test_a_length_without_room_for_a_title_is_refused(checkpoint: Any, tmp_path: Path) -> None:  # noqa: F811
    folder = checkpoint("bert")
    for make in (encoded, states):
        with pytest.raises(UserError, match=r"length=2: expected 3 \(one token of the text, 2 that the tokenizer puts"):
            make(path=str(folder), length=2, cache=str(tmp_path / "kept"))(TITLES)
    with pytest.raises(UserError, match=r"length=2: expected 3 "):
        tokens(path=str(folder), length=2)(TITLES)
    one, other = encoded(path=str(folder), length=3, cache=str(tmp_path / "kept"))(["lip balm", "red"])
    assert (one != other).any()


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="length=0: expected a whole number >= 1"):
        encoded(path="x", length=0)
    with pytest.raises(UserError, match=r"no/where: no such folder"):
        encoded(path="no/where", cache=str(tmp_path))(TITLES)
    with pytest.raises(UserError, match=r"data\.text: the title of item 1: .* is not UTF-8"):
        encoded(path="no/where", cache=str(tmp_path))(["a", "b\ud800"])


def test_a_cache_that_is_broken_or_cannot_be_written_costs_a_line(
    checkpoint: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: Any,
    capsys: pytest.CaptureFixture[str],
    documented: Any,
) -> None:
    folder, kept = checkpoint("bert"), tmp_path / "kept"
    first = encoded(path=str(folder), cache=str(kept))(TITLES)
    (file,) = kept.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(encoded(path=str(folder), cache=str(kept))(TITLES), first)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    documented("text vectors whose file in the cache is cut off", said.replace(file.name, "….npz").replace(
        file.parent.name, "…"))  # fmt: skip
    encoded(path=str(folder), cache=str(kept))(TITLES)
    assert capsys.readouterr().err == ""  # the file was written again
    (tmp_path / "file").write_text("")
    for cache in (tmp_path / "file", tmp_path / "full"):
        np.testing.assert_array_equal(encoded(path=str(folder), cache=str(cache))(TITLES), first)
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "the text vectors cannot be kept" in said
        monkeypatch.setattr(module.np, "savez", disk_is_full)
    assert [*(tmp_path / "full").rglob("*.part")] == []
    documented("text vectors that the disk has no room for", "note: FOLDER: the" + said.partition(": the")[2])
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    np.testing.assert_array_equal(encoded(path=str(folder))(TITLES), first)
    documented("a user without a home folder", capsys.readouterr().err)


def disk_is_full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")
