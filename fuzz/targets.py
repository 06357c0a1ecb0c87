"""What is fuzzed in Python: each reader of something that others hand us, as a function of bytes.

A target returns, or raises one of our errors, whatever the bytes. Anything else is a find: another exception, more than
a second, or something that is accepted, written back, and then read as something else.
"""

from __future__ import annotations

import atexit
import dataclasses
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import safetensors
from differential import Readers

from vivit_export.bundle import MANIFEST, MODEL, Bundle
from vivit_export.bundle.graph import require_sound_graph
from vivit_export.bundle.manifest import FileRecord
from vivit_export.bundle.names import FORMAT
from vivit_export.bundle.reading import read_manifest
from vivit_export.bundle.tensors import read_headers
from vivit_export.contract import Contract, Preprocess
from vivit_export.errors import InputError, VivitExportError
from vivit_export.export.checkpoint.config import overridden_note, read_config
from vivit_export.export.checkpoint.files import weight_files
from vivit_export.export.engine.drawing import plan_to_onnx
from vivit_export.export.engine.layers import Layer, layers_from_inspector, layers_from_log
from vivit_export.export.engine.plan import sum_up
from vivit_export.export.engine.table import plan_text, read_plan
from vivit_export.families import find_family
from vivit_export.families.scenic.flax_file import FlaxFile
from vivit_export.families.scenic.network import parameters_of, recognize
from vivit_export.files import json_text
from vivit_export.records import from_json, parse_json, to_json
from vivit_export.report.html import render_html
from vivit_export.report.text import contents_text, summary_json, summary_text
from vivit_export.runtime.clips.pixels.processor_config import doubt_about, read_clip_geometry, read_preprocess
from vivit_export.runtime.clips.video.nal import holds_idr, is_referred_to, length_bytes_of
from vivit_export.runtime.labels import read_labels

SECONDS = 1.0
"""Processor time that one input may take."""
SEEDS = Path(__file__).parent / "seeds"
_deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
_MEMORY = Path("/dev/shm")


class FindError(Exception):
    """A target broke its promise."""


def check(name: str, data: bytes) -> bool:
    """Run a target on one input.

    Returns:
        Whether the input was accepted, or at least read.

    Raises:
        FindError: it took too long, or was read as something else after it was written back.
        Exception: whatever the target raised that is not ours.
    """
    start = time.process_time()
    try:
        TARGETS[name](data)
        accepted = True
    except VivitExportError as e:
        str(e).encode("utf-8")  # no half of a surrogate pair: it is to be printed
        accepted = False
    took = time.process_time() - start
    if took > SECONDS:
        raise FindError(f"{name} took {took:.1f} s for {len(data)} bytes")
    return accepted


def _same(name: str, first: object, again: object) -> None:
    if first != again:
        raise FindError(f"{name}: written back, it is read as something else: {first!r:.300} and {again!r:.300}")


@cache
def _room() -> Path:
    """A folder in memory, for readers that take a path."""
    given = os.environ.get("VIVIT_FUZZ_ROOM")
    if given:
        return Path(given)
    made = tempfile.mkdtemp(prefix="vivit-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def _written(name: str, data: bytes) -> Path:
    path = _room() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@cache
def _bundle() -> Bundle:
    """A bundle with every section, and the engine ``rtx``."""
    path = _written(f"whole/{MANIFEST}", (SEEDS / "manifest/whole.json").read_bytes())
    return Bundle(path.parent, read_manifest(path.parent))


def _holding(folder: Path, name: str, data: bytes) -> Bundle:
    """The same in another folder, with one file, whose size and hash are right."""
    files = {name: FileRecord(hashlib.sha256(data).hexdigest(), len(data))}
    return Bundle(folder, dataclasses.replace(_bundle().manifest, files=files))


def manifest(data: bytes) -> None:
    """``bundle.json``, and what people are shown of it."""
    path = _written(f"manifest/{MANIFEST}", data)
    found = read_manifest(path.parent)
    bundle = Bundle(path.parent, found)
    text = json_text({**to_json(found), "format": FORMAT})
    path.write_text(text, encoding="utf-8")
    _same("manifest", found, read_manifest(path.parent))
    shown = "\n".join([summary_text(bundle), *contents_text(bundle), render_html(found)])
    (shown + json_text(summary_json(bundle, None))).encode("utf-8")


def contract(data: bytes) -> None:
    """The contract alone, which Triton's front reads from its configuration."""
    found = Contract.from_json(_parsed(data))
    _same("contract", found, Contract.from_json(parse_json(json_text(found.to_json()))))


def strict_json(data: bytes) -> None:
    """Strict JSON: what is accepted is what Python's own parser makes of it."""
    found = _parsed(data)
    _same("strict_json", found, json.loads(data.decode("utf-8")))
    _same("strict_json", found, parse_json(json_text(found)))


def sidecar(data: bytes) -> None:
    """``engines/NAME.json``, its table and its drawing."""
    path = _written("sidecar/engines/rtx.json", data)
    found = read_plan(_holding(path.parent.parent, "engines/rtx.json", data), "rtx")
    json_text(found.to_json()).encode("utf-8")
    plan_text(found).encode("utf-8")
    plan_to_onnx(found.layers, "rtx")
    _same("sidecar", found.layers, tuple(Layer.from_record(layer.record()) for layer in found.layers))


def plan(data: bytes) -> None:
    """What the compilers say of an engine: the inspector's JSON, or the log."""
    text = data.decode("utf-8", errors="replace")
    layers = layers_from_inspector(text) if text.lstrip().startswith("{") else layers_from_log(text)
    sum_up(layers, 0, 0)
    for layer in layers:
        to_json(layer.record())


def processor(data: bytes) -> None:
    """``preprocessor_config.json`` of a checkpoint."""
    path = _written("processor/preprocessor_config.json", data)
    found = read_preprocess(path.parent, (224, 224))
    doubt_about(found)
    _same("processor", found, from_json(Preprocess, parse_json(json_text(to_json(found))), "preprocess"))


def config(data: bytes) -> None:
    """``config.json`` of a checkpoint, of any family."""
    path = _written("config/config.json", data)
    found = read_config(path.parent)
    find_family(found["model_type"], "config.json").has_head(found)
    overridden_note(found)
    find_family(found["model_type"], "config.json").anatomy(found, read_clip_geometry(path))


def index(data: bytes) -> None:
    """The index of a checkpoint's shards: no name in it leads out of the folder."""
    path = _written("index/model.safetensors.index.json", data)
    for name in ("a.safetensors", "b.safetensors"):
        _written(f"index/{name}", b"")
    for shard in weight_files(path.parent, allow_pickle=False):
        if shard.resolve().parent != path.parent.resolve():
            raise FindError(f"index names {shard}")


def labels(data: bytes) -> None:
    """The file of ``--labels``; the first byte says of which kind it is, and how many labels there should be."""
    kind = data[0] if data else 0
    path = _written("labels/labels.json" if kind & 1 else "labels/labels.txt", data[1:])
    found = read_labels(path, kind >> 1 & 7)
    if kind & 1:
        path.write_text(json.dumps(list(found)), encoding="utf-8")
        _same("labels", found, read_labels(path, len(found)))


def golden(data: bytes) -> None:
    """The header of a safetensors file: what is accepted, the library reads too, and as the same."""
    found = read_headers(io.BytesIO(data), Path("golden.safetensors"))
    theirs = {name: (told["dtype"], tuple(told["shape"])) for name, told in _deserialize(data)}
    _same("golden", {name: (told.dtype, told.shape) for name, told in found.items()}, theirs)


def scenic(data: bytes) -> None:
    """A checkpoint of scenic: what is accepted has exactly the parameters of its network, and each can be read."""
    with FlaxFile(_written("scenic/checkpoint", data)) as file:
        found = parameters_of(file.tree)
        network = recognize(found)
        shapes = {name: file.read(array).shape for name, array in found.items()}
        _same("scenic", shapes, dict(network.shapes()))
        network.clip(None)


def graph(data: bytes) -> None:
    """``model.onnx``."""
    path = _written(f"graph/{MODEL}", data)
    require_sound_graph(_holding(path.parent, MODEL, data))


def packets(data: bytes) -> None:
    """Headers in the packets of a video; the first byte divides the bytes in two. This raises nothing at all."""
    middle = data[0] if data else 0
    extradata, packet = data[1 : 1 + middle], data[1 + middle :]
    try:
        for codec in ("h264", "hevc"):
            length = length_bytes_of(codec, extradata)
            holds_idr(packet, length)
            is_referred_to(packet, codec, length)
    except VivitExportError as e:
        raise FindError(f"packets raised {e!r}") from e


def both_languages(data: bytes) -> None:
    """``bundle.json`` for Python and C++: both accept it, or both refuse it."""
    if told := _readers().disagreement(data):
        raise FindError(told)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        manifest, contract, strict_json, sidecar, plan, processor, config, index, labels, golden, graph, packets,
        scenic, both_languages,
    )
}  # fmt: skip
ALL = tuple(name for name in TARGETS if name != "both_languages")
"""What ``everything`` consists of, in order."""


def everything(data: bytes) -> None:
    """All targets that need nothing but Python; the first byte chooses."""
    TARGETS[ALL[data[0] % len(ALL) if data else 0]](data[1:])


TARGETS["everything"] = everything
JSON_TARGETS = frozenset(
    {"manifest", "contract", "strict_json", "sidecar", "processor", "config", "index", "both_languages"}
)
"""Whose input is one JSON document."""


@cache
def _readers() -> Readers:
    return Readers(Path(os.environ["VIVIT_FUZZ_READERS"]), _room() / "both")


def _parsed(data: bytes) -> Any:
    try:
        return parse_json(data.decode("utf-8"))
    except ValueError as e:  # as its callers turn it into an error of ours
        raise InputError(str(e)) from e
