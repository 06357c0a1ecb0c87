"""A bundle that the demo is not: no head, a run that was left out, an engine with its proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vivit_export.bundle import Bundle
from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor

DRIFT: dict[str, Any] = {
    **dict.fromkeys(("top1", "max_abs", "max", "kl", "cosine")),
    "embedding_cosine": 0.99987,
}
RUNS = [
    {"engine": "onnxruntime 1", "batch": 1, "gated": True, "drift": DRIFT, "note": ""},
    {"engine": "onnxruntime 1", "batch": 8, "gated": True, "drift": None, "note": "not run: needs 2.0 GiB"},
]
ENGINE: dict[str, Any] = {
    "flavour": "tensorrt-rtx",
    "version": "1.7",
    "sms": [89, 120],
    "profiles": [{"min": 1, "opt": 4, "max": 8}],
    "size": 1_500_000,
    "proof": ["attention fused in 1 of 1 blocks (Half)"],
    "plan": {"kernels": 7, "activation_bytes": 2_000_000},
}


def headless(**sections: Any) -> Bundle:
    contract = Contract(
        Clip(2, 8, 8, (1, 8, 8)),
        Preprocess(size=(8, 8), crop_size=(8, 8)),
        IO("pixels", (Tensor("x", "float32", ("batch", 2, 3, 8, 8)),), (Tensor("embedding", "float32", ("batch", 4)),)),
    )
    manifest = {
        "model": {"id": "<b>mine</b>", "config": {}, "parameters": 2_500_000},
        "contract": contract.to_json(),
        "precision": {"name": "fp16", "attention": "pattern", "opset": 20},
        "engines": {},
        "checks": {},
        "files": {"model.onnx": {"size": 1_000_000}, "golden.safetensors": {"size": 234_000}},
        **sections,
    }
    return Bundle(Path("out"), manifest, contract)


CHECKS = {"reference": "eager fp32", "clips": {"source": "mine", "names": ["a.mp4"]}, "gate": {"max": 1}, "runs": RUNS}
