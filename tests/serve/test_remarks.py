"""An answer that is empty, or shorter than what was asked for, says why."""

from pathlib import Path

import polars as pl
import pytest

from incremental.serve.export import without
from incremental.serve.recommend import joined, remark


@pytest.mark.parametrize("user", ["-0Ji0n", "--help", "-k", "--user", "a b/c", ""])
def test_an_id_is_an_id_whatever_it_begins_with(user: str) -> None:
    assert joined(["RUN", "--user", user, "-k", "3"]) == ["RUN", f"--user={user}", "-k", "3"]
    assert joined(["RUN", f"--user={user}"]) == ["RUN", f"--user={user}"]


def test_why_there_is_nothing_or_less() -> None:
    assert remark("bot", 5, 5, include_seen=False) == ""
    assert remark("bot", 0, 5, include_seen=False).startswith("user bot: nothing to recommend, the user has had every")
    assert "--include-seen" in remark("bot", 0, 5, include_seen=False)
    assert remark("7", 38, 100, include_seen=False).startswith("user 7: 38 items are left that the user has not had")
    assert remark("7", 48, 100, include_seen=True) == "user 7: the model knows 48 items, fewer than -k 100"


def test_an_export_says_whom_it_leaves_out(tmp_path: Path) -> None:
    pl.DataFrame({"user": ["bot", "7", "8"]}).write_parquet(tmp_path / "users.parquet")
    scores = pl.DataFrame({"user": ["7", "7", "8"], "item": ["1", "2", "1"]})
    scores.write_parquet(tmp_path / "scores.parquet")
    assert without(tmp_path / "users.parquet") == ""
    assert "without rows of 1 users" in without(tmp_path / "scores.parquet")
    assert "such as bot" in without(tmp_path / "scores.parquet")
    pl.DataFrame({"user": ["bot", "7", "8"]}).write_parquet(tmp_path / "scores.parquet")
    assert without(tmp_path / "scores.parquet") == ""
