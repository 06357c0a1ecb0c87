"""Golden clips with hostile headers, or of another model: refused before anything is computed, copied or deployed."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacked import edit, make, within_limits
from safetensors.numpy import load_file, save_file

from vivit_export.bundle import read_bundle
from vivit_export.deploy.triton.deploy import deploy_triton
from vivit_export.errors import BundleError
from vivit_export.export.recheck import check
from vivit_export.runtime.drift.check import golden_clips

Arrays = dict[str, Any]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "bundle")


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def told(dtype: str = "F32", shape: object = (1, 5), offsets: object = (0, 20)) -> dict[str, Any]:
    return {"logits": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


DEEP = b"[" * 100_000 + b"]" * 100_000
HEADERS: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "a header of 2^63 bytes": struct.pack("<Q", 2**63),
    "a header longer than the file": raw({}, length=1000),
    "a header of no bytes": raw(b""),
    "a header that is a list": raw([]),
    "a header that is not JSON": raw(b"{nonsense"),
    "a header that is not text": raw(b"\xff\xfe{}"),
    "a header 100,000 levels deep": raw(DEEP),
    "a million tensors": raw({str(i): told()["logits"] for i in range(10_000)}),
    "a tensor that is a number": raw({"logits": 5}),
    "a tensor without a shape": raw({"logits": {"dtype": "F32", "data_offsets": [0, 0]}}),
    "an unknown type": raw(told("F99"), bytes(20)),
    "float64": raw(told("F64", offsets=(0, 40)), bytes(40)),
    "a shape of 2^62": raw(told(shape=[2**62, 2**62]), bytes(20)),
    "a shape that is NaN": raw(told(shape=[float("nan")]), bytes(20)),
    "a negative shape": raw(told(shape=[-1, -5]), bytes(20)),
    "offsets beyond the end": raw(told(offsets=(0, 2**40)), bytes(20)),
    "negative offsets": raw(told(offsets=(-20, 0)), bytes(20)),
    "offsets in reverse": raw(told(offsets=(20, 0)), bytes(20)),
    "overlapping offsets": raw({**told(), "frames": told("U8", (20,))["logits"]}, bytes(20)),
    "a gap": raw(told(offsets=(4, 24)), bytes(24)),
    "data that no tensor claims": raw(told(), bytes(24)),
    "the same tensor twice": raw(b'{"logits": {}, "logits": {}}'),
}


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS)
def test_a_hostile_header_is_refused(bundle: Path, data: bytes) -> None:
    (bundle / "golden.safetensors").write_bytes(data)
    edit(bundle, lambda manifest: None)
    found = read_bundle(bundle)
    with (
        within_limits(),
        pytest.raises(BundleError, match="is not a safetensors file of this kind"),
    ):
        golden_clips(found)


def replaced(name: str, change: Callable[[Any], Any]) -> Callable[[Arrays], None]:
    def attack(arrays: Arrays) -> None:
        arrays[name] = np.ascontiguousarray(change(arrays[name]))

    return attack


def spoiled(value: float) -> Callable[[Arrays], None]:
    def attack(arrays: Arrays) -> None:
        arrays["logits"][0, 0] = value

    return attack


ARRAYS: dict[str, Callable[[Arrays], object]] = {
    "NaN": spoiled(np.nan),
    "infinity": spoiled(-np.inf),
    "frames of another shape": replaced("frames", lambda x: x[:, :, :-1]),
    "frames of another rank": replaced("frames", lambda x: x[0]),
    "frames of another type": replaced("frames", lambda x: x.astype(np.float32)),
    "frames that are a number": replaced("frames", lambda x: np.uint8(1).reshape(())),
    "no clip": replaced("frames", lambda x: x[:0]),
    "logits of another width": replaced("logits", lambda x: x[:, :-1]),
    "logits of other clips": replaced("logits", lambda x: np.concatenate([x, x])),
    "logits as codes": replaced("logits", lambda x: x.astype(np.uint8)),
    "no logits": lambda arrays: arrays.pop("logits"),
    "no frames": lambda arrays: arrays.pop("frames"),
}


@pytest.mark.parametrize("change", ARRAYS.values(), ids=ARRAYS)
def test_clips_of_another_model_are_refused_by_every_reader(
    bundle: Path, tmp_path: Path, change: Callable[[Arrays], object]
) -> None:
    arrays = load_file(bundle / "golden.safetensors")
    change(arrays)
    save_file(arrays, bundle / "golden.safetensors")
    edit(bundle, lambda manifest: None)
    before = sorted(tmp_path.rglob("*"))
    for read in (lambda: check(bundle, device="cpu"), lambda: deploy_triton(bundle, tmp_path / "out")):
        with pytest.raises(BundleError, match=r"golden\.safetensors (has|lacks)"):
            read()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_whole_is_read(bundle: Path) -> None:
    frames, results = golden_clips(read_bundle(bundle))
    assert len(frames) == len(results["logits"]) == len(results["embedding"]) > 0
