"""A study names the files that it lacks, and where they are to be had."""

import gzip
import re
from pathlib import Path

import pytest

from experiments.files import MNIST, Published, require, wrong
from incremental.errors import UserError

THREE = Published("Three", "https://example.org/three", {"a.txt": 3, "b.txt": 4, "c.txt": 2})


def test_missing_cut_and_broken_files_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"abcd"))
    (tmp_path / "c.txt").write_bytes(b"cc")
    assert wrong(tmp_path, THREE) == []
    require(tmp_path, THREE)
    (tmp_path / "a.txt").write_bytes(b"ab")
    (tmp_path / "b.txt.gz").write_bytes(b"no gzip")
    (tmp_path / "c.txt").unlink()
    with pytest.raises(UserError) as error:
        require(tmp_path, THREE)
    first, *lines = str(error.value).splitlines()
    assert first == f"path={tmp_path}: not Three, which is at https://example.org/three"
    assert lines[0].strip() == f"{tmp_path / 'a.txt'} has 2 bytes, and 3 as published; fetch it again"
    assert re.fullmatch(rf"  {tmp_path}/b.txt.gz cannot be unpacked \(.*\); fetch it again", lines[1])
    assert lines[2].strip() == f"{tmp_path / 'c.txt'} is not there"


def test_a_folder_that_is_not_there_says_where_the_data_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no such folder; MNIST is to be had at http"):
        require(tmp_path / "none", MNIST)
