"""The real service on a small release, and both kinds of client on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_service import Running, publish, running, write_gallery

from service.settings import Settings
from twinlens import Client


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory, gallery: Path, tiny_bundle: Path) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    publish(folder, gallery, tiny_bundle)
    return folder


@pytest.fixture(scope="session")
def service(releases: Path) -> Iterator[Running]:
    settings = Settings(
        releases=releases,
        port=0,
        device="cpu",
        torch_threads=1,
        decode_workers=2,
        watch_seconds=0,
        live_changes=True,
    )
    with running(settings) as started:
        yield started


@pytest.fixture
def client(service: Running) -> Iterator[Client]:
    with Client(service.url, retries=0) as made:
        yield made
