"""From text to rows: line ends, quotes, separators, headers; nothing vanishes unsaid."""

import contextlib
import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incremental.data.interactions import encode
from incremental.data.sources.columns import columns
from incremental.data.sources.delimited import delimited, separator_of
from incremental.data.sources.diginetica import diginetica
from incremental.data.sources.inter import inter
from incremental.data.sources.sheet import Sheet
from incremental.errors import UserError
from tests.data.layouts import LAYOUTS, Layout

Documented = Callable[[str, object], None]
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> str:
        (tmp_path / "events.csv").write_bytes(text.encode())
        return str(tmp_path / "events.csv")

    return write


def message(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    return str(error.value)


# -- line ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("ends", ["\r", "\r\n", "mixed"])
def test_line_ends(tmp_path: Path, layout: Layout, ends: str) -> None:
    (tmp_path / layout.file).write_bytes(layout.text.encode())
    plain = layout.read(tmp_path).frame
    text = layout.text.replace("\n", "\r\n", 1) if ends == "mixed" else layout.text.replace("\n", ends)
    (tmp_path / layout.file).write_bytes(text.encode())
    assert layout.read(tmp_path).frame.equals(plain)


@pytest.mark.parametrize("quote", ["", '"'])
def test_rows_with_too_few_fields_are_counted(write: Write, quote: str) -> None:
    """A field that is missing in the middle moves the others, and what is read in its place may look right."""
    rows = [f"a,1,{quote}x{quote},shoe", "b,2,y,tea", "c,3,z", "d,4,tea"]
    notes = columns(path=write("\n".join(["user,time,item,cat", *rows, ""])), time_unit="s").notes
    assert len(notes) == 1
    assert "events.csv: 2 rows have fewer than 4 fields (the first: row 4); the last ones were taken" in notes[0]
    assert not columns(path=write("\n".join(["user,time,item,cat", *rows[:2], "c,3,z,"])), time_unit="s").notes


def test_the_row_of_a_bad_value_is_its_line(write: Write) -> None:
    text = 'user,item,time,title\na,x,1,"two\nlines"\nb,y,2,one\nc,z,soon,one\n'
    for written in (text, text.replace("\n", "\r\n"), text.replace("\n", "\r"), "\n\n" + text):
        line = written.replace("\r\n", "\n").replace("\r", "\n").split("soon")[0].count("\n") + 1
        assert f"row {line}, column 'time'" in message(lambda written=written: columns(path=write(written)))  # type: ignore[misc]


# -- quotes -------------------------------------------------------------------------------------------


def test_a_field_over_several_lines_is_counted(write: Write) -> None:
    table = columns(path=write('user,item,time,t\na,x,1,"A\nb"\nb,y,2,"B\n\nc"\nc,x,3,C\n'), text="t")
    assert table.frame["line"].to_list() == [2, 4, 7]
    assert table.text == {"x": "A\nb", "y": "B\n\nc"}
    assert "2 rows have a quoted field over several lines (the first: row 2)" in table.notes[0]


def swallowing(user: str, time: str, gap: int) -> str:
    rows = [f"{user}{n},{n % 3},{time}{n},title" for n in range(10, 40)]
    rows[5] = rows[5].replace("title", '"lamp')
    rows[5 + gap] = rows[5 + gap].replace("title", 'old lamp"')
    return "\n".join(["user,item,time,title", *rows]) + "\n"


@pytest.mark.parametrize(("user", "time", "gap"), [("", "17000000", 20), ("u", "2024-01-", 1), ("é-", "1.", 3)])
def test_a_stray_quote_swallows_no_row(write: Write, user: str, time: str, gap: int) -> None:
    path = write(swallowing(user, time, gap))
    assert "row 7: a quoted field swallows line 8" in message(lambda: columns(path=path))
    assert delimited(Path(path), separator=",").frame.height == 30


def test_a_first_field_over_several_lines_is_no_stray_quote(write: Write) -> None:
    rows = '"a lamp\nfor 2\nrooms 5",u1,x1,1700000000,"it\nis 1"\nb 7,u2,y2,1700000001,c\n'
    table = columns(path=write(f"title,user,item,time,note\n{rows}"), text="title")
    assert table.frame["line"].to_list() == [2, 6]
    assert table.text == {"x1": "a lamp\nfor 2\nrooms 5", "y2": "b 7"}
    stray = 'a 1,u0,x1,1700000000\n"a 2,u1,x1,1700000001\nb 7",u2,y2,1700000002\nb 8,u2,y2,1700000003\n'
    assert "row 3: a quoted field swallows line 4" in message(
        lambda: columns(path=write(f"title,user,item,time\n{stray}"), text="title")
    )


def test_quotes_are_documented(write: Write, documented: Documented) -> None:
    path = write(swallowing("", "17000000", 20))
    documented("a stray quote that another one closes lines later", message(lambda: columns(path=path)))
    assert columns(path=path, quoted=False, text="title").text["1"] == "title"
    path = write('user,item,time,title\na,x,1,"Big" lamp\nb,y,2,z\n')
    documented("text after a closing quote", message(lambda: columns(path=path)))
    assert columns(path=path, quoted=False, text="title").text["x"] == '"Big" lamp'
    path = write('user,item,time,title\na,x,1,t\nb,y,2,"z\nc,z,3,z\n')
    documented("a quote that is never closed", message(lambda: columns(path=path)))


def test_a_quote_within_a_field_is_a_character(write: Write) -> None:
    table = columns(path=write('user,item,time,t\na,x,1,12" lamp\nb,y,2,5" and 6"\n"c",z,3,""\n'), text="t")
    assert table.text == {"x": '12" lamp', "y": '5" and 6"'}
    assert table.frame["user"].to_list() == ["a", "b", "c"]


def test_a_separator_of_several_characters_goes_with_quotes(write: Write) -> None:
    table = columns(path=write('user::item::time::t\na::x::1::"A::B"\nb::y::2::C\n'), separator="::", text="t")
    assert table.text == {"x": "A::B", "y": "C"}


# -- separators ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [("\\t", "\t"), ("tab", "\t"), ("TAB", "\t"), ("\t", "\t"), ("\\x01", "\x01"), ("::", "::"), (" ", " ")],
)
def test_separators_are_read_as_meant(write: Write, written: str, meant: str) -> None:
    path = write("user,item,time\na,x,1\nb,y,2\n".replace(",", meant))
    assert columns(path=path, separator=written).frame.rows() == [("a", "x", 1, 2), ("b", "y", 2, 3)]


@pytest.mark.parametrize("written", ["", "semicolon", "\\s+", "\n", '"', "1", "\\x41", "\\x00"])
def test_what_cannot_separate_is_refused(written: str) -> None:
    assert "o.p is " in message(lambda: separator_of(written, "o.p"))


def test_a_word_as_separator_is_documented(write: Write, documented: Documented) -> None:
    path = write("user;item;time\na;x;1\n")
    documented("a word in place of a separator", message(lambda: columns(path=path, separator="semicolon")))


@pytest.mark.parametrize("separator", ["\t", ";", "|", "::", " "])
def test_the_separator_is_suggested_from_the_header(write: Write, separator: str) -> None:
    path = write("user,item,time\na,x,1\nb,y,2\n".replace(",", separator))
    said = message(lambda: columns(path=path))
    shown = separator.replace("\t", "\\t")
    assert f"set 'data.source.separator=\"{shown}\"'" in said
    assert columns(path=path, separator=shown).frame.height == 2
    typed = write("user_id:token,item_id:token,timestamp:float\na,x,1\n".replace(",", separator))
    if separator != "\t":
        assert f"set 'data.source.separator=\"{shown}\"'" in message(lambda: inter(path=typed))


def test_separators_are_documented(write: Write, tmp_path: Path, documented: Documented) -> None:
    path = write("user\titem\ttime\na\tx\t1\n")
    documented("a file with tabs, read with commas", message(lambda: columns(path=path)))
    path = write("sep=;\nuser;item;time\na;x;1\n")
    documented("a spreadsheet's line on the separator", message(lambda: columns(path=path, separator=";")))
    path = write("user,item,time\na,x,1\nb,y,2\n")
    (tmp_path / "items.csv").write_text("item;title\nx;X\ny;Y\n")

    def titled(separator: str | None = None) -> object:
        return columns(path=path, items_path="items.csv", text="title", items_separator=separator).text

    documented("titles with another separator than the events", message(titled))
    assert titled(";") == {"x": "X", "y": "Y"}


def test_a_name_that_a_header_has_twice(write: Write, documented: Documented) -> None:
    path = write("user_id:token\titem_id:token\ttimestamp:float\tuser_id:float\na\tx\t1\t2\nb\ty\t2\t2\n")
    documented("a header that names a column twice", message(lambda: inter(path=path)))
    path = write("user,item,time,,\na,x,1,,\nb,y,2,,\n")  # what nobody asks for may be named twice
    assert columns(path=path).frame.height == 2


# -- headers ------------------------------------------------------------------------------------------

CLICKS = "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,0\n2,2014-04-07,214536502,0\n"


def test_a_file_without_a_header(write: Write, documented: Documented) -> None:
    path = write(CLICKS)
    documented("a file without a header", message(lambda: columns(path=path)))
    said = message(lambda: columns(path=path, user="1", item="214536502", time="2014-04-07T10:51:09.277Z"))
    documented("the first row's values as names of columns", said)
    names = ["session", "time", "item", "category"]
    table = columns(path=path, user="session", columns=names)
    assert table.frame["line"].to_list() == [1, 2, 3]
    assert table.frame["item"].to_list() == ["214536502", "214536500", "214536502"]
    documented("too many names of columns", message(lambda: columns(path=path, user="session", columns=[*names, "x"])))
    assert "row 1: 4 fields, expected 3" in message(lambda: columns(path=path, user="session", columns=names[:3]))
    assert "each once" in message(lambda: columns(path=path, columns=["user", "user", "item", "time"]))
    path = write("user,item,time\na,x,1\n")
    documented(
        "names for a file that has a header", message(lambda: columns(path=path, columns=["user", "item", "time"]))
    )


def test_a_header_that_counts_its_columns_is_one(write: Write) -> None:
    table = columns(path=write("0,1,2\na,x,5\nb,y,6\n"), user="0", item="1", time="2")
    assert table.frame["time"].to_list() == [5, 6]
    for first, names in (("", "012"), ("", "123"), (" ", "012")):  # with the numbers of the rows before them
        path = write(f"{first},{','.join(names)}\n0,a,x,5\n1,b,y,6\n")
        table = columns(path=path, user=names[0], item=names[1], time=names[2])
        assert table.frame["user"].to_list() == ["a", "b"]


def test_a_year_may_be_the_name_of_a_column(write: Write) -> None:
    assert columns(path=write("user,item,time,2019\na,x,5,1\nb,y,6,1\n"), rating="2019").frame.height == 2
    assert "cannot be a column's name" in message(
        lambda: columns(path=write("u1,i1,1700000000\nu2,i2,1700000001\n"), user="u1", item="i1", time="1700000000")
    )


def test_headers_that_fixed_layouts_do_not_have(tmp_path: Path) -> None:
    (tmp_path / "period_0.txt").write_text("session item\n7 1\n8 2\n")
    assert "row 1: a header" in message(lambda: diginetica(path=str(tmp_path)))


# -- any table, any bytes -----------------------------------------------------------------------------

LETTERS = st.sampled_from(list("abäё本😀 .-'\u2028\x0b\x85#\\"))
PLAIN = st.text(LETTERS, max_size=5)
WILD = st.text(st.one_of(LETTERS, st.sampled_from(list('"\n\r,;\t|:'))), max_size=6)


@settings(max_examples=150)
@given(st.data())
def test_every_table_is_read_as_it_was_written(data: st.DataObject) -> None:
    separator = data.draw(st.sampled_from([",", ";", "\t", "|", "::"]))
    quoting = data.draw(st.sampled_from(["none", "minimal", "all"]))
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030"]))
    width = data.draw(st.integers(2, 4))
    fields = st.lists(PLAIN if quoting == "none" else WILD, min_size=width, max_size=width)
    rows = data.draw(st.lists(fields, max_size=6))

    def written(field: str) -> str:
        special = any(c in field for c in '"\n\r:' + separator)
        if quoting == "all" or (quoting == "minimal" and special):
            return '"' + field.replace('"', '""') + '"'
        return field

    header = [f"column {k}" for k in range(width)]
    text = "".join(separator.join(map(written, row)) + end for row in [header, *rows])
    packed = gzip.compress(text.encode(encoding)) if data.draw(st.booleans()) else text.encode(encoding)
    expected, lines, at = [], [], 2
    for row in rows:
        clean = [field.replace("\r\n", "\n").replace("\r", "\n") for field in row]
        expected.append(tuple(field or None for field in clean))
        lines.append(at)
        at += 1 + sum(field.count("\n") for field in clean)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.csv"
        file.write_bytes(packed)

        def read() -> Sheet:
            named = encoding if encoding == "gb18030" else None
            return delimited(file, separator=separator, quoted=quoting != "none", encoding=named)

        if not rows:
            assert "below its header" in message(read)
            return
        sheet = read()
    assert sheet.frame.rows() == expected
    assert sheet.line is not None
    assert sheet.line.to_list() == lines
    assert bool(sheet.notes) == (at > 2 + len(rows))


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(LAYOUTS)),
    st.one_of(st.binary(max_size=60), st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace"))),
    st.integers(0, 40),
    st.booleans(),
)
def test_any_bytes_are_read_or_refused(name: str, noise: bytes, place: int, packed: bool) -> None:
    layout = LAYOUTS[name]
    right = layout.text.encode()
    data = right[:place] + noise + right[place:]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / layout.file).write_bytes(gzip.compress(data) if packed else data)
        with contextlib.suppress(UserError):
            encode(layout.read(Path(folder)))
