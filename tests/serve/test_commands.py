"""The commands that read a run: data is no markup, and what the disk refuses is said."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from incremental.serve import export, model, recommend
from incremental.serve.model import Recommendation

FILMS = ["[REC]", "[/b]", "[red]a", ":smile:", "two\nlines", "\x1b[31mred", "東京", "[link=x]"]


@pytest.fixture
def films(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that recommends films with titles of all sorts."""
    found = [Recommendation(str(number), title, 1.0) for number, title in enumerate(FILMS)]
    monkeypatch.setattr(model, "load", lambda _run, **_: SimpleNamespace(recommend=lambda *_, **__: found))


@pytest.mark.usefixtures("films")
def test_every_title_is_printed_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert recommend.main(["run", "--user", "[/i]"]) == 0
    told = capsys.readouterr().out
    assert "user [/i]" in told
    for title in ("[REC]", "[/b]", "[red]a", ":smile:", "two lines", " [31mred", "東京", "[link=x]"):
        assert title in told
    assert "\x1b" not in told
    assert recommend.main(["run", "--user", "1", "--json"]) == 0
    assert [each["title"] for each in json.loads(capsys.readouterr().out)] == FILMS


def test_data_without_titles_has_no_column_for_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Recommendation("a", "", 1.0), Recommendation("b", "", 0.5)]
    monkeypatch.setattr(model, "load", lambda _run, **_: SimpleNamespace(recommend=lambda *_, **__: found))
    assert recommend.main(["run", "--user", "u"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:3]] == [
        ["rank", "item", "score"],
        ["1", "a", "1.000"],
    ]
    found.append(Recommendation("c", "Tea", 0.25))
    assert recommend.main(["run", "--user", "u"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["rank", "item", "title", "score"]


@pytest.mark.usefixtures("films")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_json_is_whole_where_the_terminal_lacks_a_character(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    assert recommend.main(["run", "--user", "1", "--json"]) == 0
    sys.stdout.flush()
    assert [each["title"] for each in json.loads(written.getvalue())] == FILMS


def test_an_export_appears_whole_or_not_at_all(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    documented: Callable[[str, object], None],
) -> None:
    own: Any = SimpleNamespace(seen=np.array([False, True]), items=["", "a"], users={"u": 1}, state=None)
    own.program = SimpleNamespace(tables=lambda _state: {"item": {}})
    own.title = lambda _item: ""
    own.scores = lambda users: np.array([[-np.inf, 1.0]] * len(users), np.float32)
    own.representations = lambda _users: None
    monkeypatch.setattr(model, "load", lambda _run, **_: own)
    (tmp_path / "file").write_text("")
    assert export.main(["run", "--to", str(tmp_path / "file" / "export")]) == 2
    documented("an export into a place that is a file", capsys.readouterr().err)
    write = Path.write_bytes

    def full(path: Path, content: Any) -> int:
        assert isinstance(content, bytes)  # a view of a buffer, kept by the error, ends Python 3.12.1
        if "scores" in path.name:
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert export.main(["run", "--to", str(tmp_path / "to")]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert [*(tmp_path / "to").glob("*.parquet")] == []
    monkeypatch.undo()
    monkeypatch.setattr(model, "load", lambda _run, **_: own)
    assert export.main(["run", "--to", str(tmp_path / "to")]) == 0
    assert {path.name for path in (tmp_path / "to").iterdir()} == {"items.parquet", "users.parquet", "scores.parquet"}
