"""The API, through Starlette's client: what is answered, and each bad request's refusal."""

import sys
import time
import tracemalloc
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from incremental.app.rundir import write_atomically
from incremental.log.records import Choice, Cut, Served
from incremental.serve.live import access, batching, events, page
from incremental.serve.live.cuts import cuts
from incremental.serve.live.limits import Limits
from incremental.serve.live.service import Service
from incremental.serve.live.settings import live
from tests.serve.live import small

Documented = Callable[[str, object], None]


def items(found: Any) -> list[str]:
    return [each["item"] for each in found.json()["items"]]


def said(found: Any, status: int) -> str:
    """The text of a refusal."""
    assert found.status_code == status, found.text
    body = found.json()
    return f"{status}: {body['error']}; expected {body['expected']}: {body['remedy']}"


# -- events ------------------------------------------------------------------------------------------------------------


def test_an_event_counts_at_the_next_request(client: TestClient) -> None:
    """Followers of a: b and c, half each; of b: c 3/4, d 1/4; the one before the last counts half."""
    assert items(client.get("/v1/recommend?user=new&exclude_seen=true&k=1")) == ["b"]  # most events
    sent = client.post("/v1/events", json=small.event(1, "new", "a"))
    assert (sent.status_code, sent.json()) == (200, {"event_id": "e1", "verdict": "new"})
    found = client.get("/v1/recommend?user=new&k=2").json()
    assert found["items"] == [{"item": "b", "score": 0.5}, {"item": "c", "score": 0.5}]
    assert (found["fallback"], found["learner"], found["version"]) == (False, "champion", 0)
    client.post("/v1/events", json=small.event(2, "new", "b"))
    found = client.get("/v1/recommend?user=new&k=2").json()
    assert [(each["item"], each["score"]) for each in found["items"]] == [("c", 1.0), ("d", 0.25)]


def test_a_list_has_a_verdict_each(client: TestClient, service: Service) -> None:
    client.post("/v1/events", json=small.event(1))
    found = client.post("/v1/events", json=[small.event(1), small.event(2), small.event(3, item="")])
    assert found.status_code == 207
    assert [each["verdict"] for each in found.json()["verdicts"]] == ["known", "new", "refused"]
    assert service.log.last() == len(small.EVENTS) + 2
    again = client.post("/v1/events", json=[small.event(1), small.event(2)])
    assert (again.status_code, {each["verdict"] for each in again.json()["verdicts"]}) == (200, {"known"})


def test_ids_are_normal_in_the_log(client: TestClient, service: Service) -> None:
    """12, 12.0 and " 12 " are one user, live as in every file."""
    users = ["12", "12.0", " 12 "]
    client.post("/v1/events", json=[small.event(n, user, " a ") for n, user in enumerate(users)])
    last = service.log.read(len(small.EVENTS), 10)
    assert {(record.user, record.item) for _, record in last} == {("12", "a")}  # type: ignore[union-attr]
    assert client.get("/v1/recommend?user=12.00").json()["known_user"]


BAD = {
    "a live event without a user": ({"event_id": "x", "item": "a"}, 400),
    "a live event with an empty item": (small.event(1, item=""), 400),
    "a live event with a blank user": (small.event(1, user="  "), 400),
    "a live event whose user is a float": (small.event(1, user="1.5e9"), 400),
    "a live event whose id is too long": (small.event(1, item="x" * 257), 400),
    "a live event with a control character": (small.event(1, user="a\u0000b"), 400),
    "a live event whose time is text": (small.event(1, time="noon"), 400),
    "a live event in milliseconds": (small.event(1, time=1.8e12), 400),
    "a live event before 1970": (small.event(1, time=-1), 400),
    "a live event of an unknown type": (small.event(1, type="sniff"), 400),
    "a live event of a version that no learner has": (
        small.event(1, served={"learner": "champion", "version": 3_000_000_000}),
        400,
    ),
    "a live event of a learner whose name has a control character": (
        small.event(1, served={"learner": "cham\npion", "version": 3}),
        400,
    ),
    "a live event with a key too many": (small.event(1, colour="red"), 400),
}


def test_control_characters_are_those_of_unicode() -> None:
    kinds = ("Cc", "Cs", "Zl", "Zp")
    for code in range(sys.maxunicode + 1):
        assert bool(events.unreadable(f"a{chr(code)}")) == (unicodedata.category(chr(code)) in kinds), hex(code)


def test_a_bad_event_is_refused_and_the_service_lives_on(
    tmp_path: Path, documented: Documented, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = small.service(tmp_path, types=("interaction", "buy"))
    monkeypatch.setattr(service.rules, "clock", lambda: 1_700_000_000.0)
    with small.client(service) as client:
        for situation, (body, status) in BAD.items():
            documented(situation, said(client.post("/v1/events", json=body), status))
        documented(
            "a live event in the future",
            said(client.post("/v1/events", json=small.event(1, time=1_700_000_061.5)), 400),
        )
        assert client.post("/v1/events", json=small.event(1, time=1_700_000_059.5, type="buy")).status_code == 200
    (large,) = service.rules.checked([small.Event("1", "ann", "a", served=Served("champion", 0, ["é" * 256] * 1000))])
    assert isinstance(large, events.Fault)
    documented("a live event that is too large", large)
    assert service.people.events == len(small.EVENTS) + 1


def test_a_body_that_is_none_is_refused(client: TestClient, documented: Documented) -> None:
    def post(content: bytes, **headers: str) -> Any:
        return client.post("/v1/events", content=content, headers={"content-type": "application/json", **headers})

    documented("a live body that is no JSON", said(post(b"{user: 1}"), 400))
    documented("an empty live body", said(post(b" "), 400))
    documented("an empty list of live events", said(post(b"[]"), 400))
    documented("a live body that is not UTF-8", said(post(b'{"event_id":"x","user":"\xff","item":"a"}'), 400))
    found = post(b'[{"event_id":"1","user":"u","item":"a"},{"event_id":"2","user":"\xff","item":"a"}]')
    assert (found.status_code, found.json()["verdicts"][0]["verdict"]) == (207, "new")
    assert "byte 24 is not UTF-8" in str(found.json()["verdicts"][1])
    documented("a packed live body", said(post(b"\x1f\x8b", **{"content-encoding": "gzip"}), 415))
    documented("a live body of another type", said(client.post("/v1/events", content=b"{}"), 415))
    documented("a live body that nests without end", said(post(b"[" * 100_000), 400))


def test_what_is_too_much_is_refused(tmp_path: Path, documented: Documented) -> None:
    service = small.service(tmp_path, limits={"body": 400, "batch": 2, "burst": 5.0, "rate": 0.5, "new_items": 0.05})
    with small.client(service) as client:
        many = [{"event_id": str(n), "user": "u", "item": "a"} for n in range(3)]
        documented("too many live events at once", said(client.post("/v1/events", json=many), 413))
        long = small.event(1, fields={"x": "y" * 250, "z": "y" * 250})
        documented("a live body that is too large", said(client.post("/v1/events", json=long), 413))

        def slowly() -> Iterator[bytes]:
            yield from [b"[" + b" " * 300] * 2

        headers = {"content-type": "application/json"}
        assert client.post("/v1/events", content=slowly(), headers=headers).status_code == 413
        new = [small.event(n, item=f"new{n}") for n in range(2)]
        assert client.post("/v1/events", json=new[0]).json()["verdict"] == "new"
        assert client.post("/v1/events", json=new[1]).status_code == 200  # 0.05 a second, a minute's worth at once
        found = client.get("/v1/recommend?user=ann")
        documented("too many live requests", said(found, 429))
        assert int(found.headers["retry-after"]) >= 1


def test_a_burst_of_new_items_is_refused_for_now(
    tmp_path: Path, documented: Documented, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full batch passes, as 3 of 0.001 a second may come at once; what does not pass may be sent again later."""
    service = small.service(tmp_path, limits={"new_items": 0.001, "batch": 3})
    service.new_items.clock = lambda: 0.0
    with small.client(service) as client:
        full = batching.Refused(429, "the queue is full", "room", "wait", after=1)
        new = [small.event(n, item=f"new{n}") for n in range(6)]

        def refuse(_records: int) -> None:
            raise full

        with monkeypatch.context() as patch:
            patch.setattr(service.writer, "room", refuse)
            assert client.post("/v1/events", json=new[0]).status_code == 429
        assert client.post("/v1/events", json=new[:3]).status_code == 200
        found = client.post("/v1/events", json=new[3:5])
        documented("a burst of new live items", said(found, 429))
        assert found.headers["retry-after"] == "2000"
        assert [each["after"] for each in found.json()["verdicts"]] == [2000, 2000]
        found = client.post("/v1/events", json=[new[3], small.event(9), small.event(10, user="")])
        assert found.status_code == 207
        assert [each.get("after") for each in found.json()["verdicts"]] == [1000, None, None]
        assert client.post("/v1/events", json=[new[3], small.event(10, user="")]).status_code == 429


def test_types_count_before_their_commit(tmp_path: Path, documented: Documented) -> None:
    """Of two requests with 100 types each the log takes 126 beside the one that it has."""
    service = small.service(tmp_path)
    one: list[Any] = [small.Event(f"{n}", "ann", "a", f"t{n}") for n in range(100)]
    two: list[Any] = [small.Event(f"{n}", "ann", "a", f"t{n}") for n in range(80, 180)]
    for checked in (one, two):
        service.admit(checked)
    good = [each for each in one + two if isinstance(each, small.Event)]
    assert (len(good), len({each.type for each in good})) == (146, 126)
    documented("a live event of one type too many", two[-1])
    service.settings = service.settings._replace(only=("buy",))
    others: list[Any] = [small.Event("x", "ann", "a", "other"), small.Event("y", "ann", "a", "buy")]
    service.admit(others)
    assert [isinstance(each, small.Event) for each in others] == [True, False]  # the learners do not read the first
    service.close()


def test_a_body_of_commas_takes_bounded_memory(tmp_path: Path) -> None:
    made = live(folder=tmp_path, log="", cut=cuts())
    assert Limits(**{name: getattr(made, name) for name in Limits._fields}) == Limits()
    body = b"[" + b"0," * (Limits().body // 2 - 1) + b"0]"
    tracemalloc.start()
    try:
        with pytest.raises(batching.Refused, match="events"):
            events.decoded(body, 1000, events.EVENTS)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


# -- answers -----------------------------------------------------------------------------------------------------------


def test_seen_items_are_left_out_on_request(client: TestClient) -> None:
    """cid had d, e, b; the model reads the last two: b follows nothing of e but a."""
    assert items(client.get("/v1/recommend?user=cid&k=2")) == ["c", "a"]
    assert items(client.get("/v1/recommend?user=cid&k=2&exclude_seen=false")) == ["c", "a"]
    assert "b" in items(client.get("/v1/recommend?user=cid&k=8&exclude_seen=false"))
    found = client.get("/v1/recommend?user=cid&k=8").json()
    assert [each["item"] for each in found["items"]] == ["c", "a"]
    assert found["note"] == "2 items, fewer than k=8: there are no more that the model knows and the user has not had"


def test_an_unknown_user_gets_what_has_most_events(client: TestClient) -> None:
    found = client.get("/v1/recommend?user=nobody&k=8").json()
    assert found["fallback"]
    assert not found["known_user"]
    assert [each["item"] for each in found["items"]] == ["b", "a", "c", "d", "e"]
    assert found["items"][0]["score"] == 3.0


def test_before_the_first_version_the_log_is_counted(tmp_path: Path, documented: Documented) -> None:
    with small.client(small.service(tmp_path)) as client:
        found = client.get("/v1/recommend?user=ann&k=3").json()
        assert (found["fallback"], found["version"]) == (True, None)
        assert [each["item"] for each in found["items"]] == ["c", "d", "e"]
        assert "note" not in found
        few = client.get("/v1/recommend?user=ann&k=8").json()["note"]
        assert few == "3 items, fewer than k=8: there are no more that the log has and the user has not had"
        documented("similar items before the first version", said(client.get("/v1/similar?item=a"), 409))


def test_the_history_explains_a_score(client: TestClient) -> None:
    """The model is linear in its events: their parts sum to the score. ann had a, then b; c: 3/4 of b, 1/2 1/2 of a."""
    found = client.get("/v1/explain?user=ann&item=c").json()
    assert found["score"] == 1.0
    # Without b, a is the last one and counts whole: the score would be 1/2.
    assert [(each["item"], each["contribution"]) for each in found["history"]] == [("a", 0.25), ("b", 0.5)]
    client.post("/v1/events", json=small.event(1, "one", "a"))
    only = client.get("/v1/explain?user=one&item=c").json()["history"]
    assert [(each["item"], each["contribution"]) for each in only] == [("a", None)]


@pytest.mark.parametrize(
    ("situation", "path", "status"),
    [
        ("a recommendation without a user", "/v1/recommend", 400),
        ("a recommendation for an empty user", "/v1/recommend?user=", 400),
        ("a recommendation of no items", "/v1/recommend?user=ann&k=0", 400),
        ("a recommendation of too many items", "/v1/recommend?user=ann&k=9", 400),
        ("a recommendation of half an item", "/v1/recommend?user=ann&k=1.5", 400),
        ("exclude_seen that is neither", "/v1/recommend?user=ann&exclude_seen=maybe", 400),
        ("a recommendation with an unknown parameter", "/v1/recommend?user=ann&n=3", 400),
        ("a recommendation for a user with a control character", "/v1/recommend?user=a%00", 400),
        ("a recommendation for a user who is not UTF-8", "/v1/recommend?user=J%FCrg", 400),
        ("items similar to one that never occurred", "/v1/similar?item=zz", 404),
        ("items similar by a model without vectors", "/v1/similar?item=a", 409),
        ("an explanation for a user who never occurred", "/v1/explain?user=nobody&item=a", 404),
        ("a path that the API has not got", "/v2/events", 404),
        ("a method that the path has not got", "/v1/events", 405),
    ],
)
def test_what_cannot_be_answered_is_said(
    client: TestClient, documented: Documented, situation: str, path: str, status: int
) -> None:
    documented(situation, said(client.get(path), status))


def test_an_item_that_is_not_learnt_is_said(client: TestClient, documented: Documented) -> None:
    client.post("/v1/events", json=small.event(1, item="f"))
    documented("an explanation of an item that is not learnt", said(client.get("/v1/explain?user=ann&item=f"), 409))
    assert "f" not in items(client.get("/v1/recommend?user=bob&k=8"))


# -- admin -------------------------------------------------------------------------------------------------------------


def test_promotion_and_rollback_are_records_of_the_log(
    client: TestClient, service: Service, tmp_path: Path, documented: Documented
) -> None:
    small.publish(tmp_path, 1)
    small.publish(tmp_path, 4, "other")
    assert service.chooser.look()
    assert service.version == 1

    def post(path: str, **body: Any) -> Any:
        found = client.post(f"/v1/admin/{path}", json=body)
        service.chooser.look()
        return found

    assert post("rollback", reason="it is worse").json()["version"] == 0
    assert service.version == 0
    assert client.get("/v1/status").json()["version"]["pinned"]
    assert post("promote", learner="other").status_code == 200
    assert client.get("/v1/recommend?user=ann").json()["learner"] == "other"
    records = [record for _, record in service.log.read(0, 100) if isinstance(record, Choice)]
    assert [(each.learner, each.version) for each in records] == [("champion", 0), ("other", None)]
    documented("a promotion of no learner", said(post("promote", learner="nobody"), 409))
    documented("a promotion of a version that is not there", said(post("promote", learner="other", version=7), 409))
    documented("a rollback with nothing before", said(post("rollback"), 409))
    documented("a promotion that is none", said(post("promote", lerner="x"), 400))


def test_a_choice_counts_before_its_version_is_warm(
    client: TestClient, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rollbacks are two steps, and one after a promotion goes back in the learner that was promoted."""
    for number, learner in ((1, "champion"), (2, "champion"), (3, "other"), (5, "other")):
        small.publish(tmp_path, number, learner)
    assert service.chooser.look()
    monkeypatch.setattr(service.chooser, "look", lambda: True)
    back = [client.post("/v1/admin/rollback", json={}).json() for _ in range(2)]
    assert [(each["learner"], each["version"]) for each in back] == [("champion", 1), ("champion", 0)]
    assert client.post("/v1/admin/promote", json={"learner": "other"}).status_code == 200
    back = [client.post("/v1/admin/rollback", json={}).json()]
    assert [(each["learner"], each["version"]) for each in back] == [("other", 3)]
    assert client.post("/v1/admin/rollback", json={"version": 5}).status_code == 409
    assert client.post("/v1/admin/promote", json={"learner": "../learners/other"}).status_code == 409


def test_the_lag_is_what_the_version_has_not_learnt(client: TestClient, service: Service) -> None:
    service.log.append([Cut(0, 7, "count", 10.0)])
    client.post("/v1/events", json=[small.event(n, time=100.0 + n) for n in range(3)])
    assert service.lag() == (3, 96.0, 0)
    service.log.append([Cut(1, 10, "drift", 200.0)])
    service.people.follow()
    assert service.lag() == (3, 96.0, 1)
    client.get("/v1/recommend?user=ann")
    state = client.get("/v1/status").json()
    assert [each["number"] for each in state["drift"]] == [1]
    assert (state["recent"][-1]["requests"] > 0, state["recent"][-1]["p99"] > 0) == (True, True)
    text = client.get("/metrics").text
    assert "incremental_lag_events 3.0" in text
    assert 'incremental_events_total{verdict="new"} 3.0' in text


def test_a_clock_that_was_set_back_makes_no_version_younger(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    before, now = service.age, time.time() - 3600
    monkeypatch.setattr("time.time", lambda: now)
    assert service.age >= before
    service.close()


def test_a_version_that_cannot_be_read_leaves_the_old_one(service: Service, tmp_path: Path) -> None:
    small.publish(tmp_path, 1)
    (tmp_path / "learners/champion/versions/000001/state.safetensors").write_bytes(b"half")
    assert not service.chooser.look()
    assert service.version == 0
    assert "cannot be read" in service.chooser.problem
    service.close()


# -- access ------------------------------------------------------------------------------------------------------------


def test_scopes_decide(tmp_path: Path, documented: Documented) -> None:
    token = {scope: access.add(tmp_path, f"the {scope} one", [scope]) for scope in access.SCOPES}
    with small.client(small.service(tmp_path)) as client:

        def asked(bearer: str | None, method: str = "GET", path: str = "/v1/recommend?user=ann", **more: Any) -> Any:
            headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
            return client.request(method, path, headers=headers, **more)

        assert asked(token["read"]).status_code == 200
        documented("a live request without a token", said(asked(None), 401))
        documented("a live request with an unknown token", said(asked("inc_guess"), 401))
        documented("a live request without the scope", said(asked(token["read"], "POST", "/v1/events"), 403))
        assert asked(token["write"], "POST", "/v1/events", json=small.event(1)).status_code == 200
        assert asked(token["write"], "POST", "/v1/admin/rollback", json={}).status_code == 403
        assert asked(token["admin"], "POST", "/v1/admin/rollback", json={}).status_code == 409
        assert [asked(None, path=path).status_code for path in ("/", "/healthz", "/metrics", "/v1/status")] == [
            *(200, 200, 401, 401)
        ]
        access.remove(tmp_path, "the read one")
        assert asked(token["read"]).status_code == 401


def test_a_page_of_the_web_cannot_reach_a_server_without_tokens(client: TestClient, documented: Documented) -> None:
    found = client.get("/v1/status", headers={"host": "evil.example"})
    documented("a request by another host's name without tokens", said(found, 400))
    assert client.get("/v1/status", headers={"host": "[::1]:8765"}).status_code == 200


def test_users_are_in_no_line_of_the_log_unless_asked_for(
    caplog: pytest.LogCaptureFixture, client: TestClient, service: Service
) -> None:
    caplog.set_level("INFO", "incremental.serve")
    client.get("/v1/recommend?user=secretive")
    assert "/v1/recommend" in caplog.text
    assert "secretive" not in caplog.text
    service.settings = service.settings._replace(access_log="ids")
    client.get("/v1/recommend?user=secretive")
    assert "secretive" in caplog.text


def test_a_learners_tests_are_read_again_where_they_have_changed(tmp_path: Path) -> None:
    """After thousands of increments the file is long, and the page asks every two seconds."""
    file, head = tmp_path / "evaluations.csv", "trained_until,evaluated_on,metric,value,count\n"
    assert page.quality(file) == {"metric": "", "points": []}
    write_atomically(file, head + "0,1,ndcg@10,0.25,7\n0,1,recall@10,0.5,7\n0,0,ndcg@10,0.5,7\n")
    before = page.read.cache_info().misses
    for _ in range(3):
        assert page.quality(file) == {"metric": "ndcg@10", "points": [[1, 0.25, 7]]}
    assert page.read.cache_info().misses == before + 1
    write_atomically(file, head + "0,1,ndcg@10,0.25,7\n1,2,ndcg@10,0.75,8\n")
    assert page.quality(file)["points"] == [[1, 0.25, 7], [2, 0.75, 8]]


def test_what_its_user_can_mend_is_one_line_of_the_log(
    caplog: pytest.LogCaptureFixture, client: TestClient, tmp_path: Path
) -> None:
    (tmp_path / "tokens.json").write_text("{}")  # others can read it
    found = client.get("/v1/status")
    assert (found.status_code, found.json()["error"]) == (500, "the server made a mistake")
    assert "run chmod 600 on it" in caplog.text
    assert "Traceback" not in caplog.text


def test_health_says_what_is_broken(client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}

    def full(_records: Any) -> Any:
        raise small.UserError("log.sqlite: database or disk is full; nothing of this was written")

    monkeypatch.setattr(service.log, "append", full)
    found = client.post("/v1/events", json=small.event(1))
    assert (found.status_code, found.headers["retry-after"]) == (503, "5")
    assert "disk is full" in found.json()["error"]
    monkeypatch.undo()
    assert client.post("/v1/events", json=small.event(1)).json()["verdict"] == "new"


def test_every_answer_is_json(client: TestClient) -> None:
    for path in ("/healthz", "/v1/status", "/nowhere"):
        assert msgspec.json.decode(client.get(path).content)
