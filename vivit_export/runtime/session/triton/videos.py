"""Served models that take whole videos (``NAME-video``): we send a file, and the server decodes, samples and crops."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import NoReturn, final

import numpy as np
import numpy.typing as npt

from vivit_export.contract import Contract
from vivit_export.errors import ClipError, UsageError
from vivit_export.runtime.clips.video.container import require_file
from vivit_export.runtime.session.prediction import Prediction
from vivit_export.runtime.session.session import Session
from vivit_export.runtime.session.triton.address import parse_address
from vivit_export.runtime.session.triton.client import TritonBackend, model_behind
from vivit_export.runtime.session.triton.protocol import SUBJECT

_MOST_BYTES = 2**31 - 2**20  # protobuf's limit for one message, less what is around the bytes


@final
class VideoModel:
    """A served model that takes encoded videos. Any number of threads may call it.

    Attributes:
        contract: the server's; it decides the sampling and the views.
        engine: ``triton``.
        details: server, model and engine, for people.
    """

    def __init__(self, backend: TritonBackend, behind: str) -> None:
        self.contract, self.engine, self.details = backend.contract, backend.name, backend.details
        self._backend, self._behind, self._closed = backend, behind, False

    def __call__(self, path: str | Path) -> Prediction:
        """Send a video file and return what the server predicts, averaged over its views.

        Memory: the file, twice.

        Args:
            path: a video file of less than 2 GiB.

        Raises:
            ClipError: no such file, or the server cannot read it as a video.
            EnvironmentFault: the server is gone, refuses the request, or does not answer in time.
            UsageError: it is closed.
        """
        if self._closed:
            raise UsageError("the model is closed; open another with open_model")
        path = Path(path)
        data = read_bytes(path, instead=f"use the model {self._behind} for it")
        try:
            outputs = self._backend.run(data[None])
        except ClipError as e:
            raise ClipError(str(e).replace(SUBJECT, str(path), 1)) from e
        first = {name: array[0] for name, array in outputs.items()}
        return Prediction.from_outputs(first, self.contract)

    def require_own_sampling(self, contract: Contract) -> None:
        """Refuse a sampling rule that differs from the server's.

        Raises:
            UsageError: it differs.
        """
        if contract.clip != self.contract.clip:
            clip = self.contract.clip
            views = "x".join(map(str, clip.views))
            raise UsageError(
                f"the server samples videos by itself ({clip.sampling}, {views} views); for another sampling use the "
                f"model {self._behind}, which takes clips"
            )

    def __reduce__(self) -> NoReturn:  # what pickle and copy call
        raise UsageError(
            "a model belongs to this process and cannot be pickled or copied; open another there with open_model"
        )

    def close(self) -> None:
        """Close the connection; calls in progress are canceled and raise `concurrent.futures.CancelledError`."""
        if self._closed:
            return
        self._closed = True
        self._backend.close()

    def __enter__(self) -> VideoModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_bytes(path: Path, instead: str = "give a smaller one") -> npt.NDArray[np.uint8]:
    """Read a video file as it is, to be sent in one request.

    Args:
        path: a video file.
        instead: the fix that a refusal of a larger one gives.

    Returns:
        uint8 (N,).

    Raises:
        ClipError: no such file, or it is empty, too large for a request, or cannot be read.
    """
    require_file(path)
    if path.stat().st_size > _MOST_BYTES:
        raise ClipError(f"{path} is larger than the 2 GiB that a request may have; {instead}")
    try:
        return np.fromfile(path, np.uint8)
    except OSError as e:
        raise ClipError(f"{path} cannot be read: {e.strerror}; give a video file that you may read") from e


def open_model(address: str) -> Session | VideoModel:
    """Open a served model, whichever of the two it is.

    Args:
        address: see `vivit_export.runtime.session.triton.address.parse_address`.

    Raises:
        UsageError, MissingDependencyError, EnvironmentFault: as for `client.open_server`.
    """
    parsed = parse_address(address)
    backend = TritonBackend(parsed)
    return VideoModel(backend, model_behind(parsed)) if backend.takes_videos else Session(backend.contract, backend, {})
