"""docs/api.md and the client's README cannot lie: their snippets run as they stand against a real service."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_service import image_file, publish, running
from PIL import Image
from system_programs import needs

from encoders.bundle import Bundle
from service.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = ("docs/api.md", "client/README.md", "README.md")
ADDRESS = re.compile(r"(http://)?(127\.0\.0\.1|localhost):8000")
FENCE = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ITEM = "black-labrador-dog"  # of the demo's gallery, which the pages speak of
FUZZING = "schemathesis"  # has its own test


def snippets() -> Iterator[tuple[str, str, str]]:
    """Where it stands, its language, its text: those that speak to the service."""
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        for found in FENCE.finditer(text):
            line = text[: found.start()].count("\n") + 1
            if ADDRESS.search(found[2]) and "make " not in found[2] and FUZZING not in found[2]:
                yield f"{page}:{line}", found[1], found[2]


@pytest.fixture(scope="module")
def address(
    tmp_path_factory: pytest.TempPathFactory,
    make_bundle: Callable[..., Bundle],
    settings_for: Callable[..., Settings],
) -> Iterator[str]:
    """A service with the items and the model that the pages speak of."""
    folder = tmp_path_factory.mktemp("documented")
    gallery = folder / "gallery"
    lines = ["id,image,title,category,year"]
    for number in range(6):
        name = f"{('animals', 'vehicles')[number % 2]}/{('dog', 'car')[number % 2]}_{number + 1}.webp"
        (gallery / name).parent.mkdir(parents=True, exist_ok=True)
        (gallery / name).write_bytes(image_file(number))
        row = f"{name},a {('dog', 'car')[number % 2]} {number},{name.partition('/')[0]},{2010 + number}"
        lines.append(f"{name if number else ITEM},{row}")
    (gallery / "items.csv").write_text("\n".join(lines), encoding="utf-8")
    publish(folder / "releases", gallery, make_bundle(folder / "bundle", name="lite0-minilm").path)
    with running(settings_for(folder / "releases", live_changes=True)) as service:
        yield service.url


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the files that the snippets send, where curl fails when the service refuses."""
    (tmp_path / "car.png").write_bytes(image_file(100))
    with Image.open(tmp_path / "car.png") as image:
        image.save(tmp_path / "dog.jpg")
    (tmp_path / ".curlrc").write_text("fail-with-body\n")
    return tmp_path


@pytest.mark.parametrize(
    ("language", "text"),
    [
        pytest.param(*rest, id=where, marks=needs("curl") if rest[0] == "sh" else ())
        for where, *rest in snippets()
    ],
)
def test_a_snippet_of_the_documentation_runs_as_it_stands(address, place, language, text):
    told = ADDRESS.sub(address, text)
    command = ["bash", "-euo", "pipefail", "-c", told] if language == "sh" else [sys.executable, "-c", told]
    environment = os.environ | {"HOME": str(place), "CURL_HOME": str(place), "NO_PROXY": "127.0.0.1"}
    run = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stdout + run.stderr
    if language == "python":
        assert "False\n" not in run.stdout  # the snippets print what ought to be true


def test_every_way_in_that_the_page_promises_is_among_the_snippets():
    found = [text for where, _, text in snippets() if where.startswith("docs/api.md")]
    for promised in (
        "curl",
        "from openai",
        "from langchain_openai",
        "from twinlens",
        "AsyncClient",
        "search/batch",
    ):
        assert any(promised in text for text in found), promised
