"""A small real release, and the real service on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from live_service import Running, publish, running, write_gallery
from page_visits import browser, desktop, page_releases, page_url, phone, squares, visit  # noqa: F401 — fixtures
from string_machine import Machine, started

from service.device.batching import Device
from service.settings import Settings


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory, gallery: Path, tiny_bundle: Path) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    publish(folder, gallery, tiny_bundle)
    return folder


@pytest.fixture(scope="session")
def settings_for() -> Callable[..., Settings]:
    """Settings for tests: any free port, one thread for the encoder, no watching."""

    def make(releases: Path, **changes: object) -> Settings:
        common = {"port": 0, "device": "cpu", "torch_threads": 1, "decode_workers": 2, "watch_seconds": 0}
        return Settings(**{"releases": releases, **common, **changes})

    return make


@pytest.fixture(scope="module")
def service(releases: Path, settings_for: Callable[..., Settings]) -> Iterator[Running]:
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
