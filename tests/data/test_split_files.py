from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from incremental.data.cutting import given_periods
from incremental.data.interactions import encode
from incremental.data.sources.split_files import split_files
from incremental.data.stream import Stream, make_stream
from incremental.errors import UserError

TRAIN = "session,item,at\n7,x,5000\n7,y,6500\n3,x,2000\n"
TEST = "session,item,at\n9,y,9000\n9,x,9500\n"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "train.csv").write_text(TRAIN)
    (tmp_path / "test.csv").write_text(TEST)
    return str(tmp_path)


def stream(folder: str, **time: Any) -> Stream:
    table = split_files(path=folder, user="session", **time)
    return make_stream(source=table, cut=given_periods(), ties="file", validation=0.0)


def users(made: Stream) -> list[str]:
    return [made.interactions.users[user] for user in made.interactions.user]


def test_without_times_the_order_is_that_of_the_lines(folder: str) -> None:
    made = stream(folder)
    assert users(made) == ["7", "7", "3", "9", "9"]
    assert made.increment.tolist() == [0, 0, 0, 1, 1]
    history = made.features["history"]
    rows = made.training_examples([0, 1], validation=None, inputs=["history"])
    items = made.interactions.items
    assert [[items[i] for i in row if i] for row in history.of(made.interactions, rows)] == [["x"], ["y"]]


def test_with_times_the_files_are_the_cut_still(folder: str) -> None:
    made = stream(folder, time="at", time_unit="ms")
    assert users(made) == ["3", "7", "7", "9", "9"]
    assert made.increment.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_array_equal(made.interactions.time, [2, 5, 6, 9, 9])
    np.testing.assert_array_equal(made.interactions.fraction, [0, 0, 500_000_000, 0, 500_000_000])


def test_what_is_wrong_is_told_with_its_file(folder: str, documented: Any) -> None:
    with pytest.raises(UserError, match=r"valid.csv: there is no such file.* Set data.source.path") as error:
        split_files(path=folder, names=["train.csv", "valid.csv"], user="session")
    documented("a file of a split that is not there", error.value)
    with pytest.raises(UserError, match=r"time_unit=ms without data\.source\.time") as error:
        split_files(path=folder, user="session", time_unit="ms")
    documented("a unit of times that are not read", error.value)
    with pytest.raises(UserError, match=r"names is \['a.csv', 'a.csv'\]") as error:
        split_files(path=folder, names=["a.csv", "a.csv"])
    documented("a file of a split that is named twice", error.value)
    (Path(folder) / "test.csv").write_text("session,item\n1,x\n2,\n")
    with pytest.raises(UserError, match=r"test.csv, row 3, column 'item'"):
        encode(split_files(path=folder, user="session"))


def test_a_quote_may_be_a_character_as_the_message_says(folder: str) -> None:
    (Path(folder) / "test.csv").write_text('session,item\n9,6" pan\n9,"x\n')
    with pytest.raises(UserError, match=r"test.csv, row 3: its quotes do not fit .* data.source.quoted=false"):
        split_files(path=folder, user="session")
    assert split_files(path=folder, user="session", quoted=False).frame["item"].to_list()[-2:] == ['6" pan', '"x']


def test_an_id_is_what_its_own_file_has(tmp_path: Path) -> None:
    def parquet(name: str, users: list[float | None], dtype: type[pl.DataType]) -> None:
        frame = pl.DataFrame({"session": pl.Series(users, dtype=dtype), "item": ["x", "y"]})
        frame.write_parquet(tmp_path / name)

    names = ["a.parquet", "b.parquet"]
    parquet("a.parquet", [7, 8], pl.Float64)
    parquet("b.parquet", [8, 9], pl.Int64)
    assert encode(split_files(path=str(tmp_path), names=names, user="session")).users == ["", "7", "8", "9"]
    parquet("a.parquet", [7, 2.0**24], pl.Float32)
    with pytest.raises(UserError, match=r"a.parquet, row 2, column 'session': .* Float32 cannot tell whole numbers"):
        encode(split_files(path=str(tmp_path), names=names, user="session"))
