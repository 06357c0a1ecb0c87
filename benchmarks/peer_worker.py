"""The processes of `peers.py`: make a peer's artifact, run it for its logits, or answer as a bench worker does.

peer_worker.py export CHECKPOINT TARGET FUSIONS     transformers' OnnxExporter
peer_worker.py nncf MODEL.onnx CLIPS TARGET         INT8 by NNCF on a file of clips
peer_worker.py logits FOLDER KIND MODEL [ENGINE [PRECISION]]    run FOLDER/pixels.npy, write FOLDER/logits.npy
peer_worker.py KIND MODEL [ENGINE [PRECISION]]                  bench worker; KIND is onnxruntime, openvino or bundle
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))  # another Python, with a peer in it, does not have our package
Pixels = npt.NDArray[np.float32]


def export_by_transformers(checkpoint: str, target: str, fusions: str) -> None:
    """Save what ``OnnxExporter`` makes of the checkpoint."""
    import torch
    import transformers
    from transformers.exporters import OnnxConfig, OnnxExporter

    model = transformers.VivitForVideoClassification.from_pretrained(checkpoint).eval()
    size = model.config.image_size
    pixels = torch.zeros(2, model.config.num_frames, 3, size, size)
    config = OnnxConfig(dynamic=True, ort_fusions=fusions or None)
    OnnxExporter().export(model, {"pixel_values": pixels}, config=config).save_pretrained(target)


def quantize_by_nncf(model: str, clips: str, target: str) -> None:
    """Quantize with NNCF's transformer preset, calibrated on the file's clips."""
    import nncf  # type: ignore[import-not-found]  # not one of ours: `peers.py` says which Python has it
    import openvino
    from safetensors.numpy import load_file

    source = openvino.Core().read_model(model)
    name = source.inputs[0].get_any_name()
    frames = load_file(clips)["frames"]
    dataset = nncf.Dataset(frames, lambda clip: {name: to_pixels(clip)})
    quantized = nncf.quantize(source, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(frames))
    Path(target).mkdir()
    openvino.save_model(quantized, str(Path(target, "model.xml")), compress_to_fp16=False)


def to_pixels(frames: npt.NDArray[np.uint8]) -> Pixels:
    """A clip as ViViT-B's checkpoints want it: uint8 (T, H, W, 3) to float32 (1, T, 3, H, W) from -3 to 1."""
    pixels: Pixels = ((frames.astype(np.float32) / 127.5 - 1 - 0.5) / 0.5).transpose(0, 3, 1, 2)[None]
    return np.ascontiguousarray(pixels)


def open_peer(kind: str, model: str) -> tuple[Callable[[Pixels], Pixels], str]:
    """Return a function from pixels (B, T, 3, H, W) to logits (B, N), and what executes it."""
    if kind == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda pixels: session.run(None, {name: pixels})[0], f"ONNX Runtime {onnxruntime.__version__}"
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model, "CPU", hints)
    request = compiled.create_infer_request()
    return lambda pixels: np.array(request.infer([pixels])[0]), f"OpenVINO {openvino.__version__}"


def run_peer(pixels: Pixels, crops: npt.NDArray[np.uint8], arguments: list[str]) -> Pixels:
    """Logits clip by clip."""
    if arguments[0] == "bundle":
        import vivit_export as ve

        precision: Any = arguments[3] if len(arguments) > 3 else None
        with ve.open_session(arguments[1], arguments[2], cpu_precision=precision) as session:
            return np.concatenate([session.infer(clip[None]) for clip in crops])
    run, _ = open_peer(*arguments)
    return np.concatenate([run(clip[None]) for clip in pixels])


class Peer:
    """A model in another's engine, as `vivit_export.runtime.bench.worker` wants it."""

    gpu = None

    def __init__(self, kind: str, model: str) -> None:
        self._run, self.engine = open_peer(kind, model)

    def batch(self, count: int, seed: int) -> Pixels:
        """The same clip over and over; not timed."""
        from vivit_export.demo.motion import LABELS, render_clip

        frames = render_clip(LABELS[seed % len(LABELS)], seed=seed, num_frames=32, height=224, width=224)
        return np.repeat(to_pixels(frames), count, axis=0)

    def run(self, batch: Pixels) -> object:
        """Run it."""
        return self._run(batch)

    def split(self, video: Path) -> dict[str, float]:
        """Not asked for."""
        raise NotImplementedError

    def failures(self) -> list[str]:
        """Nothing: `peers.py` measures the difference."""
        return []


def main(what: str, *arguments: str) -> int:
    """Do one of the four."""
    if what == "export":
        export_by_transformers(*arguments)
    elif what == "nncf":
        quantize_by_nncf(*arguments)
    elif what == "logits":
        folder = Path(arguments[0])
        pixels, crops = np.load(folder / "pixels.npy"), np.load(folder / "crops.npy")
        np.save(folder / "logits.npy", run_peer(pixels, crops, list(arguments[1:])))
    elif what == "bundle":
        from vivit_export.runtime.bench.worker import Served, work

        bundle, engine, *precision = arguments
        return work(lambda: Served(bundle, engine, "", *precision))
    else:
        from vivit_export.runtime.bench.worker import work

        return work(lambda: Peer(what, *arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
