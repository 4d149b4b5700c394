"""What clients that put and delete know: acknowledged and in flight; and whether a service agrees."""

import base64
import io
import json
import random
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.faults.trial import Caller, Left, get


@dataclass(frozen=True)
class Operation:
    """A request that changes items: id → version that it then has, None once it is deleted."""

    request: bytes
    changes: Mapping[str, int | None]


@dataclass
class Ledger:
    """What the clients know: the version of every item that was acknowledged, and what is in flight."""

    versions: dict[str, int | None] = field(default_factory=dict)
    in_flight: list[Operation] = field(default_factory=list)
    acknowledged: int = 0
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Requests:
    """Makes operations; a version tells its image and payload."""

    def __init__(self, fingerprint: str, dim: int, chance: random.Random, *, first: int = 0) -> None:
        """`first`: versions count from there."""
        self._fingerprint, self._dim, self._chance = fingerprint, dim, chance
        self._version = first

    def next(self, ledger: Ledger, ids: Sequence[str]) -> Operation:
        kind = self._chance.choices(("image", "vector", "delete", "batch"), (4, 3, 3, 2))[0]
        there = [name for name in ids if ledger.versions.get(name) is not None]
        if kind == "delete" and there:
            return self._delete(self._chance.choice(there))
        if kind == "batch":
            return self._batch(ids, there)
        return self.put(self._chance.choice(ids), as_image=kind == "image")

    def put(self, name: str, *, as_image: bool) -> Operation:
        self._version += 1
        if as_image:
            query = f"?payload=%7B%22v%22%3A{self._version}%7D"
            return Operation(
                _request("PUT", f"/items/{name}{query}", image(self._version), "image/png"),
                {name: self._version},
            )
        body = json.dumps({"vector": self._vector(), **self._options(self._version)}).encode()
        return Operation(_request("PUT", f"/items/{name}", body, "application/json"), {name: self._version})

    def _delete(self, name: str) -> Operation:
        return Operation(_request("DELETE", f"/items/{name}", b"", ""), {name: None})

    def _batch(self, ids: Sequence[str], there: Sequence[str]) -> Operation:
        """Puts an image and a vector, and deletes what else there is of two."""
        names = self._chance.sample(list(ids), 4)
        gone = [name for name in names[2:] if name in there]
        puts: list[dict[str, Any]] = []
        changes: dict[str, int | None] = dict.fromkeys(gone)
        for place, name in enumerate(names[:2]):
            self._version += 1
            changes[name] = self._version
            payload = {"payload": {"v": self._version}}
            puts.append(
                {"id": name, "image": base64.b64encode(image(self._version)).decode(), **payload}
                if place
                else {"id": name, "vector": self._vector(), **self._options(self._version)}
            )
        body = json.dumps({"put": puts, "delete": gone}).encode()
        return Operation(_request("POST", "/items/batch", body, "application/json"), changes)

    def _options(self, version: int) -> dict[str, Any]:
        return {"model_fingerprint": self._fingerprint, "payload": {"v": version}, "texts": [f"text {version}"]}

    def _vector(self) -> list[float]:
        return [self._chance.gauss(0, 1) for _ in range(self._dim)]


def image(version: int) -> bytes:
    """PNG of noise, some 10 kB, another for each version."""
    pixels = np.random.default_rng(version).integers(0, 256, (64, 56, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _request(method: str, path: str, body: bytes, kind: str) -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nidempotency-key: {uuid.uuid4()}\r\n"
        f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def check(port: int, ledger: Ledger) -> None:
    """Every item is as it was acknowledged, or as what was in flight makes it; then that is sent again."""
    caller = Caller(port)
    found = {name: await version_of(caller, name, ledger) for name in sorted(ledger.versions)}
    pending = {name for one in ledger.in_flight for name in one.changes}
    for name in ledger.versions.keys() - pending:
        if found[name] != ledger.versions[name]:
            ledger.counts["lost"] += 1
            ledger.problems.append(
                f"{name}: {ledger.versions[name]} was acknowledged and {found[name]} is there"
            )
    for one in ledger.in_flight:
        await _check_in_flight(caller, one, found, ledger)
    ledger.in_flight.clear()
    caller.leave()


async def _check_in_flight(
    caller: Caller, one: Operation, found: Mapping[str, int | None], ledger: Ledger
) -> None:
    is_in = all(found[name] == version for name, version in one.changes.items())
    is_out = all(found[name] == ledger.versions[name] for name in one.changes)
    if not (is_in or is_out):
        ledger.counts["half"] += 1
        ledger.problems.append(f"half of {dict(one.changes)} is in: {[found[name] for name in one.changes]}")
    answer = await caller.ask(one.request)
    replayed = "idempotency-replayed" in answer.headers
    if answer.status != 200 or replayed != is_in:
        ledger.counts["not idempotent"] += 1
        ledger.problems.append(
            f"{dict(one.changes)}, {is_in=}: {answer.status} {replayed=} {answer.body[:200]!r}"
        )
    ledger.counts["in flight, was in" if is_in else "in flight, was not in"] += 1
    ledger.versions.update(one.changes)


async def version_of(caller: Caller, name: str, ledger: Ledger) -> int | None:
    answer = await caller.ask(get(f"/items/{name}"))
    if answer.status == 404:
        return None
    item = json.loads(answer.body)
    version: int = item["payload"]["v"]
    if item["width"] is not None:
        whole = await caller.ask(get(f"/images/{name}"))
        small = await caller.ask(get(f"/images/{name}?side=64"))
        if (whole.status, whole.body, small.status) != (200, image(version), 200):
            ledger.counts["half"] += 1
            ledger.problems.append(f"{name}: the image of {version} is {whole.status}, {small.status}")
    return version


async def write(port: int, ids: Sequence[str], requests: Requests, ledger: Ledger) -> None:
    """Until the service is gone."""
    caller = Caller(port)
    while True:
        one = requests.next(ledger, ids)
        for name in one.changes:
            ledger.versions.setdefault(name, None)
        ledger.in_flight.append(one)
        try:
            answer = await caller.ask(one.request)
        except Left:
            return
        if answer.status == 503:  # it drains: nothing was changed
            ledger.in_flight.remove(one)
            return
        if answer.status != 200:
            ledger.problems.append(f"{dict(one.changes)}: {answer.status} {answer.body[:200]!r}")
            ledger.counts["refused"] += 1
        else:
            ledger.versions.update(one.changes)
            ledger.acknowledged += 1
        ledger.in_flight.remove(one)
