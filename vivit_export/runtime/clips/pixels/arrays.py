"""Take frames from callers who keep them in something else than NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from vivit_export.errors import ClipError


def as_array(value: Any) -> Any:
    """Return what follows NumPy's array protocol, such as a PyTorch tensor on the CPU, as an array, without a copy.

    Anything else, Pillow images too, is returned as it is.

    Raises:
        ClipError: it cannot be converted, such as a tensor on a GPU.
    """
    if isinstance(value, (np.ndarray, Image.Image)) or not hasattr(value, "__array__"):
        return value
    try:
        return np.asarray(value)
    except Exception as e:  # each library raises its own kinds
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise ClipError(
            f"{described(value)} cannot be read as an array ({reason}); convert it to NumPy first, a tensor with "
            ".detach().cpu().numpy()"
        ) from e


def described(value: object) -> str:
    """Return the dtype and the shape of an array, or the type of anything else."""
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array of shape {value.shape}"
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
