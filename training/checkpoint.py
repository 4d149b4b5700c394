"""What a run needs to go on after it was killed: one file, replaced whole, so that one that reads is complete.

safetensors holds the tensors; the progress lies in its header as JSON. It does not know what the tensors mean.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from training.errors import CheckpointError


class Progress(BaseModel):
    """Where a run stands: the next step of the epoch of the phase, and what early stopping remembers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe_digest: str
    phase: int = 0
    epoch: int = 0
    step: int = 0
    """Steps of this epoch that are done."""
    total_steps: int = 0
    """Steps of the whole run that are done."""
    average_updates: int = 0
    best_score: float | None = None
    validations_without_gain: int = 0
    finished: bool = False


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], *, progress: Progress) -> None:
    """Replace `path` whole and durably."""
    temporary = path.with_suffix(".tmp")
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(own, temporary, metadata={"progress": progress.model_dump_json()})
    descriptor = os.open(temporary, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    temporary.replace(path)


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], Progress]:
    """The tensors and the progress. Raises CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            progress = Progress.model_validate_json((file.metadata() or {}).get("progress", ""))
            return {name: file.get_tensor(name) for name in file.keys()}, progress  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValidationError) as error:
        raise CheckpointError(f"{path} cannot be resumed from: {error}; delete it to begin anew") from error


def optimiser_tensors(adam: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's state, flat: "adam.<index>.<field>"."""
    state = adam.state_dict()["state"]
    return {
        f"adam.{index}.{field}": torch.as_tensor(value)
        for index, fields in state.items()
        for field, value in fields.items()
    }


def load_optimiser(adam: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """The inverse of `optimiser_tensors`, for an optimiser over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("adam."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = tensor.clone()
    adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})


def cut_log(path: Path, total_steps: int) -> None:
    """Drop the lines of a metrics JSONL that a resumed run will write again, and a half-written last one."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf8").splitlines():
        try:
            if json.loads(line)["step"] <= total_steps:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf8")
    temporary.replace(path)
