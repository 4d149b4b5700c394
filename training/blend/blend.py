"""Bundles averaged in the space of their weights: interpolation of two (WiSE-FT) and soups of several.

Fine-tuned weights averaged with those they began from keep what the fine-tuning gained and lose less elsewhere
(Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" and "Model soups"). Only bundles that share
towers, preprocessing and tokenizer can be averaged. It measures nothing: see `measured`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from encoders.bundle import WEIGHTS, Bundle, read_files, write_bundle
from encoders.golden import add_golden
from encoders.weights import load_weights
from training.augmentation.presets import held_out_of
from training.card import CARD, bundle_card
from training.errors import BlendError
from training.seen.record import inherited, seen_file

State = dict[str, torch.Tensor]


def blend(bundles: Sequence[Bundle], shares: Sequence[float], out: Path, *, method: str) -> Bundle:
    """Write the average at `out` with golden vectors of its own: see `write_mean`."""
    written, state = write_mean(bundles, shares, out, method=method)
    return add_golden(written, reference=state)


def write_mean(
    bundles: Sequence[Bundle], shares: Sequence[float], out: Path, *, method: str
) -> tuple[Bundle, State]:
    """Write the average at `out`, stored as the first bundle is; shares are ≥ 0 and sum to 1.

    Its logit scale is the geometric mean: the scale is learned as a logarithm. What tells of the parents'
    embeddings (reports, calibration, golden vectors, verdicts) stays with them. The float32 state comes back
    beside the bundle. Raises BlendError.
    """
    check_shares(shares, count=len(bundles))
    check_alike(bundles)
    first = bundles[0].config
    logs = [math.log(bundle.config.logit_scale) for bundle in bundles]
    config = first.model_copy(
        update={
            "name": out.name,
            "created": datetime.now(UTC).replace(microsecond=0),
            "logit_scale": math.exp(sum(share * log for share, log in zip(shares, logs, strict=True))),
            "provenance": _provenance(bundles, shares, method),
            "fingerprint": "",
            "files": {},
        }
    )
    _check_name(config.name)
    files = read_files(bundles[0], keep=lambda name: name in first.embedding_files)
    state = blended_state([bundle.path / WEIGHTS for bundle in bundles], shares)
    files |= {CARD: bundle_card(config).encode(), **seen_file(inherited(bundles))}
    written = write_bundle(out, config=config, state=state, files=files)
    return written, state


def blended_state(paths: Sequence[Path], shares: Sequence[float]) -> State:
    """The weighted mean of weights files in float32, whatever they are stored as; counters are the first's."""
    mean: State = {}
    for path, share in zip(paths, shares, strict=True):
        state = load_weights(path)
        _check_tensors(state, mean, path)
        for name, tensor in state.items():
            if not tensor.is_floating_point():
                mean.setdefault(name, tensor)
            elif name in mean:
                mean[name].add_(tensor, alpha=share)
            else:
                mean[name] = tensor * share
    return mean


def check_alike(bundles: Sequence[Bundle]) -> None:
    """Raises BlendError, which names the first difference of what must be equal."""
    first = bundles[0]
    expected = _structure(first)
    for other in bundles[1:]:
        for name, value in _structure(other).items():
            if value != expected.get(name):
                raise BlendError(
                    f"{first.path} and {other.path} differ in {name} ({expected.get(name)!r} and {value!r}): "
                    "only bundles of the same towers, preprocessing and tokenizer can be averaged"
                )


def check_shares(shares: Sequence[float], *, count: int) -> None:
    if len(shares) != count or min(shares, default=-1.0) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise BlendError(f"the shares {list(shares)} of {count} bundles must be at least 0 and sum to 1")


def _check_name(name: str) -> None:
    """The folder's name becomes the bundle's."""
    if not re.fullmatch(r"\w[\w.+-]{0,99}", name):
        raise BlendError(f"{name!r} is no name for a bundle: letters, digits, '.', '_', '+', '-'")


def _structure(bundle: Bundle) -> dict[str, Any]:
    """What two bundles must share, by the name that an error tells it under."""
    config = bundle.config
    towers = config.towers.model_dump(mode="json", exclude={"init_logit_scale", "init_logit_bias"})
    towers["a logit bias"] = config.towers.init_logit_bias is not None
    parts: dict[str, Mapping[str, Any]] = {
        "towers": towers,
        "preprocessing": config.preprocessing.model_dump(mode="json"),
        "tokenizer": config.tokenizer.model_dump(mode="json"),
    }
    named = {f"{part}.{field}": value for part, fields in parts.items() for field, value in fields.items()}
    others = [name for name in config.embedding_files if name != WEIGHTS]
    files = {f"the file {name}": config.files[name].sha256[:12] for name in others}
    return named | {"the files that change an embedding": others} | files


def _check_tensors(state: State, mean: State, path: Path) -> None:
    if not mean:
        return
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted(shapes.keys() | mean.keys()):
        known = tuple(mean[name].shape) if name in mean else None
        if shapes.get(name) != known:
            raise BlendError(f"{path}: {name} has the shape {shapes.get(name)}, in the bundles before {known}")


def _provenance(bundles: Sequence[Bundle], shares: Sequence[float], method: str) -> dict[str, Any]:
    """Where it comes from; the terms of every parent's data go on, however small its share."""
    parents = [
        {"name": bundle.name, "fingerprint": bundle.fingerprint, "share": round(share, 6)}
        for bundle, share in zip(bundles, shares, strict=True)
    ]
    data = {
        (record.get("sha256"), record.get("name")): record
        for bundle in bundles
        for record in bundle.config.provenance.get("data", [])
    }
    kept_out = [held_out_of(bundle.config.provenance) for bundle in bundles]
    return {
        "method": method,
        "parents": parents,
        "data": list(data.values()),
        "recipe": {
            "held_out_corruptions": [kind for kind in kept_out[0] if all(kind in one for one in kept_out)]
        },
    }
