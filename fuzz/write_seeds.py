"""Write ``seeds/``: a few valid inputs for each target, made of what the tests are made of.

PYTHONPATH=.:tests/support python fuzz/write_seeds.py
"""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
from attacked import make
from corpora import lay_out
from made_bundle import contract
from safetensors.numpy import save
from scenic_trees import flax_bytes, tree_of
from tiny_graph import tiny_graph

from vivit_export.bundle import read_bundle, write_manifest
from vivit_export.bundle.engines import Sidecar
from vivit_export.bundle.reading import read_manifest
from vivit_export.contract import Contract, Tensor
from vivit_export.demo import checkpoint_path, clips_path
from vivit_export.export.engine.layers import layers_from_log
from vivit_export.families.scenic.network import Kind, ScenicNetwork, Stack
from vivit_export.files import json_text
from vivit_export.records import to_json

ROOT = Path(__file__).parents[1]
SEEDS = Path(__file__).parent / "seeds"
_LAYERS = 6


def main() -> None:
    """Write them all."""
    with tempfile.TemporaryDirectory() as room:
        bundle = make(Path(room) / "bundle")
        whole = _whole(bundle, Path(room) / "tiny")
    own = json.loads(whole)["contract"]
    others = {mode: json.loads(json_text(contract(**io).to_json())) for mode, io in _MODES.items()}
    earlier = (ROOT / "tests/data/vivit-bundle-1/bundle.json").read_bytes()
    contracts = {"crops.json": _json(own)} | {f"{mode}.json": _json(c) for mode, c in others.items()}
    manifests = {"whole.json": whole, "version-1.json": earlier}
    graph = {"tiny.onnx": tiny_graph(Contract.from_json(own))}
    texts = {
        "numbers.json": b"[0, -1.5e-7, 9223372036854775807, true, null]",
        "text.json": '{"é": "\\ud83d\\ude00"}'.encode(),
    }
    clips: dict[str, Any] = {"frames": np.zeros((1, 2, 2, 2, 3), np.uint8), "logits": np.ones((1, 3), np.float32)}
    for target, seeds in {
        "manifest": manifests,
        "contract": contracts,
        "strict_json": texts,
        "sidecar": {"small.json": _sidecar(whole)},
        "plan": _plans(),
        "processor": {"demo.json": (checkpoint_path() / "preprocessor_config.json").read_bytes(), **_PROCESSORS},
        "config": {"demo.json": (checkpoint_path() / "config.json").read_bytes(), **_CONFIGS},
        "index": {"two.json": b'{"metadata": {}, "weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}'},
        "labels": {"list": b'\x05["a", "b"]', "object": b'\x05{"1": "b", "0": "a"}', "lines": b"\x04a\nb\n",
                   "config": b'\x03{"id2label": {"0": "a"}}'},
        "golden": {"small": save(clips)},
        "scenic": {"encoder": _scenic("encoder"), "self_attention": _scenic("self_attention")},
        "graph": graph,
        "packets": _packets(),
        "cpp_video": _videos(),
    }.items():  # fmt: skip
        (SEEDS / target).mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (SEEDS / target / name).write_bytes(data)


_MODES: dict[str, dict[str, Any]] = {
    "pixels": {"mode": "pixels", "inputs": (Tensor("pixel_values", "float32", ("batch", 32, 3, 224, 224)),)},
    "frames": {
        "mode": "frames",
        "inputs": (Tensor("frames", "uint8", ("batch", 32, 360, 640, 3)),),
        "frame_size": (360, 640),
    },
}
_CONFIGS = {
    "encoder.json": b'{"model_type": "vivit_factorised", "factorisation": "encoder", "temporal_num_hidden_layers": 2}',
    "self_attention.json": b'{"model_type": "vivit_factorised", "factorisation": "self_attention", "num_frames": 8}',
    "dot_product.json": b'{"model_type": "vivit_factorised", "factorisation": "dot_product", "id2label": {"0": "a"}}',
    "videomae.json": b'{"model_type": "videomae", "num_frames": 16, "use_mean_pooling": true, "patch_size": 16}',
    "timesformer.json": b'{"model_type": "timesformer", "num_frames": 8, "attention_type": "divided_space_time"}',
    "vjepa2.json": b'{"model_type": "vjepa2", "frames_per_clip": 16, "mlp_ratio": 4.5, "num_pooler_layers": 2}',
}
_PROCESSORS = {
    "size.json": b'{"size": {"height": 224, "width": 224}, "crop_size": 224, "offset": false, "resample": 3}',
    "video.json": b'{"image_processor_type": "VivitImageProcessor", "do_normalize": false, "image_mean": 0.5}',
}


def _json(value: object) -> bytes:
    return json_text(value).encode()


def _whole(bundle: Path, folder: Path) -> bytes:
    """A manifest with every section, over files of a few bytes."""
    write_manifest(lay_out(folder), read_bundle(bundle).manifest.content)
    return (folder / "bundle.json").read_bytes()


def _sidecar(whole: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as room:
        (Path(room) / "bundle.json").write_bytes(whole)
        record = read_manifest(Path(room)).engines["rtx"]
    log = (ROOT / "tests/export/engine/data/rtx_fp16_one_row.log").read_text()
    layers = tuple(layer.record() for layer in layers_from_log(log))[:_LAYERS]
    fields = {name: getattr(record, name) for name in type(record).__dataclass_fields__}
    return _json(to_json(Sidecar(**fields, layers=layers)))


def _plans() -> dict[str, bytes]:
    """The beginning of a log, and the inspector's form of a layer."""
    log = (ROOT / "tests/export/engine/data/rtx_fp16_one_row.log").read_text().splitlines()
    start = next(i for i, line in enumerate(log) if line.rstrip().endswith("Layers:"))
    tensor = {"Name": "x", "Dimensions": [-1, 4], "Format/Datatype": "Row major linear FP16 format"}
    layer = {"Name": "gemm", "LayerType": "Gemm", "Inputs": [tensor], "Outputs": [tensor], "Constants": [tensor],
             "TacticName": "t", "Metadata": "[ONNX Layer: a/MatMul]"}  # fmt: skip
    return {
        "log": "\n".join(log[start : start + 1 + _LAYERS]).encode(),
        "inspector.json": json.dumps({"Layers": [layer]}).encode(),
    }


def _scenic(kind: Kind) -> bytes:
    """A network of two numbers' width, in the training state of its kind."""
    stacks = {
        "encoder": (
            Stack("SpatialTransformer", "cls_SpatialTransformer", 1, 1, 2, 2),
            Stack("TemporalTransformer", "cls_TemporalTransformer", 1, 1, 2, 2),
        ),
        "self_attention": (Stack("Transformer", None, 1, 1, 2, 196),),
    }
    network = ScenicNetwork(kind, 2, (1, 1, 1) if kind == "encoder" else (1, 16, 16), stacks[kind], 2)
    tree = tree_of({name: np.zeros(shape, np.float16) for name, shape in network.shapes()})
    return flax_bytes({"optimizer": {"target": tree}} if kind == "encoder" else {"params": tree}, chunk=512)


def _packets() -> dict[str, bytes]:
    """The first packets of a demo clip, with the first byte that divides them."""
    with av.open(str(clips_path() / "up_240x426_30fps.mp4")) as container:
        extradata = bytes(container.streams.video[0].codec_context.extradata or b"")[:200]
        packets = [bytes(packet)[:400] for packet in container.demux(video=0)][:2]
    return {f"h264-{i}": bytes([len(extradata)]) + extradata + packet for i, packet in enumerate(packets)}


def _videos() -> dict[str, bytes]:
    y4m = b"YUV4MPEG2 W4 H2 F25:1 Ip A1:1 C420jpeg\n" + b"FRAME\n" + bytes(range(12)) + b"FRAME\n" + bytes(12)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3, 3), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(36)
    return {"y4m": b"\x00" + y4m, "npy": b"\x01" + npy, "rgb": b"\x02" + bytes(36)}


if __name__ == "__main__":
    main()
