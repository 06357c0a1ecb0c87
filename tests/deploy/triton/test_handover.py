"""Arrays that go to Triton's Python back end: whole, with their memory, and without an error in the server's log."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vivit_export.deploy.triton.handover import tensor_of

name_of = ctypes.pythonapi.PyCapsule_GetName
name_of.restype, name_of.argtypes = ctypes.c_char_p, (ctypes.py_object,)
rename = ctypes.pythonapi.PyCapsule_SetName


class Tensor:
    """Takes a capsule as Triton does: with a name that nobody else uses."""

    def __init__(self, name: str, capsule: object) -> None:
        self.name, self.capsule = name, capsule
        rename(ctypes.py_object(capsule), USED_BY_TRITON)

    @classmethod
    def from_dlpack(cls, name: str, capsule: object) -> Tensor:
        return cls(name, capsule)


class Backend:
    Tensor = Tensor


USED_BY_TRITON = ctypes.c_char_p(b"used_dlpack")


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="what older NumPy has is copied")
@pytest.mark.parametrize("array", [np.arange(12.0).reshape(3, 4), np.arange(12, dtype=np.uint8)[::2]])
def test_its_maker_learns_that_the_memory_is_in_other_hands(array: npt.NDArray[Any]) -> None:
    tensor = tensor_of(Backend, "logits", array)
    assert tensor.name == "logits"
    assert name_of(tensor.capsule) == b"used_dltensor"


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="what older NumPy has is copied")
def test_the_memory_stays_and_nothing_is_reported_when_the_capsule_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    array = np.zeros(3)
    before = sys.getrefcount(array)
    tensor = tensor_of(Backend, "logits", array)
    assert sys.getrefcount(array) == before + 1
    del tensor  # with the capsule; Triton gives the memory back at its own time
    gc.collect()
    assert sys.getrefcount(array) == before + 1
    assert not reported
