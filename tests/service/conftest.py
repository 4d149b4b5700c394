"""A small real release, and the real service on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from live_service import Running, gallery, releases, running, settings_for  # noqa: F401 — fixtures
from page_visits import browser, desktop, page_releases, page_url, phone, squares, visit  # noqa: F401 — fixtures
from string_machine import Machine, started

from service.device.batching import Device
from service.settings import Settings


@pytest.fixture(scope="module")
def service(releases: Path, settings_for: Callable[..., Settings]) -> Iterator[Running]:  # noqa: F811
    with running(settings_for(releases)) as started:
        yield started


@pytest.fixture
def client(service: Running) -> httpx.Client:
    return service.client


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def device(machine: Machine) -> Iterator[Device]:
    yield from started(machine.device())
    machine.free.set()
