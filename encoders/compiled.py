"""Towers compiled by OpenVINO for x86 CPUs: a batch is one call, not hundreds of operators one after the other.

The towers are traced as they lie in memory; nothing is written, nothing is downloaded. What was compiled must
agree with what it was made from, on other lengths and batch sizes than it was traced with, before it is used.
Source of the calls: OpenVINO's frontend for PyTorch.
"""

import importlib.util
import os
import platform
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from encoders.errors import EngineUnavailable
from encoders.towers import suppress_library_logs, unit_rows

Tower = Callable[[torch.Tensor], torch.Tensor]
"""A batch to features (n, dim)."""

LEAST_COSINE = {"fp32": 0.99999, "bf16": 0.98}
"""To the tower in fp32. In bf16 an EfficientNet's images have 0.998, a ViT-B/32's 0.9999: LOG 2026-11-23."""


SHAPES_KEPT = 32
"""Entries of what OpenVINO prepares for each new shape of a batch. Of its 5,000 a service still grew after
100,000 requests, by 150 MiB in all, and was no faster; with 8 a request of one text took a tenth longer."""

KERNELS_KEPT = 64
"""Entries of the cache of oneDNN itself, below OpenVINO's. Of its 1,024 a service grew by 100 kB with each new
shape, for hours (findings/openvino-onednn-cache.sh)."""

_KERNELS_SETTING = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


@dataclass(frozen=True)
class Example:
    """traced: a batch to follow through a tower; checked: one of another size and length; largest: as much as
    it will be given at once, for which memory is taken now; shape: -1 is free."""

    traced: torch.Tensor
    checked: torch.Tensor
    largest: torch.Tensor
    shape: tuple[int, ...]


_X86 = ("x86_64", "AMD64")
_TRACING = threading.Lock()  # what a trace changes is the process's


def can_compile() -> bool:
    """Whether OpenVINO is installed, on a processor it is known to be faster on than PyTorch."""
    return platform.machine() in _X86 and importlib.util.find_spec("openvino") is not None


def compile_tower(tower: Tower, model: nn.Module, example: Example, *, precision: str, threads: int) -> Tower:
    """A tower that does on the CPU what `tower`, whose weights `model` holds, does there. Not thread-safe.

    Raises EngineUnavailable when OpenVINO is missing, does not know an operator, or computes something else.
    """
    with torch.no_grad():
        expected = unit_rows(tower(example.checked))  # first: then PyTorch's own oneDNN has read its settings
    try:
        with _few_kernels_kept():
            compiled = _compiled(tower, model, example, precision=precision, threads=threads)
    except ImportError as error:
        raise EngineUnavailable(f"openvino cannot be imported: {error}; pip install openvino") from error
    except Exception as error:  # OpenVINO's errors are of many types
        raise EngineUnavailable(f"OpenVINO cannot compile this tower: {error}") from error

    def features(batch: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(compiled(batch.numpy(), share_inputs=True)[0])

    with _few_kernels_kept():
        found = unit_rows(features(example.checked))
    cosine = float((expected * found).sum(dim=1).min())
    if not cosine >= LEAST_COSINE[precision]:
        raise EngineUnavailable(
            f"OpenVINO's features have a cosine of {cosine:.6f} to PyTorch's, not {LEAST_COSINE[precision]}"
        )
    features(example.largest)
    return features


def _compiled(tower: Tower, model: nn.Module, example: Example, *, precision: str, threads: int) -> Any:
    # Through the frontend itself: openvino.convert_model does the same and reports its use to its makers.
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with _TRACING, _plain_attention(), _traces_dropped():
        with torch.no_grad(), warnings.catch_warnings(), suppress_library_logs():
            warnings.simplefilter("ignore")  # what a trace fixes is found by the check on another shape
            graph = torch.jit.trace(_Traceable(tower, model).eval(), example.traced, check_trace=False)  # type: ignore[no-untyped-call]
            frontend = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchScriptPythonDecoder(graph)  # must live until all is converted
            network = frontend.convert(frontend.load(decoder))
        del graph, decoder
    network.reshape(openvino.PartialShape(list(example.shape)))
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "CPU_RUNTIME_CACHE_CAPACITY": SHAPES_KEPT,
        "ENABLE_CPU_PINNING": False,  # else two processes are pinned to the same cores
    }
    return openvino.Core().compile_model(network, "CPU", settings)


@contextmanager
def _few_kernels_kept() -> Iterator[None]:
    """Bound what oneDNN keeps below OpenVINO: nothing else does, and it is read once, at the first kernel."""
    given = os.environ.get(_KERNELS_SETTING)
    os.environ.setdefault(_KERNELS_SETTING, str(KERNELS_KEPT))
    try:
        yield
    finally:
        if given is None:
            os.environ.pop(_KERNELS_SETTING, None)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without fused attention, an operator that only PyTorch knows."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


@contextmanager
def _traces_dropped() -> Iterator[None]:
    """PyTorch registers the class of every trace for good, and with it the weights: 27 MB for each encoder.

    No trace outlives its conversion, so all of them may go.
    """
    try:
        yield
    finally:
        if clear := getattr(torch._C, "_jit_clear_class_registry", None):
            clear()


class _Traceable(nn.Module):
    """A function as a module: a trace takes the parameters of one, and those alone, for constants."""

    def __init__(self, tower: Tower, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._tower = tower

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self._tower(batch)
