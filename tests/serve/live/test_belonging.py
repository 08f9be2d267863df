"""What a learner refuses at its start: another log, a part of its own, a second learner, what needs a stream's end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from incremental.errors import UserError
from incremental.log.place import open_log
from incremental.log.records import Cut, Event
from incremental.run.executor import Snapshot
from incremental.run.progress import Progress
from incremental.serve.live import belonging, configuring
from incremental.serve.live.learner import learn, refuse
from incremental.serve.live.tail import Tail
from tests import lab

Documented = Callable[[str, object], None]


def tail_of(first: str, cuts: int, time: float = 3.0) -> Tail:
    """A log that begins with this event, and has so many cuts, the last one of this time."""
    tail = Tail(None, "live/log.sqlite")  # type: ignore[arg-type]
    tail.take(1, Event(first, "u", "i", time=1.5))
    for number in range(cuts):
        tail.take(2 * number + 2, Event(f"{first}{number}", "u", "i", time=2.0))
        tail.take(2 * number + 3, Cut(number, 2 * number + 2, "count", time if number == cuts - 1 else 3.0))
    return tail


def at(increment: int, *, begun: bool = False) -> Snapshot:
    return Snapshot(None, None, None, lab.SIZES, Progress(increment=increment, begun=begun))  # type: ignore[arg-type]


def test_a_checkpoint_goes_on_with_its_own_log_only(tmp_path: Path, documented: Documented) -> None:
    belonging.check(tmp_path, tail_of("a", 1), None)
    belonging.check(tmp_path, tail_of("a", 3), at(3))
    belonging.check(tmp_path, tail_of("a", 3), at(2, begun=True))
    for situation, tail, start in (
        ("a learner's checkpoint with another log", tail_of("b", 3), at(3)),
        ("a learner's checkpoint with a part of its log", tail_of("a", 2), at(3)),
    ):
        with pytest.raises(UserError) as error:
            belonging.check(tmp_path, tail, start)
        documented(situation, error.value)
    with pytest.raises(UserError, match="has learnt 4 increments"):
        belonging.check(tmp_path, tail_of("a", 3), at(3, begun=True))
    (tmp_path / "log.json").write_text("{")
    with pytest.raises(UserError) as error:
        belonging.check(tmp_path, tail_of("a", 3), at(3))
    documented("a learner's note of its log that cannot be read", error.value)
    belonging.check(tmp_path, tail_of("b", 1), None)  # nothing is learnt yet
    belonging.check(tmp_path, tail_of("b", 1), at(1))


def test_a_checkpoint_knows_the_cuts_that_it_has_learnt(tmp_path: Path, documented: Documented) -> None:
    """A log that was restored, and has gone on otherwise, begins alike and may have its cuts at the same offsets."""
    own, other = tail_of("a", 3), tail_of("a", 3, time=9.0)
    belonging.check(tmp_path, own, None)
    for t in (0, 1, 0, 2):  # a start looks for increment 0 first
        belonging.note(tmp_path, t, own.cuts[t])
    belonging.check(tmp_path, own, at(3))
    with pytest.raises(UserError) as error:
        belonging.check(tmp_path, other, at(3))
    documented("a learner's checkpoint with a log that begins like its own", error.value)
    with pytest.raises(UserError, match="has no such record"):
        belonging.check(tmp_path, other, at(2, begun=True))
    belonging.check(tmp_path, other, at(2))  # increment 2 was awaited, and not learnt
    with pytest.raises(UserError, match="has no such record"):
        belonging.check(tmp_path, tail_of("a", 2, time=9.0), at(2))  # nor is it the last one that is looked at only
    (tmp_path / "log.json").write_text('{"first": "", "cuts": {"1": "no record"}}')
    with pytest.raises(UserError, match="cannot be read"):
        belonging.check(tmp_path, own, at(3))


def test_two_learners_in_one_folder(tmp_path: Path, documented: Documented) -> None:
    given = ["experiment=live", f"live.folder={tmp_path}/live", "tracking=disabled"]
    _, live = configuring.composed_of(given)
    config = configuring.learner(given, live, "champion")
    with pytest.raises(UserError) as error:
        learn(config, live, "champion", lambda: True)
    documented("a learner on a log that there is not", error.value)

    live.folder.mkdir()
    open_log(live.log, create=True).close()
    errors: list[UserError] = []

    def stopped() -> bool:
        """While the first one waits for its base part, a second one begins."""
        with pytest.raises(UserError) as error:
            learn(config, live, "champion", lambda: True)
        errors.append(error.value)
        return True

    learn(config, live, "champion", stopped)
    documented("two learners of one name", errors[0])


@pytest.mark.parametrize(
    ("situation", "override"),
    [
        ("a live loop with the matrix R", "evaluation.matrix=true"),
        ("a live loop with whole tables", "devices.tables=whole"),
        ("a live loop in several processes", "devices.distributed=true"),
    ],
)
def test_what_needs_the_streams_end_is_refused(situation: str, override: str, documented: Documented) -> None:
    given: Any = ["experiment=live", override]
    with pytest.raises(UserError) as error:
        refuse(configuring.learner(given, configuring.composed_of(given)[1], "champion"))
    documented(situation, error.value)
