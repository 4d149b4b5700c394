"""An adapted candidate to a bundle, and an adapted bundle back to the one that it was made from.

What it was adapted by lies in its provenance, and the weights that changed lie beside it as they were, so that
the parent can be had back to the byte (`undo`):

    parent.safetensors     the tensors of the parent's weights that the adaptation replaced, as they were stored

Files that speak of the parent (report, verdict, card) do not come along, nor its calibration and golden vectors
where embeddings changed. It does NOT know methods.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save

from encoders.adaptation import ADAPTATION, adaptation_bytes
from encoders.bundle import WEIGHTS, Bundle, BundleConfig, check_replaceable, read_files, write_bundle
from encoders.folders import replace_folder
from encoders.golden import GOLDEN_RECORD, GOLDEN_TENSORS, add_golden
from encoders.query_bank import QUERY_BANK, QueryBank, query_bank_bytes
from encoders.weights import ROW_SCALE, load_weights
from training.adapt.methods import Candidate
from training.card import CARD, bundle_card
from training.errors import AdaptationError

PARENT_WEIGHTS = "parent.safetensors"
SAME_EMBEDDINGS = frozenset({"calibration.json", GOLDEN_RECORD, GOLDEN_TENSORS})
"""What holds for any bundle of the same fingerprint."""


def check_out(out: Path, parent: Bundle) -> None:
    """Raises AdaptationError where `out` is the parent's folder, UnsupportedBundle where it is no bundle's."""
    if out.resolve() == parent.path.resolve():
        raise AdaptationError(f"--out {out} is the bundle itself, which is kept as it is: name another folder")
    check_replaceable(out)


def write_adapted(out: Path, parent: Bundle, candidate: Candidate, *, provenance: dict[str, Any]) -> Bundle:
    """Write the candidate as a bundle of its own: `out` holds all of it or what it held before."""
    check_out(out, parent)
    files = read_files(parent, keep=lambda name: name in parent.config.embedding_files)
    if candidate.adaptation:
        files[ADAPTATION] = adaptation_bytes(candidate.adaptation)
    config = _child(parent, provenance).model_copy(
        update={"adaptation": "affine" if candidate.adaptation else None}
    )
    files[CARD] = bundle_card(config).encode()
    state = {**load_weights(parent.path / WEIGHTS), **_changed(candidate)}
    with _beside(out) as staging:
        bundle = write_bundle(staging, config=config, state=state, files=files)
        if replaced := _replaced(parent.path / WEIGHTS, bundle.path / WEIGHTS):
            bundle = bundle.with_file(PARENT_WEIGHTS, save(replaced))
        bundle = _proven(bundle, parent, state)
        if candidate.bank is not None:
            bundle = _with_bank(bundle, candidate.bank)
    return replace(bundle, path=out)


def undo(adapted: Bundle, out: Path) -> Bundle:
    """Write the bundle that `adapted` was made from; AdaptationError where it cannot be had back whole."""
    check_out(out, adapted)
    lineage = adapted.config.provenance.get("adapted")
    if not isinstance(lineage, dict) or "parent" not in lineage:
        raise AdaptationError(f"{adapted.path} was not made by adapt: there is nothing to undo")
    parent = lineage["parent"]
    state = load_weights(adapted.path / WEIGHTS)
    if (kept := adapted.path / PARENT_WEIGHTS).is_file():
        state |= load_weights(kept)
    config = adapted.config.model_copy(
        update={"name": parent["name"], "adaptation": None, "provenance": parent["provenance"]}
    )
    wanted = config.embedding_files
    files = read_files(adapted, keep=lambda name: name in wanted)
    with _beside(out) as staging:
        bundle = write_bundle(staging, config=config, state=state, files=files)
        if bundle.fingerprint != parent["fingerprint"]:
            raise AdaptationError(
                f"what comes out has fingerprint {bundle.fingerprint}, and the bundle before adaptation had "
                f"{parent['fingerprint']}: its weights cannot be stored again as they were; use the original"
            )
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
    before = {"fingerprint": parent.fingerprint, "name": parent.name, "provenance": past}
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


def _replaced(before: Path, after: Path) -> dict[str, torch.Tensor]:
    """The stored tensors of `before` that `after` holds otherwise; int8 rows and their scales stay together."""
    old, new = load_file(before), load_file(after)
    other = {name.removesuffix(ROW_SCALE) for name, tensor in old.items() if not torch.equal(tensor, new[name])}
    return {name: tensor for name, tensor in old.items() if name.removesuffix(ROW_SCALE) in other}


def _with_bank(bundle: Bundle, bank: QueryBank) -> Bundle:
    own = QueryBank(rows=bank.rows, fingerprint=bundle.fingerprint, alpha=bank.alpha, k=bank.k)
    return bundle.with_file(QUERY_BANK, query_bank_bytes(own))
