"""What an encoder computes on, with and in: device, engine and precision, by name."""

from typing import Literal, cast, get_args

import torch

from encoders.errors import DeviceUnavailable, EngineUnavailable

Precision = Literal["fp32", "bf16"]
Engine = Literal["auto", "torch", "openvino"]


def choose_device(name: str) -> torch.device:
    """A device by name; "auto" takes CUDA where there is one. Raises DeviceUnavailable."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(f"{name!r} names no device: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailable(f"{name} was asked for, {torch.cuda.device_count()} CUDA devices are here")
    return device


def check_precision(name: str) -> Precision:
    """Raises DeviceUnavailable for a precision that is not offered."""
    if name not in get_args(Precision):
        raise DeviceUnavailable(f"precision {name!r} is not offered: use fp32 or bf16")
    return cast("Precision", name)


def check_engine(name: str) -> Engine:
    """Raises EngineUnavailable for an engine that is not offered."""
    if name not in get_args(Engine):
        raise EngineUnavailable(f"engine {name!r} is not offered: use auto, torch or openvino")
    return cast("Engine", name)
