"""The real service on a small release, and a client on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_service import Running, gallery, releases, running, settings_for  # noqa: F401 — fixtures

from service.settings import Settings
from twinlens import Client


@pytest.fixture(scope="session")
def service(releases: Path, settings_for: Callable[..., Settings]) -> Iterator[Running]:  # noqa: F811
    with running(settings_for(releases, live_changes=True)) as started:
        yield started


@pytest.fixture
def client(service: Running) -> Iterator[Client]:
    with Client(service.url, retries=0) as made:
        yield made
