"""A guest: a consumer that writes each event of a run as a line of JSON."""

import io
import json
from collections.abc import Callable
from typing import Any

from incremental.run.progress import Event, Finished, Paused
from tests import lab


def json_lines(file: Any) -> Callable[[Event], None]:
    """Arrays and functions stay out: what is written is who, what and how much."""

    def consume(event: Event) -> None:
        if isinstance(event, Paused | Finished):
            return
        said = {"event": type(event).__name__, **event._asdict()}
        file.write(json.dumps(said, default=lambda value: value._asdict()) + "\n")

    return consume


def test_every_event_is_a_line_in_order() -> None:
    file = io.StringIO()
    consume = json_lines(file)
    events = list(lab.events(lab.build(lab.Spec()), lab.stream()))
    for event in events:
        consume(event)
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["event"] for line in lines] == [
        type(event).__name__ for event in events if not isinstance(event, Paused | Finished)
    ]
    assert {line["event"] for line in lines} == {"EpochDone", "Evaluated", "Trained"}
    assert all(line["lane"] == 0 for line in lines)
