"""From a path to text: compression, encodings, line ends, and what the system says of a path."""

import bz2
import errno
import gzip
import lzma
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from incremental.data.sources.columns import columns
from incremental.data.sources.movielens import ratings_dat
from incremental.errors import UserError
from tests.data.layouts import LAYOUTS, Layout

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Documented = Callable[[str, object], None]
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstd.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
EVENTS = LAYOUTS["columns"].text


def message(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    return str(error.value)


# -- compression --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("end", PACK)
def test_a_compressed_file_is_read_like_a_plain_one(tmp_path: Path, layout: Layout, end: str) -> None:
    (tmp_path / layout.file).write_bytes(layout.text.encode())
    plain = layout.read(tmp_path).frame.drop("file", strict=False)
    packed = PACK[end](layout.text.encode())
    (tmp_path / layout.file).write_bytes(packed)  # its name says nothing
    assert layout.read(tmp_path).frame.drop("file", strict=False).equals(plain)
    (tmp_path / layout.file).rename(tmp_path / f"{layout.file}{end}")
    assert layout.read(tmp_path, f"{layout.file}{end}").frame.drop("file", strict=False).equals(plain)
    assert plain.height == 3


@pytest.mark.parametrize("end", PACK)
def test_a_truncated_file_is_broken(tmp_path: Path, end: str) -> None:
    whole = PACK[end](EVENTS.encode() * 100)
    for size in (len(whole) // 2, len(whole) - 3):
        (tmp_path / "events.csv").write_bytes(whole[:size])
        assert "file is broken" in message(lambda: columns(path=str(tmp_path / "events.csv")))


def test_a_truncated_file_is_documented(tmp_path: Path, documented: Documented) -> None:
    (tmp_path / "events.csv.gz").write_bytes(gzip.compress(EVENTS.encode())[:-9])
    documented("a gzip file that ends early", message(lambda: columns(path=str(tmp_path / "events.csv.gz"))))


def test_titles_may_be_compressed_too(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::5::20\n2::11::4::10\n")
    (tmp_path / "movies.dat.gz").write_bytes(gzip.compress("10::Amélie::Comedy\n11::M::\n".encode("latin-1")))
    assert ratings_dat(path=str(tmp_path)).text == {"10": "Amélie: Comedy", "11": "M"}
    (tmp_path / "events.csv").write_text("user,item,time\na,x,1\nb,y,2\n")
    (tmp_path / "items.csv.zst").write_bytes(zstd.compress(b"item,title\nx,X\ny,Y\n"))
    assert columns(path=str(tmp_path / "events.csv"), items_path="items.csv.zst", text="title").text["y"] == "Y"


def test_a_file_packed_twice_and_one_in_frames(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(gzip.compress(EVENTS.encode())))
    assert columns(path=str(tmp_path / "a")).frame.height == 3
    first, rest = EVENTS.encode()[:20], EVENTS.encode()[20:]
    for pack in PACK.values():
        (tmp_path / "a").write_bytes(pack(first) + pack(rest))
        assert columns(path=str(tmp_path / "a")).frame.height == 3


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"PK\x03\x04\x14\x00", "export the sheet as CSV"),
        (b"7z\xbc\xaf\x27\x1c", "unpack it"),
        (b"x" * 257 + b"ustar\x00", "unpack it"),
        (b"SQLite format 3\x00", "write it as CSV or Parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "download the file again"),
        (b'{"user": 1, "item": 2}\n', "JSON"),
        (b"ARROW1\0\0" + b"\xff" * 8, "another format of tables"),
        (b"\x93NUMPY\x01\x00v\x00", "another format of tables"),
        (b"PARE" + b"\0" * 20 + b"PARE", "encrypted"),
    ],
)
def test_what_is_no_table_is_refused_by_what_it_is(tmp_path: Path, head: bytes, part: str) -> None:
    for data in (head, gzip.compress(head)):
        (tmp_path / "events.csv").write_bytes(data)
        assert part in message(lambda: columns(path=str(tmp_path / "events.csv")))


@pytest.mark.parametrize("name", ["parent", "PARENT_ID", "arrow1", "ORCHARD", "bzh9"])
def test_a_header_that_begins_like_another_format_is_a_header(tmp_path: Path, name: str) -> None:
    (tmp_path / "events.csv").write_text(f"{name},item,time\na,x,1\nb,y,2\n")
    assert columns(path=str(tmp_path / "events.csv"), user=name).frame.height == 2


def test_a_workbook_is_documented(tmp_path: Path, documented: Documented) -> None:
    (tmp_path / "events.xlsx").write_bytes(b"PK\x03\x04\x14\x00")
    documented("a workbook in place of a CSV file", message(lambda: columns(path=str(tmp_path / "events.xlsx"))))


# -- encodings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, layout: Layout, encoding: str) -> None:
    (tmp_path / layout.file).write_bytes(layout.text.encode())
    plain = layout.read(tmp_path).frame
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / layout.file).write_bytes((mark + layout.text).encode(encoding))
    assert layout.read(tmp_path).frame.equals(plain)
    assert any("ö" in user for user in plain["user"])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_wide_text_without_a_mark_is_refused_and_its_remedy_works(
    tmp_path: Path, layout: Layout, encoding: str
) -> None:
    (tmp_path / layout.file).write_bytes((layout.text * 9).encode(encoding))
    said = message(lambda: layout.read(tmp_path))
    assert f"set data.source.encoding={encoding}" in said
    assert layout.file in said
    (tmp_path / layout.file).write_bytes(layout.text.encode(encoding))
    assert layout.read(tmp_path, encoding=encoding).frame.height == 3


CHINESE = "用户,商品,时间\n" + "".join(f"用户{n},商品{n % 9},{100 + n}\n" for n in range(40))
GERMAN = "user,item,time\n" + "".join(f"Zoë {n},Schürze {n % 7},{100 + n}\n" for n in range(40))
JAPANESE = "user,item,time\n" + "".join(f"利用者{n},カメラの本{n % 7},{100 + n}\n" for n in range(40))


@pytest.mark.parametrize(
    ("text", "encoding", "row"), [(CHINESE, "gb18030", 1), (GERMAN, "cp1252", 2), (JAPANESE, "cp932", 2)]
)
def test_the_advice_names_the_encoding_and_works(tmp_path: Path, text: str, encoding: str, row: int) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(text.encode(encoding))
    user, item, time = text.partition("\n")[0].split(",")
    said = message(lambda: columns(path=str(path), user=user, item=item, time=time))
    assert f"events.csv, row {row}: not UTF-8 text" in said
    assert f"set data.source.encoding={encoding}" in said
    assert "latin" not in said
    table = columns(path=str(path), user=user, item=item, time=time, encoding=encoding)
    assert table.frame["user"][0] == text.split("\n")[1].split(",")[0]


def test_encodings_are_documented(tmp_path: Path, documented: Documented) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(GERMAN.encode("cp1252"))
    documented("a file that is not UTF-8", message(lambda: columns(path=str(path))))
    path.write_bytes(GERMAN.encode("utf-16-le"))
    documented("UTF-16 without a byte order mark", message(lambda: columns(path=str(path))))
    path.write_bytes(b"\xff\xfe" + GERMAN.encode("utf-16-le")[:-1])
    documented("UTF-16 that ends in the middle of a character", message(lambda: columns(path=str(path))))
    documented("an encoding that does not exist", message(lambda: columns(path=str(path), encoding="latin99")))
    path.write_bytes(EVENTS.encode() + b"\0\0\0")
    documented("a NUL character in a file", message(lambda: columns(path=str(path))))


@pytest.mark.parametrize("text", ["user,item,time\na,x,1\nb,y,22\n", "user,item,time\na,x,1\nb,y,2\n"])
@pytest.mark.parametrize("encoding", ["utf-16", "UTF16", "utf-32-le"])
def test_text_of_one_byte_a_letter_is_no_wide_text(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "events.csv").write_text(text)
    said = message(lambda: columns(path=str(tmp_path / "events.csv"), encoding=encoding))
    assert f"events.csv, row 1: not {encoding} text; save the file as UTF-8 or set data.source.encoding" in said


def test_utf_8_that_is_read_as_another_encoding_is_said(tmp_path: Path) -> None:
    """As where the events are cp1252 and the titles, which the key is for too, are not."""
    (tmp_path / "events.csv").write_bytes("user,item,time\né,x,1\nb,y,2\n".encode("cp1252"))
    (tmp_path / "items.csv").write_bytes("item,title\nx,É\ny,Y\n".encode())
    table = columns(path=f"{tmp_path}/events.csv", items_path="items.csv", text="title", encoding="cp1252")
    assert table.frame["user"][0] == "é"
    (note,) = table.notes
    assert f"{tmp_path}/items.csv: its bytes are UTF-8, but it is read as cp1252; if names look wrong" in note
    (tmp_path / "items.csv").write_bytes(b"item,title\nx,X\ny,Y\n")
    assert not columns(path=f"{tmp_path}/events.csv", items_path="items.csv", text="title", encoding="cp1252").notes


@pytest.mark.parametrize("end", ["\0", "\0\0", "\0" * 9])
def test_ascii_that_ends_in_nuls_is_not_taken_for_utf_16(tmp_path: Path, end: str) -> None:
    for more in range(4):  # a pair of bytes, or four, may be cut anywhere
        text = EVENTS.encode("ascii", "ignore") * 20 + b"x" * more + end.encode()
        (tmp_path / "events.csv").write_bytes(text)
        said = message(lambda: columns(path=str(tmp_path / "events.csv")))
        assert "a NUL character, which no text has" in said
        assert f"row {text.count(10) + 1}" in said


def test_the_wrong_encoding_is_refused_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_bytes(b"user,item,time\r\na,x,1\r\n\x81,y,2\r\n")
    said = message(lambda: columns(path=str(tmp_path / "events.csv"), encoding="cp1252"))
    assert "row 3: not cp1252 text" in said


def test_an_old_data_set_that_is_not_latin_1_either_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::5::20\n2::11::4::10\n")
    (tmp_path / "movies.dat").write_bytes("10::Amélie::\n11::Œuvre::\n".encode("cp1252"))
    table = ratings_dat(path=str(tmp_path))
    assert table.text == {"10": "Amélie", "11": "Œuvre"}
    assert "movies.dat: not UTF-8, read as cp1252" in table.notes[0]
    (tmp_path / "movies.dat").write_bytes("10::艾米莉的电影\x00::\n11::电影::\n".replace("\0", "").encode("gb18030"))
    if b"\x90" in (tmp_path / "movies.dat").read_bytes():
        assert "not UTF-8" in message(lambda: ratings_dat(path=str(tmp_path)))


# -- what the system says of a path -------------------------------------------------------------------


def test_paths_that_lead_nowhere(tmp_path: Path, documented: Documented) -> None:
    (tmp_path / "dangling.csv").symlink_to("gone.csv")
    (tmp_path / "circle.csv").symlink_to("circle.csv")
    (tmp_path / "plain.csv").write_text(EVENTS)
    for situation, name in (
        ("a file that is not there", "no.csv"),
        ("a link to a file that is not there", "dangling.csv"),
        ("a link to itself", "circle.csv"),
        ("a path that goes through a file", "plain.csv/events.csv"),
        ("a name that is too long", "x" * 300),
    ):
        said = message(lambda name=name: columns(path=f"{tmp_path}/{name}"))  # type: ignore[misc]
        assert "data.source.path" in said or "links" in said
        documented(situation, said)
    assert "no such" not in message(lambda: columns(path=f"{tmp_path}/{'x' * 300}"))
    assert "which is no path" in message(lambda: columns(path="a\0b"))
    assert "which is no path" in message(lambda: columns(path="~nobody-of-this-name/x.csv"))


def test_no_path_and_an_address_are_no_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documented: Documented
) -> None:
    (tmp_path / "events.csv").write_text(EVENTS)
    monkeypatch.chdir(tmp_path)  # which an empty path would mean
    for layout in LAYOUTS.values():
        for path in ("", " ", "s3://shop/events", "https://example.org/events.csv", "hf://datasets/x/*.parquet"):
            said = message(lambda layout=layout, path=path: layout.reader(path=path))  # type: ignore[misc]
            assert said.startswith(f"{path} is an address" if path.strip() else "data.source.path is empty")
    documented("an address in place of a path", message(lambda: columns(path="s3://shop/events.parquet")))
    documented("an empty path", message(lambda: columns(path="")))
    for path in ("", "gs://shop/items.csv"):
        said = message(lambda path=path: columns(path="events.csv", items_path=path, text="title"))  # type: ignore[misc]
        assert "data.source.items_path" in said


def test_an_optional_file_that_cannot_be_read_is_not_taken_for_absent(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::5::20\n2::11::4::10\n")
    (tmp_path / "movies.dat").symlink_to("gone.dat")
    assert "movies.dat is a link to gone.dat" in message(lambda: ratings_dat(path=str(tmp_path)))


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_an_error_of_the_system_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout, code: int
) -> None:
    (tmp_path / layout.file).write_text(layout.text)

    def fail(path: Path) -> bytes:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    said = message(lambda: layout.read(tmp_path))
    assert layout.file in said
    assert ("permission denied" if code == errno.EACCES else os.strerror(code)) in said
