"""A log that begins with a run: as a stream it has the run's events, ids and times as increment 0."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from incremental.app import bases
from incremental.data.interactions import Interactions, Table, encode
from incremental.data.kept import Kept, keep, kept
from incremental.data.sources.log import everything, table
from incremental.errors import UserError
from incremental.log.columns import Events
from incremental.log.place import open_log
from incremental.log.records import Cut, Event
from incremental.serve.live import beginning
from incremental.serve.log import copy

ITEMS = [f"i{number}" for number in range(11)]


def data(items: Sequence[str] = ITEMS) -> Interactions:
    n = np.arange(50)
    frame = pl.DataFrame(
        {
            "user": [f"u{i % 7}" for i in n],
            "item": [items[i % 11] for i in n.tolist()],
            "time": 1_700_000_000 + n // 2,
            "fraction": (n % 2) * 250_000_000,
            "behaviour": ["view" if i % 3 else "buy" for i in n],
            "shop": [f"s{i % 2}" if i % 5 else None for i in n],
        }
    )
    return encode(Table(frame, "hand-made", kinds=("shop",)))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a run of two increments keeps of its data."""
    log, at = data(), tmp_path / "run" / "data"
    at.mkdir(parents=True)
    increment = (np.arange(len(log)) >= 30).astype(np.int32)

    def write(path: Path, content: bytes) -> None:
        path.write_bytes(content)

    keep(at, log, increment, increment, write)
    monkeypatch.setattr(beginning, "config_of", lambda _run: {})
    return at.parent


def test_the_log_begins_with_the_runs_events(run: Path, tmp_path: Path) -> None:
    log = open_log(str(tmp_path / "log.sqlite"), create=True)
    assert beginning.begin(run, log, "x") == 50
    assert beginning.begin(run, log, "x") == 50  # once more, as after a kill
    log.append([Event("later", "u", "i", time=1.8e9)])
    assert beginning.begin(run, log, "x") == 50
    events, _, cuts = everything(log)
    log.close()
    assert [(cut.number, cut.until) for _, cut in cuts] == [(0, 50)]
    found, wanted = encode(table(Events(events), [cut for _, cut in cuts], origin="x", kinds={"shop": "shop"})), data()
    assert (found.users, found.items, found.behaviours) == (wanted.users, wanted.items, wanted.behaviours)
    for name in ("user", "item", "time", "fraction", "behaviour"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    np.testing.assert_array_equal(found.ids("shop"), wanted.ids("shop"))


def test_a_log_of_others_is_no_place_for_a_run(
    run: Path, tmp_path: Path, documented: Callable[[str, object], None]
) -> None:
    log = open_log(str(tmp_path / "log.sqlite"), create=True)
    log.append([Event("e", "u", "i", time=1.0)])
    with pytest.raises(UserError) as error:
        beginning.begin(run, log, f"{tmp_path}/log.sqlite")
    documented("a live loop that begins with a run, on a log that has begun", error.value)
    log.close()
    other = open_log(str(tmp_path / "other.sqlite"), create=True)
    other.append([Event("base:0", "u", "i", time=1.0)])  # of another run
    with pytest.raises(UserError, match="not that run's"):
        beginning.begin(run, other, "x")
    other.close()
    assert isinstance(bases.data_of(run), Kept)
    assert kept(run / "data") is not None


def test_a_run_with_ids_that_are_too_long_is_no_beginning(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documented: Callable[[str, object], None]
) -> None:
    """It is said before anything is written."""
    monkeypatch.setattr(beginning, "log_of", lambda _data: data([*"abcdefghij", "x" * 257]))
    log = open_log(str(tmp_path / "log.sqlite"), create=True)
    with pytest.raises(UserError) as error:
        beginning.begin(run, log, "x")
    documented("a live loop that begins with a run whose ids are too long", str(error.value))
    assert log.last() == 0
    log.close()


def test_a_base_part_that_is_over_gets_no_more_events(run: Path, tmp_path: Path) -> None:
    """A user whose events were taken out does not come back, nor does a longer run's end."""
    first, second = f"{tmp_path}/log.sqlite", f"{tmp_path}/without.sqlite"
    log = open_log(first, create=True)
    log.append([beginning.event(data(), n) for n in range(20)])
    assert beginning.begin(run, log, first) == 50
    log.close()
    copy(first, second, ["u1"])
    others = sum(user != "u1" for user in (data().users[n] for n in data().user))
    log = open_log(second)
    assert beginning.begin(run, log, second) == others == log.last() - 1
    log.close()
    log = open_log(f"{tmp_path}/short.sqlite", create=True)
    log.append([*(beginning.event(data(), n) for n in range(30)), Cut(0, 30, "end", 1.0)])
    assert beginning.begin(run, log, "short") == 30 == log.last() - 1
    log.close()
