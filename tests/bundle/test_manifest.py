"""``bundle.json``: the same content gives the same bytes, and what is incomplete or no manifest is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_bundle import CONTENT, FILES, mode_tree, rewrite

from vivit_export.bundle import read_bundle, write_manifest, writing
from vivit_export.errors import BundleError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m.update(format="vivit-bundle/3"),
            "has format 'vivit-bundle/3'; this version reads 'vivit-bundle/2' and 'vivit-bundle/1'",
        ),
        (lambda m: m.pop("format"), "has format None"),
        *((lambda m, s=s: m.pop(s), f"lacks '{s}'") for s in ("model", "contract", "precision", "engines", "checks")),
        (lambda m: m.pop("files"), "lacks 'files'"),
        (lambda m: m.update(engines=[]), r"engines must be a JSON object, got \[\]"),
        (lambda m: m["model"].pop("parameters"), "model lacks the field 'parameters'"),
        (lambda m: m["precision"].pop("opset"), "precision lacks the field 'opset'"),
        (lambda m: m["files"].pop("model.onnx"), r"does not list model\.onnx"),
        (lambda m: m["files"].pop("engines/rtx.plan"), r"does not list engines/rtx\.plan"),
        (lambda m: m["engines"].update({"../../x": m["engines"]["rtx"]}), r"does not list engines/\.\./\.\./x\.plan"),
        (lambda m: m["files"].update({"model.onnx": None}), r"files\.model\.onnx must be a JSON object, got NoneType"),
        (lambda m: m["files"]["model.onnx"].pop("sha256"), r"files\.model\.onnx lacks the field 'sha256'"),
        (lambda m: m["files"]["model.onnx"].update(size="5"), "size must be int, got '5'"),
        (lambda m: m["files"]["model.onnx"].update(size=-1), "altered or cut short"),
        (lambda m: m["contract"]["clip"].pop("width"), r"bundle\.json: contract\.clip lacks the field 'width'"),
        (lambda m: m["contract"]["io"].update(outputs=[]), "a model has logits, an embedding or both, got no output"),
        (lambda m: m["contract"]["clip"].update(width=63), "width=63 is not a positive multiple"),
    ],
)
def test_a_manifest_that_is_incomplete_is_refused(
    home: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite(home / "old", change)
    with pytest.raises(BundleError, match=message):
        read_bundle(home / "old")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}'], ids=lambda c: str(c[:8])
)
def test_a_manifest_that_is_no_object_is_refused(home: Path, content: bytes) -> None:
    (home / "old/bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"bundle\.json (cannot be read as JSON|has format)"):
        read_bundle(home / "old")


def test_a_huge_manifest_is_not_loaded(home: Path) -> None:
    with (home / "old/bundle.json").open("ab") as f:
        f.truncate((16 << 20) + 1)
    with pytest.raises(BundleError, match="larger than 16 MiB"):
        read_bundle(home / "old")


def test_the_same_content_gives_the_same_bytes(home: Path) -> None:
    with writing(home / "again", force=False) as work:
        for name in reversed(FILES):
            (work / name).parent.mkdir(exist_ok=True)
            (work / name).write_bytes(FILES[name])
        write_manifest(work, CONTENT)
    assert mode_tree(home / "again") == mode_tree(home / "old")
