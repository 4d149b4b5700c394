"""What a run needs to go on after it was killed: one file, replaced whole, so that one that reads is complete.

safetensors holds the tensors; the progress lies in its header as JSON.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from encoders.folders import sync
from training.errors import CheckpointError
from training.fit.processes import Processes


@contextmanager
def alone_in(folder: Path, processes: Processes) -> Iterator[None]:
    """Hold a run's folder (the first process does). Raises CheckpointError while another run holds it."""
    if not processes.first:
        yield
        return
    with (folder / "run.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(
                f"another run is at work in {folder}: wait, or name another --folder"
            ) from error
        yield


class Progress(BaseModel):
    """Where a run stands: the next step of the epoch of the phase, and what early stopping remembers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    """Of the recipe, the data and the start: a run of others is not this one."""
    phase: int = 0
    epoch: int = 0
    step: int = 0
    """Steps of this epoch that are done."""
    total_steps: int = 0
    """Steps of the whole run that are done."""
    average_updates: int = 0
    best_score: float | None = None
    """Of the validation sets: the start's, until an average of the run is better."""
    best_trained_score: float | None = None
    validations_without_gain: int = 0
    finished: bool = False


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], *, progress: Progress) -> None:
    """Replace `path` whole and durably."""
    temporary = path.with_suffix(".tmp")
    # Copies: on the CPU, tied weights would share memory, which safetensors refuses.
    own = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    save_file(own, temporary, metadata={"progress": progress.model_dump_json()})
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


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


def cut_log(path: Path, total_steps: int, *, validated: bool) -> None:
    """Drop the lines of a metrics JSONL that a resumed run will write again, and a half-written last one.

    validated: whether the validation after step `total_steps` is behind the checkpoint, or will come again.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf8").splitlines():
        try:
            entry = json.loads(line)
            if "moment" in entry:  # before and after the whole run: a run that ends says both
                continue
            last = total_steps if validated or "set" not in entry else total_steps - 1
            if entry["step"] <= last:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf8")
    temporary.replace(path)
