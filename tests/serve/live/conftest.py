"""A small server whose first version serves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from incremental.serve.live.service import Service
from tests.serve.live import small


@pytest.fixture
def service(tmp_path: Path) -> Service:
    small.publish(tmp_path, 0)
    return small.service(tmp_path)


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with small.client(service) as found:
        yield found
