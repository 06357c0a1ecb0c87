"""The preprocessor gives the bits of the Python runtime's."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from cpp_project import Cpp, Request

from vivit_export.contract import Clip, Preprocess
from vivit_export.errors import VivitExportError
from vivit_export.runtime import Preprocessor

pytestmark = pytest.mark.needs_onnxruntime


POOL_BYTES = 9 << 20
EXACT = {"threads": 2, "position": 0.5, "count": 2}


def random_case(rng: np.random.Generator, i: int) -> tuple[Request, Clip, Preprocess]:
    """One way from frames of some size to a crop: all filters, both orders, padding, odd sizes."""
    # The area is limited, so that 500 cases take seconds; one side may still be large.
    height = int(np.exp(rng.uniform(np.log(16), np.log(1700))))
    width = int(np.exp(rng.uniform(np.log(16), np.log(min(1700, 400_000 / height)))))
    side = int(rng.integers(8, 200)), int(rng.integers(8, 200))
    fields = Preprocess(
        shortest_edge=int(rng.integers(8, 260)),
        resample=(2, 2, 2, 1, 3, 4, 5, 0)[i % 8],
        crop_size=side,
        resize_order=("pillow-13", "horizontal-first")[i // 8 % 2],
        mean=tuple(rng.uniform(0, 1, 3)),
        std=tuple(rng.uniform(0.1, 1, 3)),
        rescale_factor=float(rng.uniform(0.001, 0.02)),
        offset=bool(rng.integers(2)),
        do_normalize=bool(rng.integers(2)),
    )
    if i % 5 == 1:
        fields = replace(fields, shortest_edge=None, size=(int(rng.integers(8, 300)), int(rng.integers(8, 300))))
    if i % 17 == 2:
        fields = replace(fields, do_resize=False, shortest_edge=None, size=None)
    if i % 19 == 3:
        fields = replace(fields, do_rescale=False, offset=False)
    if i % 23 == 4:
        fields = replace(fields, do_center_crop=False, do_resize=True, shortest_edge=None, size=side)
    clip = Clip(2, *side, (1, 1, 1))
    request = {
        "do": "preprocess",
        "clip": asdict(clip),
        "preprocess": asdict(fields),
        "height": height,
        "width": width,
        "count": 2,
        "threads": 1 + i % 3,
        "position": (0.5, 0.5, 0.0, 1.0, float(rng.uniform()))[i % 5],
        "offset": int(rng.integers(0, POOL_BYTES - 2 * height * width * 3)),
    }
    return request, clip, fields


@pytest.mark.parametrize(("loops", "count"), [("portable", 600), ("avx2", 600)])
def test_the_preprocessor_gives_pythons_bits(cpp: Cpp, tmp_path: Path, loops: str, count: int) -> None:
    rng = np.random.default_rng(count)
    # Long runs beside noise: extremes are what the clipping of bicubic and Lanczos is for.
    pool = rng.integers(0, 256, POOL_BYTES, dtype=np.uint8)
    pool[: POOL_BYTES // 2] = np.repeat(rng.choice(np.array([0, 255], np.uint8), POOL_BYTES // 16), 8)
    pool.tofile(tmp_path / "pool")
    files = {"pool": str(tmp_path / "pool"), "crops": str(tmp_path / "crops"), "pixels": str(tmp_path / "pixels")}
    cases = [random_case(rng, i) for i in range(count)]
    answers = cpp.ask([{**request, **files} for request, _, _ in cases], loops)
    crops, pixels = np.fromfile(tmp_path / "crops", np.uint8), np.fromfile(tmp_path / "pixels", np.float32)
    at = vertical_first = 0
    for (request, clip, fields), answer in zip(cases, answers, strict=True):
        shape = (2, request["height"], request["width"], 3)
        frames = pool[request["offset"] :][: np.prod(shape)].reshape(shape)
        reference = Preprocessor(clip, fields)
        expected = reference.crops(frames, request["position"])
        size = expected.size
        assert answer == {"bytes": size}, request
        np.testing.assert_array_equal(crops[at : at + size].reshape(expected.shape), expected, err_msg=str(request))
        levels = reference.to_pixels(expected[None])
        np.testing.assert_array_equal(
            pixels[at : at + size].view(np.uint32), levels.reshape(-1).view(np.uint32), err_msg=str(request)
        )
        at += size
        vertical_first += reference.vertical_first(*reference.axes(*shape[1:3], request["position"]))
    assert at == len(crops) == len(pixels)
    assert vertical_first > count // 20


def test_frames_that_do_not_fit_are_refused_as_in_python(cpp: Cpp, tmp_path: Path) -> None:
    (tmp_path / "pool").write_bytes(bytes(100_000))
    clip = Clip(2, 32, 32, (1, 1, 1))
    fields = Preprocess(shortest_edge=32, do_center_crop=False)
    base = {
        "do": "preprocess",
        "clip": asdict(clip),
        "preprocess": asdict(fields),
        "offset": 0,
        "threads": 1,
        "position": 0.5,
        "pool": str(tmp_path / "pool"),
        "crops": str(tmp_path / "c"),
        "pixels": str(tmp_path / "p"),
    }
    sizes = [(2, 20, 30), (3, 20, 20)]
    answers = cpp.ask([{**base, "count": n, "height": h, "width": w} for n, h, w in sizes])
    for (n, h, w), answer in zip(sizes, answers, strict=True):
        with pytest.raises(VivitExportError) as e:
            Preprocessor(clip, fields).crops(np.zeros((n, h, w, 3), np.uint8))
        assert answer == {"error": str(e.value), "code": 3}
