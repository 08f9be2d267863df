"""The files of published data sets, as they are published."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from incremental.data.interactions import Table, encode
from incremental.data.sources.columns import columns
from incremental.data.sources.diginetica import diginetica
from incremental.data.sources.inter import inter
from incremental.data.sources.lastfm import lastfm
from incremental.data.sources.mind import mind
from incremental.data.sources.movielens import ratings_dat, u_data
from tests.data.layouts import Write, refused, seconds

# -- RecBole ------------------------------------------------------------------------------------------


def test_inter(write: Write) -> None:
    path = write(
        "ml.inter",
        'user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t"x\t4\t978300760.0\n2\ty\t3\t978300761\n',
    )
    table = inter(path=path, rating="rating")
    assert table.frame.rows() == [("1", '"x', 978_300_760, 2, 4.0), ("2", "y", 978_300_761, 3, 3.0)]
    assert table.text == {}
    refused(lambda: inter(path=path, text="title"), "ml.item", "data.source.items_path")
    write("ml.item", "item_id:token\ttitle:token_seq\nx\tThe X\ny\tThe Y\n")
    assert inter(path=path, text="title").text == {"x": "The X", "y": "The Y"}
    refused(lambda: inter(path=path, text="titel"), "ml.item", "column 'titel' is missing", "did you mean 'title'")
    refused(lambda: inter(path=path, user="uid"), path, "column 'uid' is missing", "data.source.user")


def test_a_folder_of_recbole_is_answered_with_its_inter_file(write: Write, tmp_path: Path) -> None:
    inside = write("ml.inter", "user_id:token\titem_id:token\ttimestamp:float\nb\ty\t2\na\tx\t1\n")
    write(".hidden", "x")
    assert inter(path=str(tmp_path)).frame.height == 2
    write("ml.item", "item_id:token\ttitle:token_seq\nx\tThe X\n")
    refused(lambda: inter(path=str(tmp_path)), f"name the .inter file: data.source.path={inside}")
    write("other.inter", "user_id:token\titem_id:token\ttimestamp:float\nb\ty\t2\n")
    refused(lambda: inter(path=str(tmp_path)), f"data.source.path={tmp_path}/*.inter")
    assert inter(path=f"{tmp_path}/*.inter").frame.height == 3


def test_items_of_inter_may_lie_elsewhere(write: Write) -> None:
    path = write("ml.inter", "user_id:token\titem_id:token\ttimestamp:float\n1\tx\t1000\n2\ty\t2000\n")
    items = write("other.item", "item_id:token\tname:token\nx\tThe X\n")
    for place in (items, "other.item"):  # absolute, or beside the first, wherever the command runs
        table = inter(path=path, items_path=place, text="name", time_unit="ms")
        assert table.text == {"x": "The X"}
        assert table.frame["time"].to_list() == [1, 2]
    refused(lambda: inter(path=path, items_path="", text="name"), "data.source.items_path is empty")
    refused(lambda: inter(path=path, items_path="other.item"), "items_path is set; set data.source.text")


# -- DIGINETICA ---------------------------------------------------------------------------------------


def test_diginetica_reads_the_files_in_the_order_of_their_numbers(write: Write, tmp_path: Path) -> None:
    write("period_0.txt", "\ufeff7 1\n8 2\n7 3\n")  # with a byte order mark
    write("period_2.txt", "7 1\n")
    write("period_10.txt", "9 4\n")
    write("readme.txt", "not data\n")
    table = diginetica(path=str(tmp_path))
    assert table.frame.select("user", "item", "time", "period", "line").rows() == [
        ("0:7", "1", 0, 0, 1),
        ("0:8", "2", 0, 0, 2),
        ("0:7", "3", 0, 0, 3),
        ("2:7", "1", 2, 2, 1),
        ("10:9", "4", 10, 10, 1),
    ]
    assert diginetica(path=str(tmp_path), periods=2).frame.height == 4
    stream = encode(table)
    assert stream.period is not None
    assert stream.period.tolist() == [0, 0, 0, 2, 10]
    assert stream.notes == (f"{tmp_path}: 8 files are not there, the first: period_1.txt",)
    write("period_1.txt", "7 1\n")
    assert diginetica(path=str(tmp_path), periods=3).notes == ()
    write("period_1.txt.gz", "7 1\n")
    refused(lambda: diginetica(path=str(tmp_path)), "period_1.txt and period_1.txt.gz are the same period")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7", "row 2, column 'item': the value is empty"),
        (" 7", "row 2, column 'session': the value is empty"),
        ("7 1 2", "row 2: 3 fields, expected 2"),
        ("\n7 1", "row 2, column 'session': the value is empty"),
    ],
)
def test_bad_lines_of_diginetica_are_refused(write: Write, tmp_path: Path, line: str, message: str) -> None:
    write("period_0.txt", "7 1\n8 2\n")
    path = write("period_1.txt", f"7 1\n{line}\n8 3\n")
    refused(lambda: diginetica(path=str(tmp_path)), path, message)


def test_a_folder_without_periods_is_refused(write: Write, tmp_path: Path) -> None:
    refused(lambda: diginetica(path=str(tmp_path)), str(tmp_path), "period_0.txt", "data.source.path")
    path = write("period_0.txt", "")
    refused(lambda: diginetica(path=str(tmp_path)), path, "is empty")
    refused(lambda: diginetica(path=path), "is a file, expected a folder")
    refused(lambda: diginetica(path=str(tmp_path), periods=0), "periods=0: expected a whole number >= 1")
    refused(lambda: diginetica(path="/nowhere"), "/nowhere: there is no such folder", "data.source.path")


# -- MovieLens ----------------------------------------------------------------------------------------


def test_ratings_dat(write: Write, tmp_path: Path) -> None:
    write("ratings.dat", "1::0010::7::20\n2::0011::8::10\n")
    table = ratings_dat(path=str(tmp_path))
    assert table.frame.rows() == [("1", "0010", 20, 1, 7.0), ("2", "0011", 10, 2, 8.0)]
    assert table.text == {}
    write("movies.dat", "0010::Amélie (2001)::Comedy|Romance\n0011::Face::Off (1997)::\n".encode("latin-1"))
    text = {"0010": "Amélie (2001): Comedy, Romance", "0011": "Face::Off (1997)"}
    assert ratings_dat(path=str(tmp_path)).text == text
    write("movies.dat", "0010::Fantômas (1913)::Crime\r\n")
    assert ratings_dat(path=str(tmp_path)).text == {"0010": "Fantômas (1913): Crime"}


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["is empty"]),
        ("1,2,3,4\n", ["row 1", "expected user::item::rating::timestamp"]),
        ("1::10::x::5\n2::11::3::6\n", ["row 1, column 'rating'", "'x'"]),
        ("1::10::3::978300760\n2::11::nan::978300761\n", ["row 2, column 'rating'", "finite"]),
        ("1::10::3::5\n2::11::3::May\n", ["row 2, column 'timestamp'", "'May'"]),
        ("1::10::3::978300760\n2::11::3::-6\n", ["row 2, column 'timestamp'", "-6"]),
        ("1::10::3::978300760\n2::::3::6\n", ["row 2, column 'item'", "is empty"]),
        ("1::10::3::5\n2::11::3::6::7\n", ["row 2: 5 fields, expected 4"]),
    ],
)
def test_bad_ratings_dat_is_refused(write: Write, tmp_path: Path, content: str, parts: list[str]) -> None:
    path = write("ratings.dat", content)
    refused(lambda: ratings_dat(path=str(tmp_path)), path, *parts)


def test_a_folder_without_ratings_is_refused(write: Write, tmp_path: Path) -> None:
    write("ratings.csv", "1")
    refused(lambda: ratings_dat(path=str(tmp_path)), "ratings.dat", "there is 'ratings.csv'")
    refused(lambda: u_data(path=str(tmp_path)), "u.data: there is no such file", "data.source.path")


def test_u_data(write: Write, tmp_path: Path) -> None:
    write("u.data", "196\t242\t3\t881250949\n186\t302\t4\t891717742\n")
    write("u.item", "242|Kolya (1996)|24-Jan-1997||url|0|1\n302|Misérables (1998)|x||y|0|1\n".encode("latin-1"))
    table = u_data(path=str(tmp_path))
    assert table.frame.rows() == [("196", "242", 881_250_949, 1, 3.0), ("186", "302", 891_717_742, 2, 4.0)]
    assert table.text == {"242": "Kolya (1996)", "302": "Misérables (1998)"}


# -- Last.fm ------------------------------------------------------------------------------------------

TAGS = "userID\tartistID\ttagID\tday\tmonth\tyear\n"


def test_lastfm(write: Write, tmp_path: Path) -> None:
    write(
        "user_taggedartists.dat",
        TAGS + "2\t52\t13\t1\t4\t2009\n2\t52\t15\t1\t4\t1956\n3\t53\t1\t31\t12\t2010\n",
    )
    table = lastfm(path=str(tmp_path))
    assert table.frame.rows() == [
        ("2", "52", seconds(2009, 4, 1), 2),
        ("2", "52", seconds(1956, 4, 1), 3),
        ("3", "53", seconds(2010, 12, 31), 4),
    ]
    assert table.text == {}
    refused(lambda: table, "row 3, column 'year-month-day'", "data.cleaning.after")
    write("artists.dat", 'id\tname\turl\n52\tSigur "Rós\tu\n53\tBjörk\tv\n'.encode("latin-1"))
    assert lastfm(path=str(tmp_path)).text == {"52": 'Sigur "Rós', "53": "Björk"}


def test_bad_lastfm_files_are_refused(write: Write, tmp_path: Path) -> None:
    refused(lambda: lastfm(path=str(tmp_path)), "user_taggedartists.dat: there is no such file")
    path = write("user_taggedartists.dat", TAGS + "2\t52\t13\t1\t4\t2009\n2\t53\t13\t31\t4\t2009\n")
    refused(lambda: lastfm(path=str(tmp_path)), path, "row 3, column 'year-month-day'", "'2009-4-31'")
    write("user_taggedartists.dat", TAGS.replace("year", "yeer") + "2\t52\t13\t1\t4\t2009\n")
    refused(lambda: lastfm(path=str(tmp_path)), path, "column 'year' is missing", "did you mean 'yeer'")


# -- MIND ---------------------------------------------------------------------------------------------


def test_mind(write: Write, tmp_path: Path) -> None:
    write(
        "behaviors.tsv",
        "1\tU1\t11/12/2019 2:14:46 PM\tN9 N8\tN1-0 N2-1 N3-10-1 N4-0\n"
        "2\tU2\t11/9/2019 12:00:01 AM\t\tN5-1\n"
        "3\tU3\t11/9/2019 12:00:02 AM\tN1\tN5-0\n",
    )
    write("news.tsv", 'N2\tnews\tpolitics\tA "quoted title\tabstract\turl\t[]\t[]\nN5\ta\tb\tFive\n')
    table = mind(path=str(tmp_path))
    assert table.frame.rows() == [
        ("U1", "N2", seconds(2019, 11, 12, 14, 14, 46), 1),
        ("U1", "N3-10", seconds(2019, 11, 12, 14, 14, 46), 1),
        ("U2", "N5", seconds(2019, 11, 9, 0, 0, 1), 2),
    ]
    assert table.text == {"N2": 'A "quoted title', "N5": "Five"}


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ("2\tU2\t11/9/2019 12:00:01 AM\t\tN5 N6", ["row 2, column 'impressions'", "test split"]),
        ("2\tU2\t11/9/2019 12:00:01 AM\t", ["row 2, column 'impressions'", "is empty"]),
        ("2\tU2\t2019-11-09\t\tN5-1", ["row 2, column 'time'", "'2019-11-09'", "%m/%d/%Y"]),
        ("2\t\t11/9/2019 12:00:01 AM\t\tN5-1", ["row 2, column 'user'", "is empty"]),
    ],
)
def test_bad_mind_rows_are_refused(write: Write, tmp_path: Path, row: str, parts: list[str]) -> None:
    path = write("behaviors.tsv", f"1\tU1\t11/12/2019 2:14:46 PM\tN9\tN1-1\n{row}\n")
    refused(lambda: mind(path=str(tmp_path)), path, *parts)


# -- the real data ------------------------------------------------------------------------------------


def counts(table: Table) -> tuple[int, int, int]:
    return table.frame["user"].n_unique(), table.frame["item"].n_unique(), table.frame.height


def test_the_real_diginetica(real_data: Path) -> None:
    table = diginetica(path=str(real_data / "diginetica"))
    assert counts(table) == (205_337, 43_136, 993_483)
    assert table.frame["user"].str.split(":").list.get(1).n_unique() == 205_337 - 548
    stream = encode(table)
    assert stream.period is not None
    published = np.array([int(i) for i in stream.items[1:]])
    for period in range(17):  # the published ids count by first appearance too, period by period
        seen = stream.item[stream.period <= period].max()
        assert published[:seen].max() == seen
    assert stream.notes == ()


def test_the_real_amazon_beauty(real_data: Path) -> None:
    table = columns(
        path=str(real_data / "amazon-beauty" / "interactions.csv"),
        user="user_id",
        item="item_id",
        time="timestamp",
        items_path="items.csv",
        items_id="item_id",
        text="text",
    )
    assert counts(table) == (22_363, 12_101, 198_502)
    years = pl.from_epoch(table.frame["time"], "s").dt.year()
    assert (years.min(), years.max()) == (2002, 2014)
    assert len(set(table.frame["item"]) & set(table.text)) == 12_083  # 18 have an empty text
    assert table.text["1"] == "wawo 15 color professionl makeup eyeshadow"


def test_the_real_movietweetings(real_data: Path) -> None:
    table = ratings_dat(path=str(real_data / "movietweetings"))
    assert counts(table) == (16_554, 10_506, 100_000)
    assert set(table.frame["item"]) <= set(table.text)
    assert table.text["0004936"] == "The Bank (1915): Comedy, Short"
    assert pl.from_epoch(table.frame["time"], "s").dt.year().unique().to_list() == [2013]


def test_the_real_lastfm(real_data: Path) -> None:
    table = lastfm(path=str(real_data / "lastfm-hetrec"))
    assert counts(table) == (1_892, 12_523, 186_479)
    assert table.text["2"] == "Diary of Dreams"
    assert (table.frame["time"] < seconds(2005, 1, 1)).sum() == 5


def test_the_real_mind(real_data: Path) -> None:
    table = mind(path=str(real_data / "mind-sample"))
    assert counts(table) == (4_637, 1_916, 7_542)
    assert len(set(table.frame["item"]) & set(table.text)) == 59
    assert pl.from_epoch(table.frame["time"], "s").dt.date().n_unique() == 6
