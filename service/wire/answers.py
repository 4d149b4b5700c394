"""Outcomes to response bodies. An embedding is hundreds of numbers: written by orjson straight from NumPy.

Knows the wire's shapes; nothing of how outcomes come about.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from encoders.errors import TwinlensError
from service.device.tickets import Embedded, Outcome
from service.errors import AllItemsFailed, InvalidField, report

MAX_NAMED_FAILURES = 64  # about 2 KB of header; proxies take 4 to 8
HITS_AT_ONCE = 64  # of up to 64 KiB each
INLINE_NUMBERS = 8192  # written within 0.2 ms; more goes to the pool


def dump(answer: object) -> bytes:
    """JSON bytes; NumPy arrays as lists, float32 in its shortest exact form."""
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def dump_hits(answer: Mapping[str, Any]) -> bytes:
    """As `dump`, with the hits under `results` a few at a time: nobody waits while ten thousand are written."""
    hits = answer["results"]
    few = (dump(hits[start : start + HITS_AT_ONCE])[1:-1] for start in range(0, len(hits), HITS_AT_ONCE))
    rest = {name: value for name, value in answer.items() if name != "results"}
    return _with_list("results", few, rest)


def dump_answers(items: Sequence[Mapping[str, Any]], rest: Mapping[str, Any]) -> bytes:
    """A JSON object of `answers`, each with its hits or its error, and of `rest`."""
    written = (dump_hits(item) if item.get("results") else dump(item) for item in items)
    return _with_list("answers", written, rest)


def _with_list(name: str, elements: Iterable[bytes], rest: Mapping[str, Any]) -> bytes:
    """`elements` are JSON already; joining megabytes lets go of the interpreter's lock, orjson does not."""
    return b"".join((b'{"', name.encode(), b'":[', b",".join(elements), b"],", dump(rest)[1:]))


def count_numbers(hits: Sequence[dict[str, Any]], *, dim: int) -> int:
    """About how many numbers it costs to write hits with vectors of `dim`; a payload costs about 32 of them."""
    return sum(32 + dim + len(hit.get("items", ())) for hit in hits)


@dataclass(frozen=True, slots=True)
class VectorForm:
    """How a caller wants vectors: cut to `dimensions` (None: whole) and as a list or base64."""

    as_base64: bool = False
    dimensions: int | None = None

    def check(self, dim: int) -> None:
        """Raises InvalidField when more dimensions are asked for than there are."""
        if self.dimensions is not None and self.dimensions > dim:
            raise InvalidField(
                f"dimensions is {self.dimensions} and the model has {dim}: ask for at most {dim}",
                param="dimensions",
            )

    def cut(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first `dimensions` numbers, made unit again."""
        if self.dimensions is None or self.dimensions == len(vector):
            return vector
        head = vector[: self.dimensions].astype(np.float64)
        length = np.linalg.norm(head)
        return (head / length if length > 0 else head).astype(np.float32)

    def write(self, vector: NDArray[np.float32]) -> NDArray[np.float32] | str:
        cut = np.ascontiguousarray(self.cut(vector), dtype="<f4")
        return base64.b64encode(cut.tobytes()).decode() if self.as_base64 else cut


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    fingerprint: str
    dim: int


def raise_when_all_failed(outcomes: Sequence[object]) -> None:
    """Raises the items' error when none succeeded: theirs where all agree, else AllItemsFailed (400)."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, TwinlensError)]
    if not outcomes or len(errors) < len(outcomes):
        return
    reports = [report(error) for error in errors]
    if len({(problem.status, problem.code) for problem in reports}) == 1:
        raise errors[0]
    causes = "; ".join(f"{index}: {problem.message}" for index, problem in enumerate(reports[:5]))
    failure = AllItemsFailed(f"none of the {len(errors)} could be answered: {causes}")
    if len({problem.status for problem in reports}) == 1:
        failure.status = reports[0].status
    raise failure


def embed_json(model: Model, outcomes: Sequence[Outcome], *, form: VectorForm) -> bytes:
    """The answer of /embed: an embedding or an error for each item, in the order asked."""
    dim = form.dimensions or model.dim
    data = [_embed_item(index, outcome, form) for index, outcome in enumerate(outcomes)]
    return dump(
        {"model": model.name, "model_fingerprint": model.fingerprint, "dim": dim, "data": data},
    )


def _embed_item(index: int, outcome: Outcome, form: VectorForm) -> dict[str, Any]:
    if isinstance(outcome, Embedded):
        return {"index": index, "embedding": form.write(outcome.vector), "truncated": outcome.truncated}
    problem = report(outcome)
    return {"index": index, "error": {"code": problem.code, "message": problem.message}}


def embed_rows(model: Model, outcomes: Sequence[Outcome], *, form: VectorForm) -> tuple[bytes, str]:
    """Little-endian float32 rows in the order asked, NaN where an item failed, and `index:code,…` of those.

    Of many failures only the first are named, then how many more there are, as `+97`: it becomes a header.
    """
    dim = form.dimensions or model.dim
    rows = np.full((len(outcomes), dim), np.nan, dtype="<f4")
    failures = []
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Embedded):
            rows[index] = form.cut(outcome.vector)
        else:
            failures.append(f"{index}:{report(outcome).code}")
    if len(failures) > MAX_NAMED_FAILURES:
        failures[MAX_NAMED_FAILURES:] = [f"+{len(failures) - MAX_NAMED_FAILURES}"]
    return rows.tobytes(), ",".join(failures)


def openai_json(model: Model, outcomes: Sequence[Embedded], *, form: VectorForm) -> bytes:
    """The answer of /v1/embeddings."""
    tokens = sum(outcome.tokens for outcome in outcomes)
    data = [
        {"object": "embedding", "index": index, "embedding": form.write(outcome.vector)}
        for index, outcome in enumerate(outcomes)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return dump({"object": "list", "data": data, "model": model.name, "usage": usage})
