"""The API's own description: every example is true, and nothing is ever answered that it does not say."""

import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any
from urllib.parse import quote

import jsonschema_rs
import pytest
from live_service import Running, running

import service.routes
from service.access.keys import create_key
from service.settings import Settings

CONFIG = Path(__file__).with_name("schemathesis.toml")
METHODS = {"get", "put", "post", "delete"}
EXAMPLES_PER_OPERATION = 5


@pytest.fixture
def changing(releases: Path, settings_for: Callable[..., Settings], tmp_path: Path) -> Iterator[Running]:
    """A service that takes changes, on releases of its own: what a test does to it harms no other."""
    shutil.copytree(releases, tmp_path / "releases", symlinks=True)
    with running(settings_for(tmp_path / "releases", live_changes=True)) as started:
        yield started


@pytest.fixture(scope="module")
def description(service: Running) -> dict[str, Any]:
    return service.client.get("/openapi.json").json()


def operations(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, entry in description["paths"].items():
        for method in METHODS & entry.keys():
            yield method, path, entry[method]


def filled(path: str, operation: dict[str, Any]) -> str:
    """The path with the examples of its parameters."""
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(parameter["example"]))
    return path


def conforms(value: object, schema: dict[str, Any], description: dict[str, Any]) -> None:
    jsonschema_rs.validate(schema | {"components": description["components"]}, value)


def test_operations_have_names_for_clients_words_and_a_tag(description):
    described = list(operations(description))
    names = [operation["operationId"] for _, _, operation in described]
    assert len(set(names)) == len(names)
    for _, path, operation in described:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", operation["operationId"]), path
        assert operation["description"], path
        assert operation["tags"], path
        assert operation["tags"][0] in {tag["name"] for tag in description["tags"]}, path


def test_every_example_of_a_request_is_answered_as_described(changing):
    client, sent = changing.client, 0
    description = client.get("/openapi.json").json()
    by_change = sorted(operations(description), key=lambda one: "live changes" in one[2]["tags"])
    for method, path, operation in by_change:
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for words, example in content.get("examples", {}).items():
            response = client.request(method, filled(path, operation), json=example["value"])
            assert response.status_code == 200, (path, words, response.text)
            documented = operation["responses"]["200"]["content"]["application/json"]
            conforms(response.json(), documented["schema"], description)
            conforms(example["value"], content["schema"], description)
            sent += 1
        if method == "get":
            assert client.get(filled(path, operation)).status_code == 200, path
    assert sent >= 15


def test_every_json_body_and_answer_has_an_example_and_that_is_what_really_comes(client, description):
    for method, path, operation in operations(description):
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None and "live changes" not in operation["tags"]:  # which this service does not take
            assert body.get("examples"), path
        answer = operation["responses"]["200"].get("content", {}).get("application/json")
        if answer is None:
            continue
        conforms(answer["example"], answer["schema"], description)
        if method == "get":
            real = client.get(filled(path, operation)).json()
            conforms(real, answer["schema"], description)
            assert answer["example"].keys() == real.keys(), path


def test_a_description_that_needs_no_key_names_no_item(service, releases, settings_for, tmp_path):
    items = service.serving.state.release.items
    told = service.client.get("/openapi.json").text
    assert items.id(0) in told
    create_key(tmp_path / "keys.json", "shop", scopes=("read",))
    with running(settings_for(releases, keys_file=tmp_path / "keys.json")) as guarded:
        told = guarded.client.get("/openapi.json").text
    assert [items.id(row) for row in range(len(items)) if items.id(row) in told] == []


def test_no_request_takes_a_thread_to_be_checked():
    """FastAPI gives each plain function one, and imports what for: which fails where no descriptor is left."""
    modules = [import_module(f"service.routes.{found.name}") for found in iter_modules(service.routes.__path__)]
    routes = [route for module in modules if hasattr(module, "router") for route in module.router.routes]
    dependants = [inner for route in routes for inner in (route.dependant, *route.dependant.dependencies)]
    assert len(dependants) > len(routes) > 20
    assert [one.call for one in dependants if not inspect.iscoroutinefunction(one.call)] == []


def test_options_and_405_name_every_method_of_a_path(client):
    for path, methods in (("/search/text", {"POST"}), ("/v1/models", {"GET", "HEAD"}), ("/", {"GET", "HEAD"})):
        asked, refused = client.options(path), client.request("PATCH", path)
        assert (asked.status_code, asked.content) == (204, b"")
        assert (refused.status_code, refused.json()["error"]["code"]) == (405, "method_not_allowed")
        for response in (asked, refused):
            assert set(response.headers["allow"].split(", ")) == methods | {"OPTIONS"}
    assert client.options("/nope").status_code == 404


def test_schemathesis_finds_no_failure_and_no_undescribed_answer(changing, tmp_path):
    command = Path(sys.executable).with_name("schemathesis")
    run = subprocess.run(
        [command, "--config-file", CONFIG, "run", f"{changing.url}/openapi.json", "--no-color", "--phases",
         "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES_PER_OPERATION), "--seed", "1",
         "--generation-deterministic", "--max-failures", "5"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-6000:]
    assert changing.client.get("/readyz").status_code == 200
