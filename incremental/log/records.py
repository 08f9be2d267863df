"""What a live log holds: events, titles of items, cuts between increments, and what became of the model that serves.

A record is one JSON object, whose `kind` says what it is. Each has an id; of two records with one id the first counts.
The garbage collector leaves them alone (`gc=False`): they hold no circles, and a million of them would keep it busy.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

LONGEST = 256  # characters of an id
LONGEST_TITLE = 1000  # characters
LONGEST_REASON = 1000  # characters, of a choice
MOST_FIELDS = 32

Id = Annotated[str, Meta(min_length=1, max_length=LONGEST)]
Seconds = Annotated[float, Meta(ge=0)]
Reason = Annotated[str, Meta(max_length=LONGEST_REASON)]


class Served(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What the user was shown: the answer that an event is about.

    Attributes:
        learner: whose model recommended
        version: of it
        items: the slate, best first
    """

    learner: Id
    version: Annotated[int, Meta(ge=0, le=2**31 - 1)]  # as an export has it: int32
    items: Annotated[list[Id], Meta(max_length=1000)] = []


class Event(Struct, tag_field="kind", tag="event", forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """An interaction.

    Attributes:
        event_id: its sender's; a retry has the same one
        user
        item
        type: what the user did
        time: seconds since 1970, in whole microseconds once it is in the log
        fields: further ids by kind, such as a category
        served
    """

    event_id: Id
    user: Id
    item: Id
    type: Id = "interaction"
    time: Seconds | None = None
    fields: Annotated[dict[Id, Id], Meta(max_length=MOST_FIELDS)] = {}
    served: Served | None = None

    @property
    def key(self) -> str:
        """Its id among the records."""
        return f"event:{self.event_id}"


class Title(Struct, tag_field="kind", tag="title", forbid_unknown_fields=True, gc=False):
    """What an item is called. It may come before the item's first event; models read what came before a cut.

    Attributes:
        item
        title
    """

    item: Id
    title: Annotated[str, Meta(min_length=1, max_length=LONGEST_TITLE)]

    @property
    def key(self) -> str:
        """Its id among the records: an item has one title, its first."""
        return f"title:{self.item}"


class Cut(Struct, tag_field="kind", tag="cut", forbid_unknown_fields=True, gc=False):
    """The end of an increment, written before anything is trained on it.

    Attributes:
        number: of the increment; 0 is the base part
        until: the offset of its last event
        reason
        time: seconds since 1970, when it was decided
    """

    number: Annotated[int, Meta(ge=0)]
    until: Annotated[int, Meta(ge=0)]
    reason: Literal["count", "seconds", "drift", "end"]
    time: Seconds

    @property
    def key(self) -> str:
        """Its id among the records: an increment ends once."""
        return f"cut:{self.number}"


class Choice(Struct, tag_field="kind", tag="choice", forbid_unknown_fields=True, gc=False):
    """Which learner's model serves from now on.

    Attributes:
        choice_id
        learner: by name
        version: that is served until the next choice; None: always the newest
        time: seconds since 1970
        reason
    """

    choice_id: Id
    learner: Id
    version: int | None
    time: Seconds
    reason: Reason = ""

    @property
    def key(self) -> str:
        """Its id among the records."""
        return f"choice:{self.choice_id}"


Record = Event | Title | Cut | Choice

decode = msgspec.json.Decoder(Record).decode
ENCODER = msgspec.json.Encoder()


def encode(record: Record) -> bytes:
    """The record as JSON. Raises a ValueError for what could not be read again: a log would be of no use after it."""
    body = ENCODER.encode(record)
    decode(body)
    return body
