"""Versions are swapped under load: each answer is by one version, and the other requests wait for none."""

import asyncio
import threading
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import httpx
import pytest

from incremental.serve.live import batching
from incremental.serve.live.app import application
from incremental.serve.live.model import piece
from tests.serve.live import small

VERSIONS = 30


def test_no_answer_is_by_two_versions(tmp_path: Path) -> None:
    """Version n has n + 1 events of item a, which an unknown user's answer shows beside its number."""
    small.publish(tmp_path, 0)
    service = small.service(tmp_path, limits={"rate": 1e6, "burst": 1e6})
    answers: list[dict[str, Any]] = []

    async def ask(client: httpx.AsyncClient, over: asyncio.Event) -> None:
        while not over.is_set():
            found = await client.get("/v1/recommend?user=nobody&k=8")
            assert found.status_code in (200, 429), found.text
            if found.status_code == 200:
                answers.append(found.json())

    async def swap(over: asyncio.Event) -> None:
        for number in range(1, VERSIONS + 1):
            await asyncio.to_thread(small.publish, tmp_path, number)
            await asyncio.to_thread(service.chooser.look)
            await asyncio.sleep(0.01)
        over.set()

    async def main() -> None:
        over = asyncio.Event()
        transport = httpx.ASGITransport(application(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await asyncio.gather(swap(over), *(ask(client, over) for _ in range(4)))

    asyncio.run(main())
    service.close()
    assert service.version == VERSIONS
    assert len({each["version"] for each in answers}) > VERSIONS // 2
    for each in answers:
        (score,) = [item["score"] for item in each["items"] if item["item"] == "a"]
        assert score == each["version"] + 1


def test_a_version_that_serves_compiles_nothing(tmp_path: Path) -> None:
    small.publish(tmp_path, 0)
    service = small.service(tmp_path)
    functions: Any = small.functions()
    before = functions.top._cache_size(), functions.score._cache_size()
    model = service.chooser.current
    assert model is not None
    for number in (1, 3, 20, 100, 200):
        model.best(service.people, [service.people.ask("ann")] * number, [True] * number)
    model.explain(service.people, service.people.ask("cid"), 1)
    small.publish(tmp_path, 1)
    assert service.chooser.look()
    assert (functions.top._cache_size(), functions.score._cache_size()) == before == (4, 1)
    service.close()


def test_most_of_a_bucket_is_no_padding() -> None:
    assert [piece(number) for number in (1, 2, 3, 8, 9, 31, 32, 64, 65, 127, 128, 256)] == [
        *(1, 1, 1, 8, 8, 8, 32, 64, 64, 64, 128, 256)
    ]


def test_requests_that_come_while_the_model_is_at_work_are_one_batch(tmp_path: Path) -> None:
    """Four are; the fewer that remain are answered one after the other, with the same."""
    small.publish(tmp_path, 0)
    service = small.service(tmp_path)
    sizes: list[int] = []
    service.batcher.observe = sizes.append
    free = threading.Event()
    work = service.batcher.do(lambda _model: free.wait(10))
    users = ["ann", "bob", "cid", "ann"]
    futures = [service.batcher.recommend(user, exclude=True) for user in users]
    assert not wait(futures, 0.1).done
    again = threading.Event()
    service.batcher.do(lambda _model: again.wait(10))
    few = [service.batcher.recommend(user, exclude=True) for user in users[:3]]
    free.set()
    assert work.result(10)
    found = [future.result(10) for future in futures]
    assert sizes == [4]
    again.set()
    for (_, asked, best), each in zip(found, few, strict=False):
        alone = each.result(10)
        assert (alone[1].number, alone[2].items.tolist()) == (asked.number, best.items.tolist())
    assert sizes == [4, 1, 1, 1]
    service.close()


def test_a_full_line_of_requests_is_refused(tmp_path: Path, documented: Any) -> None:
    service = small.service(tmp_path, limits={"requests": 0})
    with pytest.raises(batching.Refused) as refused:
        service.batcher.recommend("ann", exclude=True)
    assert refused.value.status == 429
    documented("a full line of live recommendations", refused.value)
    service.close()
