"""One small right file of each layout, for what all readers must keep; and how a reader refuses a file."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from incremental.data.interactions import Table, encode
from incremental.data.sources.columns import columns
from incremental.data.sources.diginetica import diginetica
from incremental.data.sources.inter import inter
from incremental.data.sources.lastfm import lastfm
from incremental.data.sources.mind import mind
from incremental.data.sources.movielens import ratings_dat, u_data
from incremental.errors import UserError


class Layout(NamedTuple):
    """A reader, the name of its file, and a text of three interactions; `whole`: its path is the folder."""

    reader: Callable[..., Table]
    file: str
    text: str
    whole: bool = True

    def read(self, folder: Path, name: str | None = None, **options: object) -> Table:
        return self.reader(path=str(folder if self.whole else folder / (name or self.file)), **options)


LAYOUTS = {
    "columns": Layout(
        columns, "events.csv", "user,item,time\nö,x,1700000100\nb,y,1700000200\nb,x,1700000300\n", whole=False
    ),
    "inter": Layout(
        inter,
        "ml.inter",
        "user_id:token\titem_id:token\ttimestamp:float\nö\tx\t1700000001.0\nb\ty\t1700000002\nb\tx\t1700000003\n",
        whole=False,
    ),
    "ratings.dat": Layout(
        ratings_dat, "ratings.dat", "ö::10::7::978300020\n2::11::8::978300010\n2::10::8::978300030\n"
    ),
    "u.data": Layout(u_data, "u.data", "ö\t242\t3\t881250949\n186\t302\t4\t891717742\n186\t242\t4\t891717743\n"),
    "diginetica": Layout(diginetica, "period_0.txt", "ö 1\n8 2\n8 1\n"),
    "mind": Layout(
        mind,
        "behaviors.tsv",
        "".join(f"{n}\tU{'ö' * n}\t11/12/2019 2:14:4{n} PM\tN9\tN1-0 N{n}-1\n" for n in (1, 2, 3)),
    ),
    "lastfm": Layout(
        lastfm,
        "user_taggedartists.dat",
        "userID\tartistID\ttagID\tday\tmonth\tyear\nö\t52\t13\t1\t4\t2009\n3\t53\t1\t31\t12\t2010\n3\t52\t1\t31\t12\t2010\n",
    ),
}


Write = Callable[[str, str | bytes], str]
"""the fixture of `conftest.py`"""


def seconds(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp())  # type: ignore[arg-type, misc]


def refused(call: Callable[[], Table], *parts: str) -> None:
    """Reading, or the validation after it, fails with a text that has all the parts."""
    with pytest.raises(UserError) as caught:
        encode(call())
    for part in parts:
        assert part in str(caught.value)
