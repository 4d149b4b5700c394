"""The weights that a bundle's were rounded from when it was stored: the reference of its golden vectors."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from encoders.bundle import WEIGHTS, Bundle
from encoders.encoder import Encoder, load_towers
from encoders.errors import ReferenceMismatch
from encoders.weights import load_weights, save_weights


def read_reference(path: Path, *, of: Bundle) -> dict[str, torch.Tensor]:
    """The towers' state from a bundle's folder or a .safetensors file, for the bundle `of`.

    Training keeps the towers under "model." beside what else it needs: then those alone are meant. Raises
    BundleError, ReferenceMismatch where the file holds the bundle's weights as they were rounded.
    """
    state = load_weights(Bundle.open(path).path / WEIGHTS if path.is_dir() else path)
    towers = {
        name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")
    }
    found = towers or state
    ours = load_weights(of.path / WEIGHTS)
    if of.config.weights != "fp32" and all(_equal(ours[name], found.get(name)) for name in ours):
        raise ReferenceMismatch(
            f"{path} holds weights that were already rounded to {of.config.weights}: name those before "
            "rounding, or none"
        )
    return found


def reference_encoder(bundle: Bundle, state: Mapping[str, torch.Tensor]) -> Encoder:
    """The bundle's encoder with the weights that its own were stored from, on the CPU.

    Raises ReferenceMismatch where they are not.
    """
    _check_reference(bundle, state)
    model = load_towers(bundle)
    model.load_state_dict({name: tensor.detach().cpu() for name, tensor in state.items()}, strict=True)
    return Encoder(bundle, model, device=torch.device("cpu"), precision="fp32", max_batch=32)


def _check_reference(bundle: Bundle, state: Mapping[str, torch.Tensor]) -> None:
    """Storing the reference as the bundle does must give its weights, to the bit."""
    with tempfile.TemporaryDirectory(prefix="twinlens-golden-") as folder:
        rounded = Path(folder) / WEIGHTS
        save_weights(dict(state), rounded, encoding=bundle.config.weights)
        ours, theirs = load_weights(bundle.path / WEIGHTS), load_weights(rounded)
    wrong = sorted(name for name in ours.keys() | theirs.keys() if not _equal(ours.get(name), theirs.get(name)))
    if wrong:
        raise ReferenceMismatch(
            f"{bundle.path}: the reference stored as {bundle.config.weights} is not this bundle's weights: "
            f"{len(wrong)} of {len(ours)} tensors differ, {wrong[0]} first; name the weights it was made from"
        )


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other.detach().cpu())
