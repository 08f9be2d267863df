"""The HTTP application: routes, and what is around each of them: access, limits, time, and refusals as JSON."""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from incremental.errors import UserError
from incremental.log.engine import Written
from incremental.log.records import Choice, Event, Id, Reason, Title
from incremental.serve.live import choices, events
from incremental.serve.live.access import LOOPBACK, Scope
from incremental.serve.live.model import Model
from incremental.serve.live.page import page, state
from incremental.serve.live.people import Asked
from incremental.serve.live.refused import Refused, answer
from incremental.serve.live.service import Service

said = logging.getLogger("incremental.serve")
Handler = Callable[[Service, Request], Awaitable[Response]]


class Promotion(Struct, forbid_unknown_fields=True):
    """The body of POST /v1/admin/promote."""

    learner: Id
    version: Annotated[int, Meta(ge=0)] | None = None
    reason: Reason = ""


class Rollback(Struct, forbid_unknown_fields=True):
    """The body of POST /v1/admin/rollback."""

    version: Annotated[int, Meta(ge=0)] | None = None
    reason: Reason = ""


def application(service: Service) -> Starlette:
    """All routes. The service is closed when the application ends: what waits is committed and answered."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    def route(path: str, handler: Handler, scope: Scope | None, methods: tuple[str, ...] = ("GET",)) -> Route:
        return Route(path, around(service, handler, scope), methods=[*methods], name=handler.__name__)

    routes = [
        route("/v1/events", take, "write", ("POST",)),
        route("/v1/items", name_items, "write", ("POST",)),
        route("/v1/recommend", recommend, "read"),
        route("/v1/similar", similar, "read"),
        route("/v1/explain", explain, "read"),
        route("/v1/status", status, "read"),
        route("/v1/admin/promote", promote, "admin", ("POST",)),
        route("/v1/admin/rollback", rollback, "admin", ("POST",)),
        route("/metrics", metrics, "read"),
        route("/healthz", health, None),
        route("/", front, None),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: strayed})


def around(service: Service, handler: Handler, scope: Scope | None) -> Callable[[Request], Awaitable[Response]]:
    """The handler behind access and rate, with its time counted, and its refusals as JSON."""
    name = handler.__name__

    async def run(request: Request) -> Response:
        start = time.perf_counter()
        try:
            # Without tokens, a page of the web must not reach the server through a browser, by a name of its own.
            if service.access.open and (host := request.url.hostname) not in LOOPBACK:
                names = ", ".join(LOOPBACK)
                raise Refused(400, f"the request is for the host {host!r}", f"one of {names}", "ask by such a name")
            if scope is not None:
                client = request.client.host if request.client else "nowhere"
                who = service.access.allow(request.headers.get("authorization"), scope, client)
                if after := service.rate.take(who):
                    limit = service.settings.limits.rate
                    raise Refused(
                        429, f"too many requests {who}", f"at most {limit:g} a second (live.rate)", "wait", after
                    )
            found = await handler(service, request)
        except Refused as refused:
            found = refused.response()
        except ClientDisconnect:
            found = Refused(400, "the client went away", "a whole body", "send it again").response()
        except Exception as error:
            trace = not isinstance(error, UserError)  # what its user can mend is one line
            said.error("%s %s: %s", request.method, request.url.path, error, exc_info=trace)
            found = Refused(
                500, "the server made a mistake", "an answer", "tell who runs the server, whose log has the details"
            ).response()
        service.metrics.request(name, found.status_code, seconds := time.perf_counter() - start)
        if service.settings.access_log != "off":
            query = f"?{request.url.query}" if service.settings.access_log == "ids" and request.url.query else ""
            said.info("%s %s%s %d %.1f ms", request.method, request.url.path, query, found.status_code, seconds * 1000)
        return found

    return run


def strayed(_request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another one")
        return Refused(405, "the method is not for this path", f"{allowed}", "see docs/live.md").response()
    return Refused(error.status_code, str(error.detail), "a path of the API", "see docs/live.md").response()


# -- what comes --------------------------------------------------------------------------------------------------------


async def body_of(service: Service, request: Request) -> bytes:
    """The whole body, in bounded memory. Raises Refused for what is packed, too large, or not said to be JSON."""
    most = service.settings.limits.body
    packed = request.headers.get("content-encoding", "identity").lower()
    if packed != "identity":
        raise Refused(415, f"the body is packed ({packed})", "plain JSON", "leave out Content-Encoding")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, f"the type is {kind or 'not given'}", "Content-Type: application/json", "send this header")
    large = Refused(413, "the body is too large", f"at most {most:,} bytes (live.body)", "send several requests")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise large
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > most:
            raise large
    return bytes(found)


def number(request: Request, name: str, default: int, most: int) -> int:
    """A whole number of the query, 1 to `most`."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= most:
        raise Refused(400, f"{name}={text[:40]}", f"a whole number from 1 to {most}", f"correct {name}")
    return int(text)


def yes(request: Request, name: str, *, default: bool) -> bool:
    """true or false of the query."""
    text = request.query_params.get(name, str(default)).lower()
    if text not in ("true", "false", "1", "0"):
        raise Refused(400, f"{name}={text[:40]}", "true or false", f"correct {name}")
    return text in ("true", "1")


def only(request: Request, *names: str) -> None:
    """Refuses what the query has beside these."""
    for name in request.query_params:
        if name not in names:
            raise Refused(400, f"{name[:40]!r} is unknown", f"{', '.join(names) or 'no parameter'}", "correct its name")


async def command(service: Service, request: Request, kind: type[Any]) -> Any:
    """The body of a command; an empty one is {}."""
    body = await body_of(service, request)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except events.NO_JSON as error:
        keys = ", ".join(kind.__struct_fields__)
        raise Refused(400, events.reason(error, body), f"a JSON object with {keys}", "correct the body") from None


# -- routes ------------------------------------------------------------------------------------------------------------


async def take(service: Service, request: Request) -> Response:
    """POST /v1/events: 200 where no event was refused, 207 where some were; 400 where all were, 429 if time helps."""
    several, decoded = events.decoded(await body_of(service, request), service.settings.limits.batch, events.EVENTS)
    checked = service.rules.checked(decoded)
    service.writer.room(len(checked))  # before new items are counted
    service.admit(checked)
    own = [{"event_id": each.event_id} if isinstance(each, Event) else {} for each in decoded]
    verdicts = await verdicts_of(service, checked, own)
    service.metrics.events(Counter(each["verdict"] for each in verdicts))
    return judged(checked, verdicts, several=several)


async def name_items(service: Service, request: Request) -> Response:
    """POST /v1/items: what items are called; answered as events are. Of an item that has another title, with that."""
    several, decoded = events.decoded(await body_of(service, request), service.settings.limits.batch, events.TITLES)
    checked = events.titles(decoded)
    service.writer.room(len(checked))
    service.admit_items(checked)
    await run_in_threadpool(service.read, [each for each in checked if isinstance(each, Title)])
    own = [{"item": each.item} if isinstance(each, Title) else {} for each in decoded]
    verdicts = await verdicts_of(service, checked, own)
    for each, verdict in zip(checked, verdicts, strict=True):
        if isinstance(each, Title) and (title := service.people.title(each.item)) != each.title:
            verdict["title"] = title
    return judged(checked, verdicts, several=several)


async def verdicts_of(
    service: Service, checked: Sequence[Event | Title | events.Fault], names: Sequence[dict[str, str]]
) -> list[dict[str, Any]]:
    """Writes what is right, and says of each, behind its name, what became of it."""
    good = [each for each in checked if not isinstance(each, events.Fault)]
    written: list[Written] = await asyncio.wrap_future(service.writer.submit(good)) if good else []
    fates = iter(written)
    verdicts: list[dict[str, Any]] = []
    for name, each in zip(names, checked, strict=True):
        if isinstance(each, events.Fault):
            later = {} if each.after is None else {"after": math.ceil(each.after)}
            verdicts.append({**name, "verdict": "refused", "reason": str(each), **later})
        else:
            verdicts.append({**name, "verdict": "new" if next(fates).new else "known"})
    return verdicts


def judged(checked: Sequence[object], verdicts: list[dict[str, Any]], *, several: bool) -> Response:
    """The answer with these verdicts."""
    found = {"verdicts": verdicts} if several else verdicts[0]
    refused = sum(each["verdict"] == "refused" for each in verdicts)
    if refused < len(verdicts):
        return answer(found, 207 if refused else 200)
    faults = [each for each in checked if isinstance(each, events.Fault)]
    first = next((each for each in faults if each.after is not None), faults[0])  # a client that repeats loses nothing
    code = 400 if first.after is None else 429
    return Refused(code, first.error, first.expected, first.remedy, first.after).response(found)


async def recommend(service: Service, request: Request) -> Response:
    """GET /v1/recommend?user=&k=&exclude_seen=."""
    only(request, "user", "k", "exclude_seen")
    user = events.asked(request.query_params.get("user"), "user")
    k = number(request, "k", 10, service.settings.limits.most)
    exclude = yes(request, "exclude_seen", default=True)
    model, asked, best = await asyncio.wrap_future(service.batcher.recommend(user, exclude=exclude))
    people = service.people
    items = [
        {**(people.named(people.names[item]) if model is None else model.named(people, item)), "score": score}
        for item, score in zip(best.items[:k].tolist(), best.scores[:k].tolist(), strict=True)
    ]
    found: dict[str, Any] = {"user": user, "learner": model and model.learner, "version": model and model.number}
    found |= {"fallback": best.fallback, "known_user": asked.number > 0, "items": items}
    if len(items) < k:
        known = "the log has" if model is None else "the model knows"
        found["note"] = f"{len(items)} items, fewer than k={k}: there are no more that {known}" + (
            " and the user has not had" if exclude else ""
        )
    return answer(found)


def row_of(service: Service, model: Model | None, name: str) -> int:
    """The row of an item that the model has learnt, or knows by its title. Raises Refused."""
    people = service.people
    if name not in people.items and name not in people.titles:
        raise Refused(404, f"item {name!r} has no event", "an item of the log", "correct the item")
    if model is None:
        raise Refused(409, "no version serves yet", "a learnt model", "wait for the first version")
    if not (row := model.row(people, name)):
        raise Refused(
            409, f"version {model.number} has not learnt item {name!r}", "a learnt item", "wait for the next version"
        )
    return row


async def similar(service: Service, request: Request) -> Response:
    """GET /v1/similar?item=&k=: by the cosine of the item vectors."""
    only(request, "item", "k")
    name = events.asked(request.query_params.get("item"), "item")
    k, people = number(request, "k", 10, service.settings.limits.most), service.people

    def work(model: Any) -> dict[str, Any]:
        item = row_of(service, model, name)
        if model.functions.near is None:
            what, remedy = "a model with an item table", "choose another model, such as model=sasrec_small"
            raise Refused(409, f"the model of {model.learner} has no vectors of items", what, remedy)
        items, cosines = model.similar(item)
        near = [
            {**model.named(people, each), "cosine": cosine}
            for each, cosine in zip(items[:k].tolist(), cosines[:k].tolist(), strict=True)
        ]
        return {**model.named(people, item), "learner": model.learner, "version": model.number, "items": near}

    return answer(await asyncio.wrap_future(service.batcher.do(work)))


async def explain(service: Service, request: Request) -> Response:
    """GET /v1/explain?user=&item=: by how much the score is smaller without each event of the history."""
    only(request, "user", "item")
    user = events.asked(request.query_params.get("user"), "user")
    name = events.asked(request.query_params.get("item"), "item")

    def work(model: Any) -> dict[str, Any]:
        item = row_of(service, model, name)
        asked: Asked = service.people.ask(user)
        if not asked.number:
            raise Refused(404, f"user {user!r} has no event", "a user of the log", "correct the user")
        score, parts = model.explain(service.people, asked, item)
        found = [{**model.named(service.people, each), "contribution": part} for each, part in parts]
        named = model.named(service.people, item)
        whole = {"user": user, **named, "learner": model.learner, "version": model.number}
        return {**whole, "score": score, "history": found}

    return answer(await asyncio.wrap_future(service.batcher.do(work)))


async def promote(service: Service, request: Request) -> Response:
    """POST /v1/admin/promote: a learner's model serves from now on."""
    given = await command(service, request, Promotion)
    where = service.learners
    return await chosen(service, lambda: choices.promotion(where, given.learner, given.version, given.reason))


async def rollback(service: Service, request: Request) -> Response:
    """POST /v1/admin/rollback: an earlier version serves again, and stays until the next choice."""
    given = await command(service, request, Rollback)
    where, chooser = service.learners, service.chooser
    return await chosen(service, lambda: choices.rollback(where, chooser.serving(), given.version, given.reason))


async def chosen(service: Service, choice: Callable[[], Choice]) -> Response:
    """Writes a choice to the log; answers once it is there. The version serves as soon as it is warm."""
    try:
        record = await run_in_threadpool(choice)
    except UserError as error:
        what, _, remedy = str(error).partition("; ")
        raise Refused(409, what, "a version that is there", remedy) from None
    await asyncio.wrap_future(service.writer.submit([record]))
    service.chooser.nudge.set()
    return answer({"choice_id": record.choice_id, "learner": record.learner, "version": record.version})


async def status(service: Service, request: Request) -> Response:
    """GET /v1/status: what the page shows."""
    only(request)
    return answer(await run_in_threadpool(state, service))


async def metrics(service: Service, _request: Request) -> Response:
    """GET /metrics: the format of Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def health(service: Service, _request: Request) -> Response:
    """GET /healthz: 200 as long as events are committed and users are answered, else 503."""
    broken = service.broken()
    return answer({"status": "broken", "why": broken}, 503) if broken else answer({"status": "ok"})


async def front(_service: Service, _request: Request) -> Response:
    """GET /: the page. It holds no data: it asks /v1/status, with a token where one is needed."""
    return Response(page(), media_type="text/html; charset=utf-8", headers=PAGE)


PAGE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
