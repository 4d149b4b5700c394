"""An adapted candidate to a bundle, and an adapted bundle back to the one that it was made from.

What it was adapted by lies in its provenance, and its parent lies inside it, so that `undo` gives that back to
the byte (`parent`). Its report, verdict and card are not its parent's, nor are its calibration and golden
vectors where embeddings changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from encoders.adaptation import ADAPTATION, adaptation_bytes
from encoders.bundle import WEIGHTS, Bundle, BundleConfig, check_replaceable, read_files, write_bundle
from encoders.folders import replace_folder
from encoders.golden import GOLDEN_RECORD, GOLDEN_TENSORS, add_golden
from encoders.query_bank import QUERY_BANK, QueryBank, query_bank_bytes
from encoders.weights import load_weights
from training.adapt.methods import Candidate, changes_towers
from training.adapt.parent import PARENT_WEIGHTS, parent_files, replaced_weights, restore_parent
from training.card import CARD, bundle_card
from training.errors import AdaptationError
from training.seen.record import Seen, seen_file

SAME_EMBEDDINGS = frozenset({"calibration.json", GOLDEN_RECORD, GOLDEN_TENSORS})
"""What holds for any bundle of the same fingerprint."""


def check_out(out: Path, parent: Bundle) -> None:
    """Raises AdaptationError where `out` is the parent's folder, UnsupportedBundle where it is no bundle's."""
    if out.resolve() == parent.path.resolve():
        raise AdaptationError(f"--out {out} is the bundle itself, which is kept as it is: name another folder")
    check_replaceable(out)


def write_adapted(
    out: Path, parent: Bundle, candidate: Candidate, *, provenance: dict[str, Any], seen: Seen
) -> Bundle:
    """Write the candidate as a bundle of its own: `out` holds all of it or what it held before.

    seen: by it and its parent.
    """
    check_out(out, parent)
    files = read_files(parent, keep=lambda name: name in parent.config.embedding_files)
    if candidate.adaptation:
        files[ADAPTATION] = adaptation_bytes(candidate.adaptation)
    config = _child(parent, provenance).model_copy(
        update={"adaptation": "affine" if candidate.adaptation else None}
    )
    files |= {CARD: bundle_card(config).encode(), **seen_file(seen), **parent_files(parent)}
    state = {**load_weights(parent.path / WEIGHTS), **_changed(candidate)}
    weights = state if changes_towers(candidate.methods) else parent.path / WEIGHTS
    with _beside(out) as staging:
        bundle = write_bundle(staging, config=config, state=weights, files=files)
        if (replaced := replaced_weights(parent, bundle)) is not None:
            bundle = bundle.with_file(PARENT_WEIGHTS, replaced)
        bundle = _proven(bundle, parent, state)
        if candidate.bank is not None:
            bundle = _with_bank(bundle, candidate.bank)
    return replace(bundle, path=out)


def undo(adapted: Bundle, out: Path) -> Bundle:
    """Write the bundle that `adapted` was made from, every file to the byte.

    Raises AdaptationError where it cannot be had back whole; `out` is as it was then.
    """
    check_out(out, adapted)
    with _beside(out) as staging:
        staging.mkdir()
        bundle = restore_parent(adapted, staging)
    return replace(bundle, path=out)


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Where to write what takes the place of `out` once the block ends well, and is gone otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        staging = Path(folder) / out.name
        yield staging
        replace_folder(staging, out)


def _proven(bundle: Bundle, parent: Bundle, state: dict[str, torch.Tensor]) -> Bundle:
    """Golden vectors inside: the parent's own where its embeddings are the same, else new ones."""
    if bundle.fingerprint != parent.fingerprint:
        return add_golden(bundle, reference=None if bundle.config.weights == "fp32" else state)
    for name, content in read_files(parent, keep=lambda name: name in SAME_EMBEDDINGS).items():
        bundle = bundle.with_file(name, content)
    return bundle


def _child(parent: Bundle, provenance: dict[str, Any]) -> BundleConfig:
    past = parent.config.provenance
    known = {key: past[key] for key in ("data", "recipe") if key in past}  # its card tells terms from them
    before = {"fingerprint": parent.fingerprint, "name": parent.name}
    return parent.config.model_copy(
        update={
            "name": f"{parent.name[:92]}-adapted",
            "provenance": {**known, "adapted": {**provenance, "parent": before}},
            "fingerprint": "",
            "files": {},
        }
    )


def _changed(candidate: Candidate) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in candidate.towers.model.state_dict().items()}


def _with_bank(bundle: Bundle, bank: QueryBank) -> Bundle:
    own = QueryBank(rows=bank.rows, fingerprint=bundle.fingerprint, alpha=bank.alpha, k=bank.k)
    return bundle.with_file(QUERY_BANK, query_bank_bytes(own))
