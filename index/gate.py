"""The gate's verdict on the bundle of a release: required, or merely noted.

`training gate` wrote it into the bundle; here it is read, and believed only for the bundle it names. It does
not know how anything was judged.
"""

import hashlib
import logging
from pathlib import Path

from encoders.bundle import Bundle
from encoders.errors import GateNotPassed
from encoders.verdict import Verdict, read_verdict, require_passed
from index.errors import GalleryError, PublishRefused
from index.manifest import GateSummary

_log = logging.getLogger(__name__)


def note_verdict(bundle: Bundle) -> GateSummary | None:
    """What the bundle's verdict says; None where there is none, or none of this bundle."""
    try:
        verdict = read_verdict(bundle)
    except GateNotPassed as error:
        _log.warning("the release goes without a verdict: %s", error)
        return None
    return _summary(verdict) if verdict else None


def require_verdict(bundle: Bundle, *, policy: Path | None = None) -> None:
    """Raises PublishRefused where the bundle did not pass: by this very policy, where one is named.

    Raises GalleryError where the policy cannot be read.
    """
    try:
        verdict = require_passed(bundle)
    except GateNotPassed as error:
        raise PublishRefused(f"the gate is required: {error}; nothing is published") from error
    if policy is not None and (digest := _digest(policy)) != verdict.policy_digest:
        raise PublishRefused(
            f"the gate is required by {policy} ({digest[:12]}): the bundle {bundle.name} was judged by "
            f"{verdict.policy} ({verdict.policy_digest[:12]}); nothing is published"
        )


def _summary(verdict: Verdict) -> GateSummary:
    return GateSummary(
        passed=verdict.passed,
        created=verdict.created,
        policy=verdict.policy,
        policy_digest=verdict.policy_digest,
        against=verdict.against.fingerprint if verdict.against else None,
        checks=len(verdict.checks),
        failed=len(verdict.failures),
    )


def _digest(policy: Path) -> str:
    try:
        return hashlib.sha256(policy.read_bytes()).hexdigest()
    except OSError as error:
        raise GalleryError(f"cannot read the policy {policy}: {error.strerror}") from error
