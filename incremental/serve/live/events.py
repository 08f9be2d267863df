"""From a request's body to the events and titles of the log: decoded, checked, with normal ids. What is wrong is said
of each."""

import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import polars as pl

from incremental.data import ids
from incremental.log.records import ENCODER, LONGEST, Event, Title
from incremental.serve.live.limits import Limits
from incremental.serve.live.refused import Refused

NORMAL = re.compile(r"[A-Za-z_][A-Za-z0-9_:-]*|0|-?[1-9][0-9]{0,14}").fullmatch  # such ids are normal: not looked at
T = TypeVar("T")
LARGEST = 256 << 10  # bytes of an event in the log: a broker's message holds several
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search  # and ends of lines, halves of characters
NO_JSON = (msgspec.DecodeError, UnicodeDecodeError)  # the second is of msgspec before 0.23, for what is not UTF-8


class Fault(NamedTuple):
    """What is wrong with an event or a title, what was expected, what to do.

    `after`: seconds after which the same one may be taken; None: it will not be.
    """

    error: str
    expected: str
    remedy: str = "correct it"
    after: float | None = None

    def __str__(self) -> str:
        return f"{self.error}; expected {self.expected}: {self.remedy}"


class Form(Generic[T]):
    """What a body holds, one or a list of them: `kind`, in words `noun` and `keys`."""

    def __init__(self, kind: type[T], noun: str, keys: str) -> None:
        self.noun, self.expected = noun, f"one {noun} {{{keys}}}, or a list of them"
        self.one = msgspec.json.Decoder(kind).decode
        self.several = msgspec.json.Decoder(list[kind]).decode  # type: ignore[valid-type]

    def read(self, raw: msgspec.Raw) -> T | Fault:
        """One of a body, or what is wrong with it."""
        try:
            return self.one(raw)
        except NO_JSON as error:
            return Fault(reason(error, bytes(raw)), self.expected)


EVENTS = Form(Event, "event", '"event_id", "user", "item", "type"?, "time"?, "fields"?, "served"?')
TITLES = Form(Title, "title", '"item", "title"')
parts = msgspec.json.Decoder(list[msgspec.Raw]).decode


def reason(error: Exception, text: bytes) -> str:
    """What is wrong with `text`, of which a decoder said `error`."""
    if isinstance(error, RecursionError):
        return "it nests too deep"
    try:
        text.decode()
    except UnicodeDecodeError as place:
        return f"byte {place.start} is not UTF-8"
    return str(error)


def decoded(body: bytes, most: int, form: Form[T]) -> tuple[bool, list[T | Fault]]:
    """Whether the body is a list, and what it holds; in place of one that is none, what is wrong with it.

    Raises Refused for what is no JSON, empty, or more than `most`.
    """
    start = body.lstrip()[:1]
    try:
        if start != b"[":
            if not start:
                raise Refused(400, "the body is empty", form.expected, "send JSON")
            raw: list[Any] = [msgspec.Raw(body)]
            msgspec.json.decode(body)
        else:
            raw = parts(body)
    except (*NO_JSON, RecursionError) as error:
        why = reason(error, body)
        raise Refused(400, f"the body is no JSON in UTF-8 ({why})", form.expected, "correct the body") from None
    if not raw:
        raise Refused(400, "the list is empty", form.expected, f"send at least one {form.noun}")
    if len(raw) > most:
        raise Refused(413, f"{len(raw):,} {form.noun}s", f"at most {most:,} in one request", "send several requests")
    try:
        return start == b"[", [*form.several(body)] if start == b"[" else [form.one(body)]
    except NO_JSON:
        return start == b"[", [form.read(each) for each in raw]


class Rules:
    """What is checked of an event beyond its form.

    `types`: what users do here; empty: whatever comes.
    """

    def __init__(
        self,
        types: Collection[str],
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.types, self.limits, self.clock = types, limits, clock

    def checked(self, events: Sequence[Event | Fault]) -> list[Event | Fault]:
        """The events as the log has them, or what is wrong. A time that is not given is now."""
        now = self.clock()
        normal = normals({text for each in events if isinstance(each, Event) for text in texts(each)})
        return [self._one(each, normal, now) if isinstance(each, Event) else each for each in events]

    def _one(self, event: Event, normal: dict[str, str | None], now: float) -> Event | Fault:
        named = [("user", event.user), ("item", event.item), ("type", event.type)]
        named += [(f"fields.{kind}", text) for kind, text in event.fields.items()]
        if event.served is not None:
            named += [("served.items", text) for text in event.served.items]
        names = [("event_id", event.event_id), *(("fields", kind) for kind in event.fields)]
        names += [] if event.served is None else [("served.learner", event.served.learner)]
        for where, text in [*names, *named]:
            if said := unreadable(text):
                return Fault(f"{where}: {said}", "printable text")
        for where, text in named:
            if not normal[text]:
                return no_id(where, text, normal[text])
        kind = normal[event.type] or ""
        if self.types and kind not in self.types:
            return Fault(f"type: {event.type!r} is unknown", f"one of {', '.join(self.types)} (live.types)")
        if event.time is not None and event.time > now + self.limits.ahead:
            remedy = "divide milliseconds by 1000" if event.time > 100 * now else "correct it, or leave it out"
            return Fault(
                f"time: {event.time} is {event.time - now:.0f} s in the future",
                f"seconds since 1970, at most {self.limits.ahead:.0f} s ahead (live.ahead)",
                remedy,
            )
        served = event.served
        if served is not None:
            served = msgspec.structs.replace(served, items=[normal[text] or "" for text in served.items])
        made = Event(
            event.event_id,
            normal[event.user] or "",
            normal[event.item] or "",
            kind,
            round(now if event.time is None else event.time, 6),
            {each: normal[text] or "" for each, text in event.fields.items()},
            served,
        )
        if served is not None and (size := len(ENCODER.encode(made))) > LARGEST:  # without a slate it is never so large
            return Fault(f"the event has {size:,} bytes", f"at most {LARGEST:,}", "leave out a part of served.items")
        return made


def titles(given: Sequence[Title | Fault]) -> list[Title | Fault]:
    """The titles as the log has them, or what is wrong."""
    normal = normals({each.item for each in given if isinstance(each, Title)})

    def checked(each: Title) -> Title | Fault:
        for where, text in (("item", each.item), ("title", each.title)):
            if said := unreadable(text):
                return Fault(f"{where}: {said}", "printable text")
        if not (item := normal[each.item]):
            return no_id("item", each.item, item)
        if not (title := each.title.strip()):
            return Fault("title: it is blank", "what the item is called", "leave the item out")
        return Title(item, title)

    return [checked(each) if isinstance(each, Title) else each for each in given]


def no_id(where: str, text: str, normal: str | None) -> Fault:
    """What is wrong with a text that is no id, whose `normal` form says why."""
    what = "it is blank" if normal == "" else f"{text!r} is a float, and ids may have become one"
    return Fault(f"{where}: {what}", "text, or whole numbers with all their digits")


def texts(event: Event) -> Iterator[str]:
    """The ids of an event that have one form in the log."""
    yield from (event.user, event.item, event.type)
    yield from event.fields.values()
    if event.served is not None:
        yield from event.served.items


def normals(wanted: Collection[str]) -> dict[str, str | None]:
    """Each id as `incremental.data.ids` reads it; "" for a blank one, None for what cannot be one."""
    found: dict[str, str | None] = {text: text for text in wanted}
    odd = [text for text in found if not NORMAL(text)]
    if odd:
        read = ids.read(pl.Series(odd, dtype=pl.String))
        assert read is not None  # texts may be ids
        for text, value, bad in zip(odd, read.values, read.bad, strict=True):
            found[text] = None if bad else value or ""
    return found


def unreadable(text: str) -> str:
    """What is wrong with a text as an id, "" where nothing is: it is shown on screens, in logs and in files."""
    found = CONTROL(text)
    return f"{text!r} has the control character {found[0]!r}" if found else ""


def asked(text: str | None, name: str) -> str:
    """An id of a query, as the log has it. Raises Refused."""
    remedy = f"ask with ?{name}=ID"
    if not text:
        raise Refused(400, f"no {name}" if text is None else f"{name} is empty", f"the {name}'s id", remedy)
    if len(text) > LONGEST:
        raise Refused(400, f"{name} has {len(text):,} characters", f"an id of at most {LONGEST}", remedy)
    if said := unreadable(text):
        raise Refused(400, f"{name}: {said}", "printable text", remedy)
    if "\ufffd" in text:  # what an address is read with stands for other bytes by it
        raise Refused(400, f"{name}: {text!r} is not UTF-8", "an id in UTF-8, in which ü is %C3%BC", remedy)
    normal = normals([text])[text]
    if not normal:
        raise Refused(400, f"{name}: {text!r} is no id", "text or whole numbers with all their digits", remedy)
    return normal
