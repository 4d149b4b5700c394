"""The parent of an adapted bundle, kept inside it whole, and had back from there to the byte.

    parent/bundle.json          its manifest
    parent/NAME                 each of its files that changes no embedding: query bank, calibration, golden
                                inputs, verdict, report, card
    parent/model.safetensors    the stored tensors of its weights that the adaptation replaced, if any

The tokenizer and the other tensors are shared with the adapted bundle, which never changes them. What is put
together again must have the checksums of the parent's own manifest, or it is refused.
"""

import hashlib
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save

from encoders.bundle import MANIFEST, WEIGHTS, Bundle, BundleConfig, read_files, read_manifest
from encoders.errors import BundleError
from encoders.weights import ROW_SCALE
from training.errors import AdaptationError

PARENT = "parent"
PARENT_WEIGHTS = f"{PARENT}/{WEIGHTS}"


def parent_files(parent: Bundle) -> dict[str, bytes]:
    """What an adapted bundle holds of its parent, by the name inside it; the weights are `replaced_weights`."""
    kept = read_files(parent, keep=lambda name: name not in parent.config.embedding_files)
    kept[MANIFEST] = (parent.path / MANIFEST).read_bytes()
    return {f"{PARENT}/{name}": content for name, content in kept.items()}


def replaced_weights(parent: Bundle, adapted: Bundle) -> bytes | None:
    """The stored tensors of the parent's weights that `adapted` holds otherwise; None where it has them all.

    int8 rows stay with their scales. Where the file as a whole could not be written again as it was (another
    library wrote it), it is kept whole.
    """
    before, after = parent.path / WEIGHTS, adapted.path / WEIGHTS
    if parent.config.files[WEIGHTS] == adapted.config.files[WEIGHTS]:
        return None
    old, new = load_file(before), load_file(after)
    other = {name.removesuffix(ROW_SCALE) for name, tensor in old.items() if not torch.equal(tensor, new[name])}
    kept = save({name: tensor for name, tensor in old.items() if name.removesuffix(ROW_SCALE) in other})
    again = hashlib.sha256(_with_tensors(after, kept)).hexdigest()
    return kept if again == parent.config.files[WEIGHTS].sha256 else before.read_bytes()


def restore_parent(adapted: Bundle, folder: Path) -> Bundle:
    """Write the parent of `adapted` into the new folder, every file as it was.

    Raises AdaptationError where it is not to be had back, with the name and fingerprint of the one to use.
    """
    config = _parent_config(adapted)
    kept = adapted.path / PARENT
    try:
        for name in config.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if name == WEIGHTS:
                _restore_weights(adapted, config, folder / name)
            else:
                holder = adapted.path if name in config.embedding_files else kept
                shutil.copyfile(holder / name, folder / name)
        shutil.copyfile(kept / MANIFEST, folder / MANIFEST)
        return Bundle.open(folder)
    except (BundleError, OSError, SafetensorError) as error:
        raise AdaptationError(
            f"{adapted.path} does not give its parent back whole ({error}): use the original, {config.name} "
            f"with the fingerprint {config.fingerprint}"
        ) from error


def _parent_config(adapted: Bundle) -> BundleConfig:
    """The manifest of the parent. Raises AdaptationError where there is no parent, or nothing is kept of it."""
    lineage = adapted.config.provenance.get("adapted")
    if not isinstance(lineage, dict):
        raise AdaptationError(f"{adapted.path} was not made by adapt: there is nothing to undo")
    if f"{PARENT}/{MANIFEST}" not in adapted.config.files:
        parent = lineage.get("parent", {})
        raise AdaptationError(
            f"{adapted.path} holds no {PARENT}/{MANIFEST}: query bank, calibration, golden inputs, verdict and "
            f"report of its parent cannot be had back; use the original, {parent.get('name')} with the "
            f"fingerprint {parent.get('fingerprint')}"
        )
    return read_manifest(adapted.path / PARENT)


def _restore_weights(adapted: Bundle, config: BundleConfig, path: Path) -> None:
    own, kept = adapted.path / WEIGHTS, adapted.path / PARENT_WEIGHTS
    record = adapted.config.files.get(PARENT_WEIGHTS)
    if record is None:
        shutil.copyfile(own, path)
    elif record == config.files[WEIGHTS]:
        shutil.copyfile(kept, path)
    else:
        path.write_bytes(_with_tensors(own, kept.read_bytes()))


def _with_tensors(weights: Path, kept: bytes) -> bytes:
    """A weights file's content with the tensors of `kept` in place of its own."""
    return save({**load_file(weights), **load(kept)})
