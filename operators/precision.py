"""In which arithmetic a model computes: what ``engine.precision`` means on a device."""

from __future__ import annotations

import torch

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of a value of ``engine.precision``.

    ``auto`` is exact on a CPU; on a GPU it is bfloat16, or float16 where the GPU only emulates it.
    """
    if precision != "auto":
        return _DTYPES[precision]
    if device.type != "cuda":
        return torch.float32
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float16


def name_of(dtype: torch.dtype) -> str:
    """The dtype as ``engine.precision`` and records name it."""
    return next(name for name, known in _DTYPES.items() if known == dtype)
