"""deploy/: everything parses, and every metric that a rule or a panel names is one that a real server gives."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from live_service import Running, image_file, running
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from service.access.commands import keys
from service.access.keys import read_keys
from service.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RUNBOOK = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
OF_PROMETHEUS = {"up"}
# What is no metric in PromQL: functions, aggregations, keywords, and the labels after by, on and ignoring.
WORDS = {
    *("sum", "count", "min", "max", "avg", "rate", "increase", "histogram_quantile", "time", "changes"),
    *("label_values", "and", "or", "unless", "bool"),
}
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
SELECTOR = re.compile(r"\{(?:[^{}\"]|\"(?:[^\"\\]|\\.)*\")*\}")
DURATION = re.compile(r"\[[^\]]*\]")
NAME = re.compile(r"(?<![\w:$.\"])[a-zA-Z_:][\w:]*")
LABEL = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)")


def names_in(expression: str) -> set[str]:
    """The metrics that a PromQL expression reads."""
    bare = DURATION.sub(" ", SELECTOR.sub(" ", GROUPING.sub(" ", expression)))
    return set(NAME.findall(bare)) - WORDS


def selectors_in(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric with the labels that it is selected by."""
    for match in re.finditer(rf"({NAME.pattern})({SELECTOR.pattern})", expression):
        yield match[1], set(LABEL.findall(re.sub(r"\"(?:[^\"\\]|\\.)*\"", '""', match[2])))


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana" / "dashboards" / "twinlens.json").read_text())


def expressions() -> list[str]:
    board = dashboard()
    panels = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    notes = [annotation["expr"] for annotation in board["annotations"]["list"]]
    variables = [
        v["definition"].replace(", instance", "") for v in board["templating"]["list"] if "definition" in v
    ]
    return [rule["expr"] for rule in rules()] + panels + notes + variables


@pytest.fixture(scope="module")
def exposed(
    tmp_path_factory: pytest.TempPathFactory, releases: Path, settings_for: Callable[..., Settings]
) -> dict[str, set[str]]:
    """Sample name -> labels, of a server that has answered a little of everything, with all that can be on."""
    own = shutil.copytree(releases, tmp_path_factory.mktemp("watched") / "releases")
    with running(settings_for(own, cache_bytes=1 << 20, live_changes=True)) as service:
        ask(service)
        text = service.client.get("/metrics").text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        found.setdefault(family.name, set())  # a counter nobody has counted yet has no sample
        if family.type == "counter":
            found.setdefault(f"{family.name}_total", set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def ask(service: Running) -> None:
    client = service.client
    for _ in range(60):  # enough for a verdict of drift
        client.post("/search/text", json={"query": "a dog"})
    client.post("/search/image", content=image_file(1), headers={"content-type": "image/png"})
    client.post("/embed/text", json={"texts": " "})
    client.get("/drift")


def test_every_metric_that_a_rule_or_a_panel_names_is_there_with_the_labels_it_is_selected_by(exposed):
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for expression in expressions():
        names = names_in(expression)
        assert names, expression
        assert names <= exposed.keys() | recorded | OF_PROMETHEUS, expression
        for name, labels in selectors_in(expression):
            known = exposed.get(name, set()) | {"instance", "job"}
            assert not exposed.get(name) or labels <= known, (name, labels - known)


def test_the_runbook_tells_of_every_metric_of_ours_and_of_no_other(exposed):
    told = set(re.findall(r"twinlens_\w+", RUNBOOK))
    assert told <= exposed.keys()
    assert {bare(name) for name in exposed if name.startswith("twinlens_")} == {bare(name) for name in told}


def bare(name: str) -> str:
    """A metric without what its samples' names end with."""
    return re.sub(r"_(total|info|bucket|sum|count|created)$", "", name)


def test_names_are_read_out_of_promql():
    expression = (
        'sum by (a, b) (rate(x_total{c=~"d|e{}",f!=""}[5m])) / ignoring (g) (y:z:rate1h > 0) and up == 1'
    )
    assert names_in(expression) == {"x_total", "y:z:rate1h", "up"}
    assert list(selectors_in(expression)) == [("x_total", {"c", "f"})]


def test_every_expression_closes_what_it_opens():
    for expression in expressions():
        bare = re.sub(r"\"(?:[^\"\\]|\\.)*\"", '""', expression)
        for opening, closing in ("()", "[]", "{}"):
            assert bare.count(opening) == bare.count(closing), expression


def test_every_alert_has_a_severity_a_summary_and_its_words_in_the_runbook():
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) > 10
    for rule in alerts:
        assert rule["labels"]["severity"] in {"page", "ticket", "info"}
        assert rule["annotations"]["summary"]
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, anchor) == ("docs/operations.md", rule["alert"].lower())
        assert f"### {rule['alert']}\n" in RUNBOOK


def test_the_dashboard_has_its_rows_a_data_source_to_choose_and_panels_that_do_not_overlap():
    board = dashboard()
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows == ["Traffic", "Latency", "Queues", "Device", "Releases", "Drift"]
    assert [v["type"] for v in board["templating"]["list"]] == ["datasource", "query"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"


COMPOSE_FILES = (ROOT / "docker-compose.yml", ROOT / "docker-compose.live.yml", DEPLOY / "docker-compose.yml")


def services_of(path: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(path.read_text())["services"]


def settings_in(service: dict[str, Any]) -> dict[str, str | None]:
    """Variable -> its value; None where that of whoever starts Compose is passed on."""
    pairs = (entry.partition("=") for entry in service["environment"])
    return {name: value if equals else None for name, equals, value in pairs}


def test_compose_files_mount_what_is_there_and_publish_on_loopback_only():
    services = [service for path in COMPOSE_FILES for service in services_of(path).values()]
    for service in services:
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for volume in service.get("volumes", []):
            source = re.sub(r"^\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
            assert not source.startswith(".") or (ROOT / source).is_dir()
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert scraped["rule_files"] == ["rules.yml"]
    for path in (DEPLOY / "grafana" / "provisioning").rglob("*.yml"):
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1


def test_compose_passes_every_setting_on_but_those_that_the_image_has():
    passed = {
        name for name in settings_in(services_of(COMPOSE_FILES[0])["api"]) if name.startswith("TWINLENS_")
    }
    fixed = {"releases", "host", "port"}
    assert passed == {f"TWINLENS_{name.upper()}" for name in Settings.model_fields if name not in fixed}
    for path in COMPOSE_FILES[1:]:
        assert settings_in(services_of(path)["api"]).keys() <= passed


def test_compose_answers_to_this_machine_and_to_its_own_containers_only(releases, settings_for):
    told = settings_in(services_of(COMPOSE_FILES[0])["api"])["TWINLENS_ALLOWED_HOSTS"]
    default = re.fullmatch(r"\$\{TWINLENS_ALLOWED_HOSTS:-(.*)\}(,api)", told)
    with running(settings_for(releases, allowed_hosts="".join(default.groups()))) as service:
        ask = lambda host: service.client.get("/metrics", headers={"host": host}).status_code  # noqa: E731
        assert {ask(host) for host in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000", "api:8000")} == {200}
        assert {ask(host) for host in ("evil.example", "twinlens", "192.0.2.1")} == {403}
        healthcheck = service.client.get("/readyz", headers={"host": "172.18.0.3:8000"})
        assert healthcheck.status_code == 200


def test_only_the_live_override_lets_the_api_write_into_the_releases():
    base, live = (services_of(path)["api"] for path in COMPOSE_FILES[:2])
    assert "releases:/data/releases:ro" in base["volumes"]
    assert live["volumes"] == ["releases:/data/releases"]
    assert services_of(COMPOSE_FILES[0])["keys"]["volumes"] == ["keys:/data/keys"]
    assert "keys:/data/keys:ro" in base["volumes"]


def test_the_keys_command_takes_the_file_from_the_services_own_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("TWINLENS_KEYS_FILE", str(tmp_path / "keys.json"))
    made = CliRunner().invoke(keys, ["create", "--name", "shop", "--scope", "write"])
    assert (made.exit_code, [key.name for key in read_keys(tmp_path / "keys.json")]) == (0, ["shop"])


def test_the_image_can_be_built_on_a_base_named_by_its_digest():
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^(?:FROM|ARG BASE).*", dockerfile, re.MULTILINE) == [
        "ARG BASE_IMAGE=python:3.11-slim", "FROM ${BASE_IMAGE}",
    ]  # fmt: skip
    compose = yaml.safe_load(COMPOSE_FILES[0].read_text())
    assert compose["x-twinlens"]["build"]["args"]["BASE_IMAGE"] == "${BASE_IMAGE:-python:3.11-slim}"
