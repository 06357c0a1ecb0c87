"""Hand an array to Triton's Python back end by DLPack, without a copy, and without an error on every answer.

Whoever takes a DLPack capsule renames it to ``used_dltensor``, by which its maker knows that the memory is in other
hands. Triton (2.51, and its sources of 26.07) names it ``used_dlpack``. NumPy then prints a traceback for each array
that is handed over (from 2.1), or ends the process (before). So the capsule gets its right name here.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import NumpyVersion

# Older ones can be converted by Triton itself, but for NumPy 2.0, which is refused at installation.
_COPIES = NumpyVersion(np.__version__) < "2.1.0"

_USED = b"used_dltensor"  # a capsule keeps the pointer, so this must stay as long as the process
_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.argtypes = (ctypes.py_object, ctypes.c_char_p)


def tensor_of(backend: Any, name: str, array: npt.NDArray[Any]) -> Any:
    """Make a tensor of Triton's Python back end.

    Args:
        backend: the module ``triton_python_backend_utils``.
        name: of the tensor.
        array: of any shape, and of a type that Triton has.

    Returns:
        A ``Tensor``, which keeps the array's memory.
    """
    array = np.ascontiguousarray(array)
    if _COPIES:
        return backend.Tensor(name, array)
    capsule = array.__dlpack__()
    tensor = backend.Tensor.from_dlpack(name, capsule)
    _set_name(capsule, _USED)
    return tensor
