"""What tests of runs share."""

import functools

import pytest

from incremental.run.feed import Capacities
from tests import lab

ROOM = Capacities(table=128, examples=512)  # for all of the tiny stream's examples


@pytest.fixture
def one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates of one increment, of a window and of all share a program."""
    monkeypatch.setattr(lab, "feed_of", functools.partial(lab.feed_of, capacities=ROOM))
