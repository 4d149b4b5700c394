"""What the gate said of a bundle: a file inside it, written by `training gate`, read by `index`.

    verdict.json   passed or not, of which bundle (fingerprint), against which, by which policy, every figure

A verdict counts only for the fingerprint and the query bank that it names, and its checks must say what it
says. The bundle's manifest has its SHA-256, so a changed verdict makes the bundle a corrupt one; that guards
against accidents and hands, not against someone who rewrites the manifest too.
"""

from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from encoders.bundle import Bundle
from encoders.diagnosis import Finding
from encoders.errors import GateNotPassed
from encoders.query_bank import QUERY_BANK

VERDICT = "verdict.json"
_NAMED = 3

CheckKind = Literal["golden", "parity", "reproduced", "spread", "floor", "no_fall"]
Doubt = Literal["saturated", "too few", "seen"]
"""Why a figure that keeps its limit proves nothing: all is found, images are few, or were trained on."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Check(_Frozen):
    """One thing that was required. figure, low, high and limit are in the check's own unit; None: not known.

    doubt: set on a check that is not passed for want of evidence.
    """

    kind: CheckKind
    subject: str
    figure: float | None
    limit: float | None
    passed: bool
    low: float | None = None
    high: float | None = None
    detail: str = ""
    doubt: Doubt | None = None

    @model_validator(mode="after")
    def _passes_on_evidence(self) -> Self:
        if self.passed and self.doubt is not None:
            raise ValueError(f"{self.subject} passed and is {self.doubt}")
        return self

    @property
    def outcome(self) -> str:
        """ "passed", "FAILED", or why nothing was proved."""
        if self.doubt is not None:
            return self.doubt.upper()
        return "passed" if self.passed else "FAILED"

    def __str__(self) -> str:
        measured = "" if self.figure is None else f" is {self.figure:.4f}, {self.limit:.4f} is required"
        return f"{self.kind} {self.subject}{measured}" + (f" ({self.detail})" if self.detail else "")


class Judged(_Frozen):
    """A bundle, as a verdict names it. query_bank: SHA-256 of its bank, which no fingerprint covers."""

    name: str
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    query_bank: str | None = None

    @classmethod
    def of(cls, bundle: Bundle) -> "Judged":
        bank = bundle.config.files.get(QUERY_BANK)
        return cls(name=bundle.name, fingerprint=bundle.fingerprint, query_bank=bank.sha256 if bank else None)


class Verdict(_Frozen):
    """policy_digest: SHA-256 of the policy's file."""

    kind: Literal["twinlens-verdict"] = "twinlens-verdict"
    format: Literal[1] = 1
    created: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    passed: bool
    candidate: Judged
    against: Judged | None = None
    policy: str
    policy_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    checks: tuple[Check, ...] = Field(min_length=1)
    findings: tuple[Finding, ...] = ()

    @model_validator(mode="after")
    def _says_what_its_checks_say(self) -> Self:
        if self.passed != all(check.passed for check in self.checks):
            raise ValueError("it says passed where a check failed, or failed where all passed")
        return self

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)

    def file_content(self) -> bytes:
        return (self.model_dump_json(indent=1) + "\n").encode()


def read_verdict(bundle: Bundle) -> Verdict | None:
    """The verdict in a bundle, whatever it says; None where it was never judged.

    Raises GateNotPassed where the file is no verdict, or is one of another bundle.
    """
    if VERDICT not in bundle.files:
        return None
    try:
        verdict = Verdict.model_validate_json((bundle.path / VERDICT).read_bytes())
    except (ValidationError, OSError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise GateNotPassed(f"{bundle.path / VERDICT} is no verdict: {reason}") from error
    if verdict.candidate.fingerprint != bundle.fingerprint:
        raise GateNotPassed(
            f"{bundle.path}: its verdict is for another bundle ({verdict.candidate.fingerprint[:12]}, this is "
            f"{bundle.fingerprint[:12]}): judge it, python -m training gate"
        )
    if verdict.candidate.query_bank != (bank := Judged.of(bundle).query_bank):
        judged = verdict.candidate.query_bank or "none"
        raise GateNotPassed(
            f"{bundle.path}: its verdict is for another query bank ({judged[:12]}, this is "
            f"{(bank or 'none')[:12]}): judge it, python -m training gate"
        )
    return verdict


def require_passed(bundle: Bundle) -> Verdict:
    """The verdict of a bundle that passed. Raises GateNotPassed with the reason for any other."""
    verdict = read_verdict(bundle)
    if verdict is None:
        raise GateNotPassed(f"the bundle {bundle.name} was never judged: python -m training gate")
    if not verdict.passed:
        failures = verdict.failures
        more = f"; and {len(failures) - _NAMED} more" if len(failures) > _NAMED else ""
        told = "; ".join(map(str, failures[:_NAMED])) + more
        raise GateNotPassed(f"the bundle {bundle.name} failed {len(failures)} of the gate's checks: {told}")
    return verdict
