"""PyTorch's fused Adam on a CPU, for weights in any memory layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class FusedAdam(torch.optim.Adam):
    """`torch.optim.Adam(fused=True)`, handed every tensor as it lies in memory; states keep the weights' shapes.

    PyTorch 2.14's own copies each gradient of a channels_last weight on a CPU and doesn't use the copy, and takes
    gradients for laid out as their weights without looking (D40). States must be laid out so.
    """

    def _init_group(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], *others: Any) -> Any:
        has_complex = super()._init_group(group, params, grads, *others)
        for index, weight in enumerate(params):
            if not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last):
                for tensors in (params, grads, *others):
                    if index < len(tensors) and tensors[index].shape == weight.shape:
                        tensors[index] = tensors[index].permute(0, 2, 3, 1)
            grads[index] = grads[index].contiguous()
        return has_complex
