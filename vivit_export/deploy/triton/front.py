"""Models that run inside Triton before the engine: an encoded video in, frames or averaged views out.

A repository's ``model.py`` only imports one of the two classes; Triton's Python back end creates and calls
it. Decoding, sampling and preprocessing are the Python runtime's, controlled by the contract in the model's
configuration.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.bundle.signatures.trust import trust_of_environment
from vivit_export.contract import Contract
from vivit_export.deploy.triton.front_config import ENGINE_MODEL, LARGEST
from vivit_export.deploy.triton.handover import tensor_of
from vivit_export.deploy.triton.standstill import Watch
from vivit_export.errors import ClipError, EnvironmentFault, VivitExportError
from vivit_export.runtime.clips.ahead import num_readers, share_cores
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading
from vivit_export.runtime.clips.video.stopping import ReadingPool
from vivit_export.runtime.clips.views import average_views, num_views, read_views_to
from vivit_export.runtime.session.backend import join_outputs
from vivit_export.runtime.session.triton.protocol import CONTRACT, FRAMES_SUFFIX, SUBJECT, VIDEO, VIDEO_SUFFIX

UInt8 = npt.NDArray[np.uint8]


class FramesModel:
    """The first step of an ensemble: a video in, the engine's input out."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the configuration; called by Triton."""
        self._pb = importlib.import_module("triton_python_backend_utils")
        self._parameters = json.loads(args["model_config"])["parameters"]
        self._contract = Contract.from_json(json.loads(self._parameter(CONTRACT)))
        self._input = self._contract.io.inputs[0].name
        _require_signature(Path(args["model_repository"]))
        self._watch = Watch()
        self._watch.start()

    def finalize(self) -> None:
        """Called by Triton when the model is unloaded."""
        self._watch.stop()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request: called by Triton.

        Their videos are read at once, by as many threads as there are cores. Memory: the input of each video, of which
        Triton sends at most the largest batch.
        """
        with self._watch.answering():
            return self._answer_all(requests)

    def _answer_all(self, requests: Sequence[Any]) -> list[Any]:
        # DLPack: Triton's own conversion copies, and breaks if it was compiled for another NumPy.
        sent = [np.from_dlpack(self._pb.get_input_tensor_by_name(request, VIDEO)) for request in requests]
        at_once = num_readers(None, sum(map(len, sent)))
        reading = share_cores(AS_NEEDED, at_once)
        with ReadingPool(at_once) as pool:
            read = [[pool.submit(read_video, video.tobytes(), self._contract, reading) for video in v] for v in sent]
            return [self._answer(videos) for videos in read]

    def _parameter(self, name: str) -> str:
        return str(self._parameters[name]["string_value"])

    def _answer(self, videos: Sequence[Future[npt.NDArray[Any]]]) -> Any:
        try:
            outputs = self._run([video.result() for video in videos])
        except VivitExportError as e:
            return self._pb.InferenceResponse(error=self._pb.TritonError(str(e), self._pb.TritonError.INVALID_ARG))
        return self._pb.InferenceResponse([tensor_of(self._pb, name, array) for name, array in outputs.items()])

    def _run(self, videos: list[npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return one clip for each video: the ensemble has no views."""
        return {self._input: videos[0] if len(videos) == 1 else np.concatenate(videos)}


class ViewsModel(FramesModel):
    """All steps in one model: a video in, every view through the engine's model (BLS), averages out."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the configuration; called by Triton."""
        super().initialize(args)
        self._engine, self._largest = self._parameter(ENGINE_MODEL), int(self._parameter(LARGEST))
        self._outputs = [output.name for output in self._contract.io.outputs]

    def _run(self, videos: list[npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        rows = [self._views(clips) for clips in videos]
        return {name: np.stack([average_views(row[name]) for row in rows]) for name in self._outputs}

    def _views(self, clips: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        """Run the views of one video, as many at a time as the engine accepts."""
        starts = range(0, len(clips), self._largest)
        return join_outputs([self._ask(clips[start : start + self._largest]) for start in starts])

    def _why_not(self, message: str) -> str:
        """Say why the engine's model did not answer.

        Nothing here checks or loads it beforehand: Triton 2.51 answers neither while it starts, and a refusal of
        ``load_model`` ends the whole server.
        """
        if "not ready" in message:
            return (
                f"the model {self._engine}, which this one calls, is not loaded; load it first: Triton loads by itself "
                "what an ensemble consists of, but not what a model calls"
            )
        return f"the model {self._engine} failed: {message}"

    def _ask(self, clips: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        inputs = [tensor_of(self._pb, self._input, clips)]
        request = self._pb.InferenceRequest(
            model_name=self._engine,
            requested_output_names=self._outputs,
            inputs=inputs,
            preferred_memory=self._pb.PreferredMemory(self._pb.TRITONSERVER_MEMORY_CPU),
        )
        response = request.exec()
        if response.has_error():
            raise EnvironmentFault(self._why_not(response.error().message()))
        # Copied: the response's memory goes with it.
        tensors = {n: self._pb.get_output_tensor_by_name(response, n) for n in self._outputs}
        return {name: np.array(np.from_dlpack(tensor)) for name, tensor in tensors.items()}


def _require_signature(folder: Path) -> None:
    """Refuse to answer for a model that is not signed by whom the server's environment names.

    Args:
        folder: that of the model in front, such as ``NAME-video``.

    Raises:
        SignatureError: the model NAME is not of a bundle that is signed so.
    """
    trust = trust_of_environment()
    if trust is None:
        return
    from vivit_export.deploy.proof import require_signed_model

    name = folder.name
    for suffix in (FRAMES_SUFFIX, VIDEO_SUFFIX):
        name = name.removesuffix(suffix)
    require_signed_model(folder.with_name(name), trust)


def read_video(data: bytes, contract: Contract, reading: Reading = AS_NEEDED) -> npt.NDArray[Any]:
    """Decode, sample, resize and crop an encoded video.

    Args:
        data: a video file's bytes.
        contract: says which frames and views to use, and what the model takes.
        reading: how much is decoded.

    Returns:
        (V, …) of the dtype and shape of the model's input, one row for each view.

    Raises:
        ClipError: the bytes are not a video, or do not fit the contract.
    """
    source = contract.io.inputs[0]
    rows = np.empty((num_views(contract), *(int(d) for d in source.shape[1:])), source.dtype)
    with _as_file(data) as path:
        try:
            read_views_to(rows, path, contract, reading)
        except ClipError as e:
            raise ClipError(str(e).replace(str(path), SUBJECT)) from e
    return rows


@contextmanager
def _as_file(data: bytes) -> Iterator[Path]:
    """Yield a path to the bytes, in memory that disappears with the process in any case."""
    descriptor = os.memfd_create("video")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
