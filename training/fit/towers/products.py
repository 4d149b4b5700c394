"""bf16 on a CPU: the matrix products alone, the rest in fp32, and only while training.

Autocast runs every convolution in bf16, whose backward pass is slower than fp32's for all but 1×1 kernels
(PyTorch 2.14 with oneDNN, AVX-512). A 1×1 convolution is a matrix product, and as one it is twice as fast in
bf16, both ways. In eval mode the modules are what they were, so validation judges what will be shipped. It does
not know which parts of a tower learn.
"""

from typing import cast

import torch
from torch import nn
from torch.nn import functional as F


class _Linear(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return _product(input, self.weight, self.bias) if self.training else super().forward(input)


class _Pointwise(nn.Conv2d):
    """(n, c, h, w), best with channels last: then the rows of the product need no copy."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        rows = input.permute(0, 2, 3, 1)
        return _product(rows, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def lower_products(module: nn.Module) -> None:
    """Put such layers in the place of the plain ones below `module`; parameters stay the same objects."""
    for name, child in module.named_children():
        replacement = _lowered(child)
        if replacement is None:
            lower_products(child)
        else:
            setattr(module, name, replacement.train(child.training))


def _lowered(layer: nn.Module) -> nn.Module | None:
    """None for all but a plain linear layer and a plain 1×1 convolution."""
    new: nn.Linear | nn.Conv2d
    if type(layer) is nn.Linear:
        new = _Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    elif type(layer) is nn.Conv2d and _is_product(layer):
        new = _Pointwise(layer.in_channels, layer.out_channels, 1, bias=layer.bias is not None, device="meta")
    else:
        return None
    new.weight, new.bias = cast("nn.Linear", layer).weight, cast("nn.Linear", layer).bias
    return new


def _is_product(layer: nn.Conv2d) -> bool:
    return (
        layer.kernel_size == (1, 1)
        and layer.stride == (1, 1)
        and layer.groups == 1
        and layer.padding in (0, (0, 0))
    )


def _product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product = F.linear(rows.bfloat16(), weight.bfloat16()).float()
    return product if bias is None else product + bias
