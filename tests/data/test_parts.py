"""Folders and patterns are one log; titles that match nothing are not silent."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

from incremental.data.interactions import Table, encode
from incremental.data.sources.columns import columns
from incremental.data.sources.diginetica import diginetica
from incremental.data.sources.inter import inter
from incremental.data.sources.lastfm import lastfm
from incremental.data.sources.mind import mind
from incremental.data.sources.movielens import ratings_dat, u_data
from incremental.errors import UserError
from tests.data.layouts import LAYOUTS

Documented = Callable[[str, object], None]


def message(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    return str(error.value)


NOW = 1_700_000_000


def users(table: Table) -> list[str]:
    return [str(user) for user in table.frame["user"]]


def frame(n: int) -> pl.DataFrame:
    return pl.DataFrame({"user": [n, n + 1], "item": [5, n], "time": [NOW + 10 * n, NOW + 10 * n + 1]})


@pytest.fixture
def spark(tmp_path: Path) -> Path:
    """A folder as a cluster writes it."""
    folder = tmp_path / "events.parquet"
    folder.mkdir()
    for n in (3, 1, 2):
        frame(n).write_parquet(folder / f"part-{n:05}.snappy.parquet", compression="snappy")
        (folder / f".part-{n:05}.snappy.parquet.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").touch()
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / "part-9.parquet").write_bytes(b"half")
    return folder


def test_a_folder_and_a_pattern_of_parquet_files_are_one_log(spark: Path) -> None:
    whole = columns(path=str(spark))
    assert users(whole) == ["1", "2", "2", "3", "3", "4"]
    assert whole.frame["line"].to_list() == [1, 2, 1, 2, 1, 2]
    assert users(columns(path=f"{spark}/part-*.parquet")) == users(whole)
    assert columns(path=f"{spark}/part-0000[12]*").frame.height == 4
    assert columns(path=f"{spark.parent}/*.parquet").frame.height == 6  # the pattern matches the folder
    one = columns(path=str(spark / "part-00002.snappy.parquet"))
    assert users(one) == ["2", "3"]
    assert len(encode(whole)) == 6


def test_the_notes_of_many_files_are_few(tmp_path: Path) -> None:
    def notes(files: int) -> tuple[str, ...]:
        for n in range(files):
            (tmp_path / f"{n}.csv").write_text(f"user,item,time,cat\na,x,{NOW + n},c\nb,y,{NOW + n}\n")
        return columns(path=str(tmp_path)).notes

    assert [f"{n}.csv: 1 rows have fewer" in note for n, note in enumerate(notes(5))] == [True] * 5
    *first, last = notes(9)
    assert (len(first), last) == (5, f"{tmp_path}: 4 more notes on its files")


@pytest.mark.parametrize("other", [pl.Int64, pl.Float64, pl.String])
@pytest.mark.parametrize(("floats", "several"), [(pl.Float32, 2.0**24), (pl.Float64, 7.5), (pl.Float64, 2.0**53)])
def test_a_float_is_an_id_of_its_own_file(
    tmp_path: Path, floats: type[pl.DataType], several: float, other: type[pl.DataType]
) -> None:
    """Joined with another file's type, it would no longer look like a float of few digits."""
    for kind in ("user", "item"):
        for name, first, dtype in (("a", 7, floats), ("b", 8, other)):
            own = frame(3).with_columns(pl.Series(kind, [first, None], dtype=pl.Int64).fill_null(9).cast(dtype))
            own.write_parquet(tmp_path / f"{name}.parquet")
        assert encode(columns(path=str(tmp_path))).vocabulary(kind)[1:] == ["7", "8", "9"]
        frame(3).with_columns(pl.Series(kind, [7, several], dtype=floats)).write_parquet(tmp_path / "a.parquet")
        said = message(lambda: encode(columns(path=str(tmp_path))))
        assert f"a.parquet, row 2, column '{kind}': the value is " in said
        assert "expected text or whole numbers" in said


def test_a_folder_of_csv_files_is_one_log_and_a_row_names_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "months"
    folder.mkdir()
    for n in (1, 2, 3):
        frame(n).write_csv(folder / f"2024-{n}.csv")
    (folder / "2024-4.csv").write_text("user,item,time\n")  # a month without events
    (folder / "2024-5.csv").touch()
    assert users(columns(path=str(folder))) == ["1", "2", "2", "3", "3", "4"]
    (folder / "2024-2.csv").write_text("user,item,time\n7,8,9\n7,8,soon\n")
    assert message(lambda: columns(path=str(folder))).startswith(f"{folder}/2024-2.csv, row 3, column 'time'")
    (folder / "2024-2.csv").write_text("user,item,time\n7,8,9\n7,,10\n")  # refused after the reading
    said = message(lambda: encode(columns(path=str(folder))))
    assert said.startswith(f"{folder}/2024-2.csv, row 3, column 'item'")
    (folder / "2024-2.csv").write_text("user;item;time\n7;8;9\n")
    assert "2024-2.csv: column 'user' is missing" in message(lambda: columns(path=str(folder)))


def test_folders_are_documented(tmp_path: Path, documented: Documented) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "_SUCCESS").touch()
    documented("a folder without files", message(lambda: columns(path=f"{tmp_path}/empty")))
    documented("a pattern that matches nothing", message(lambda: columns(path=f"{tmp_path}/*.csv")))
    (tmp_path / "empty" / "a.csv").write_text("user,item,time\n")
    documented("a folder whose files have no rows", message(lambda: columns(path=f"{tmp_path}/empty")))
    frame(1).write_csv(tmp_path / "empty" / "a.csv")
    (tmp_path / "empty" / "readme.txt").write_text("what this is\nevents\n")
    documented("a folder with a file of another kind", message(lambda: columns(path=f"{tmp_path}/empty")))


def test_partitions_are_columns(tmp_path: Path) -> None:
    for behaviour, n in (("view", 1), ("buy%20now", 2)):
        folder = tmp_path / "log" / "year=2024" / f"kind={behaviour}"
        folder.mkdir(parents=True)
        frame(n).write_parquet(folder / "part-0.parquet")
    table = columns(path=f"{tmp_path}/log", behaviour="kind")
    assert table.frame["behaviour"].to_list() == ["buy now", "buy now", "view", "view"]
    assert columns(path=f"{tmp_path}/log/year=2024/kind=view/part-0.parquet").frame.height == 2
    assert columns(path=f"{tmp_path}/log/*/kind=*", behaviour="kind").frame.height == 4


def test_a_name_with_the_signs_of_a_pattern_is_a_name(tmp_path: Path) -> None:
    frame(1).write_csv(tmp_path / "a[1]*.csv")
    frame(2).write_parquet(tmp_path / "b[1].parquet")
    assert columns(path=f"{tmp_path}/a[1]*.csv").frame.height == 2
    assert users(columns(path=f"{tmp_path}/b[1].parquet")) == ["2", "3"]


def test_a_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    frame(1).write_csv(tmp_path / "a.csv")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert columns(path=str(tmp_path)).frame.height == 2


def test_parts_of_other_types_and_broken_ones(tmp_path: Path, documented: Documented) -> None:
    frame(1).write_parquet(tmp_path / "a.parquet")
    frame(2).with_columns(pl.col("user").cast(pl.Int32), extra=1).write_parquet(tmp_path / "b.parquet")
    assert columns(path=str(tmp_path)).frame.height == 4
    data = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(data[: len(data) // 2])
    documented("a Parquet file that ends early", message(lambda: columns(path=str(tmp_path))))
    for cut in range(4, len(data), 37):
        (tmp_path / "b.parquet").write_bytes(data[:cut] + bytes(20) + data[cut + 20 :])
        with contextlib.suppress(UserError):
            columns(path=str(tmp_path / "b.parquet"))


def test_titles_may_lie_in_a_folder_and_inter_takes_a_pattern(tmp_path: Path) -> None:
    frame(1).write_csv(tmp_path / "events.csv")
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "a.csv").write_text("item,title\n5,Five\n")
    pl.DataFrame({"item": [1], "title": ["One"]}).write_parquet(tmp_path / "items" / "b.parquet")
    (tmp_path / "items" / "b.parquet").rename(tmp_path / "one.parquet")
    assert columns(path=f"{tmp_path}/events.csv", items_path="items", text="title").text == {"5": "Five"}
    assert columns(path=f"{tmp_path}/events.csv", items_path="*.parquet", text="title").text == {"1": "One"}
    text = LAYOUTS["inter"].text
    (tmp_path / "ml.train.inter").write_text(text)
    (tmp_path / "ml.test.inter").write_text(text)
    assert inter(path=f"{tmp_path}/ml.*.inter").frame.height == 6


def test_a_row_of_a_period_names_its_file_after_the_reading(tmp_path: Path) -> None:
    (tmp_path / "period_0.txt").write_text("7 1\n8 2\n")
    (tmp_path / "period_1.txt").write_text("7 1\n8  \n".replace("8  ", "8 \t"))
    assert message(lambda: encode(diginetica(path=str(tmp_path)))).startswith(f"{tmp_path}/period_1.txt, row 2")


# -- titles -------------------------------------------------------------------------------------------


class Titled(NamedTuple):
    """The file with the titles of a layout, its header and a line of it, an event of a further item, a reader."""

    file: str
    header: str
    line: str
    more: str
    item: str
    read: Callable[[str], Table]


TITLES = {
    "columns": Titled(
        "items.csv",
        "item,title\n",
        "{},T\n",
        "c,z,400\n",
        "x",
        lambda f: columns(path=f"{f}/events.csv", items_path="items.csv", text="title"),
    ),
    "inter": Titled(
        "ml.item",
        "item_id:token\ttitle:token_seq\n",
        "{}\tT\n",
        "c\tz\t4\n",
        "x",
        lambda f: inter(path=f"{f}/ml.inter", text="title"),
    ),
    "ratings.dat": Titled("movies.dat", "", "{}::T::G\n", "3::12::5::40\n", "11", lambda f: ratings_dat(path=f)),
    "u.data": Titled("u.item", "", "{}|T|x\n", "1\t303\t3\t881250950\n", "302", lambda f: u_data(path=f)),
    "mind": Titled("news.tsv", "", "{}\ta\tb\tT\tc\td\te\tf\n", "", "N2", lambda f: mind(path=f)),
    "lastfm": Titled(
        "artists.dat", "id\tname\turl\n", "{}\tT\tu\n", "3\t54\t1\t31\t12\t2010\n", "53", lambda f: lastfm(path=f)
    ),
}


@pytest.mark.parametrize("name", TITLES)
def test_titles_that_match_nothing_are_an_error_and_few_are_a_note(tmp_path: Path, name: str) -> None:
    file, header, line, more, item, read = TITLES[name]
    (tmp_path / LAYOUTS[name].file).write_text(LAYOUTS[name].text + more)
    (tmp_path / file).write_text(header + line.format("no-such"))
    said = message(lambda: read(str(tmp_path)))
    assert f"{file}: none of its 1 titles belongs to an item" in said
    assert "'no-such'" in said
    (tmp_path / file).write_text(header + line.format(item))
    table = read(str(tmp_path))
    assert list(table.text) == [item]
    assert any(f"{file}: 2 of 3 items have no title" in note for note in table.notes)


def test_titles_are_documented(tmp_path: Path, documented: Documented) -> None:
    (tmp_path / "events.csv").write_text("user,item,time\na,12.0,1\nb,13.0,2\n")
    (tmp_path / "items.csv").write_text("item,title\n012,Twelve\n013,Thirteen\n")
    said = message(lambda: columns(path=f"{tmp_path}/events.csv", items_path="items.csv", text="title"))
    documented("titles of which none belongs to an item", said)


def test_lines_that_are_no_title_are_counted(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::5::20\n2::11::4::10\n")
    (tmp_path / "movies.dat").write_text("10::A::x\nbroken\n11::B::y\n12::C\n")
    table = ratings_dat(path=str(tmp_path))
    assert table.text == {"10": "A: x", "11": "B: y"}
    assert "2 lines have no title (the first: row 2)" in table.notes[0]


def test_impressions_without_a_click_are_counted(tmp_path: Path) -> None:
    (tmp_path / "behaviors.tsv").write_text(LAYOUTS["mind"].text + "4\tU4\t11/12/2019 2:14:49 PM\tN9\tN1-0\n")
    assert "1 of 4 impressions have no click" in mind(path=str(tmp_path)).notes[0]
