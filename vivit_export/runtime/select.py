"""Open a bundle on the best engine for this machine, and say which and why.

Nothing falls back silently: ``session.passed_over`` has the reason against every other engine, and an
engine that is requested by name is either opened or refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from vivit_export.bundle import Bundle, read_bundle
from vivit_export.bundle.graph import require_sound_graph
from vivit_export.bundle.signatures.trust import Files
from vivit_export.bundle.signatures.verify import require_signature as require_signer
from vivit_export.choices import CpuPrecision
from vivit_export.errors import BuildError, EnvironmentFault, MissingDependencyError, UsageError, option
from vivit_export.flavour import Flavour
from vivit_export.precision import Precision
from vivit_export.runtime.session.backend import LocalBackend
from vivit_export.runtime.session.session import Session
from vivit_export.runtime.session.triton.address import is_address

GRAPH_ENGINES = ("onnxruntime-cuda", "onnxruntime-cpu", "openvino")
"""Those that run the graph of a bundle, best first; the others are compiled."""

ORDER = (*Flavour, *GRAPH_ENGINES)
"""Engines, best first: GPU before CPU, compiled before interpreted (TensorRT could not be measured on a GPU).
On the CPU, OpenVINO is 5 to 10 % faster than ONNX Runtime in fp32 and 10 to 30 % in INT8, and takes 15 to 20 % more
memory beyond the weights (``benchmarks/results/session_families.json``). ONNX Runtime is first: the check ran in it."""

CPU_ENGINES = frozenset({"openvino", "onnxruntime-cpu"})
_ALIASES = {"onnxruntime": ("onnxruntime-cuda", "onnxruntime-cpu")}
ENGINE_NAMES = (*ORDER, *_ALIASES)
"""What ``prefer`` may be with every bundle."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Wish:
    """The caller's request, checked.

    Attributes:
        engines: candidates in the order to try.
        engine_name: one compiled engine of the bundle, or None for any.
        on: ``cpu``, ``cuda`` or None for either.
        gpu: ordinal of the GPU.
        cpu_precision: arithmetic of CPU engines.
    """

    engines: tuple[str, ...]
    engine_name: str | None
    on: str | None
    gpu: int
    cpu_precision: Precision


def open_session(
    bundle: Bundle | str | Path,
    prefer: str | None = None,
    device: str | None = None,
    cpu_precision: CpuPrecision | None = None,
    *,
    require_signature: Files | None = None,
    identity: str | None = None,
    self_test: bool = True,
) -> Session:
    """Open a bundle on the best engine for this machine.

    Where it was not proven before, the engine first runs one of the bundle's golden clips.

    Args:
        bundle: a bundle, its folder or its address on the hub (``hf://OWNER/NAME@REVISION``), whose files are verified
            first; or the address of a model served by Triton, ``triton://HOST:PORT/MODEL``
            (`vivit_export.runtime.session.triton.address`).
        prefer: the only engine to accept: one of `ORDER`, ``onnxruntime`` (CUDA, then CPU), the name of a
            compiled engine in the bundle, or an address that serves this bundle.
        device: ``cpu``, ``cuda`` or ``cuda:N``: accept only engines that run there. Default: the first
            GPU, or the CPU.
        cpu_precision: ``bf16`` lets a CPU engine compute in bfloat16, which changes results; only
            OpenVINO supports it. Default: ``fp32``, also for a bundle in fp16 or bf16, whose weights are
            widened.
        require_signature: PEM files with public keys, or with certificates of signers or of authorities: one of them
            must have signed the bundle. What is verified is what runs. None: only those that the environment variable
            ``VIVIT_REQUIRE_SIGNATURE`` names, if any, which must hold in any case.
        identity: name that the signer's certificate must have: an e-mail address, URI or host, or else the common name.
        self_test: False leaves that out (`vivit_export.runtime.drift.self_test`). A served model is not tested.

    Raises:
        DriftError: the engine computes wrongly on this device. No other is tried: a wrong engine must be seen.
        BundleError: the bundle is damaged.
        SignatureError: it is not signed, or not by one of them, or was changed since.
        UsageError: an unknown engine or device, or options that conflict.
        EnvironmentFault: the preferred engine, or every engine, is unavailable; the message says why.
    """
    address = next((text for text in (bundle, prefer) if is_address(text)), None)
    if address is not None:
        if require_signature is not None and bundle == address:
            raise UsageError(
                f"{option('require_signature')} is for a bundle on this machine, but {address} runs on a server, which "
                "verifies what it loads itself; drop it"
            )
        return _open_served(str(address), bundle, prefer, device or cpu_precision, require_signature, identity)
    source = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    require_signer(source, require_signature, identity)
    require_sound_graph(source)
    wish = _read_wish(source, prefer, device, cpu_precision)
    passed_over: dict[str, str] = {}
    faults: list[Exception] = []
    backend: LocalBackend | None = None
    for name in wish.engines:
        if backend is not None:
            passed_over[name] = f"{backend.name} comes first in the order of preference"
            continue
        try:
            backend = _open(name, source, wish)
        except (EnvironmentFault, BuildError) as e:
            passed_over[name] = str(e)
            faults.append(e)
    if backend is None:
        raise _nothing_fits(prefer, passed_over, faults) from faults[-1]
    unasked = {name: f"{prefer} was requested" for name in ORDER if name not in wish.engines}
    session = Session(source.contract, backend, {**passed_over, **unasked})
    if self_test:
        _prove(session, backend, source, wish.cpu_precision)
    _LOG.info("%s runs on %s, self-test %s", source.path, session.details, session.self_test)
    return session


def _prove(session: Session, backend: LocalBackend, bundle: Bundle, cpu_precision: Precision) -> None:
    from vivit_export.runtime.drift.self_test import self_test

    try:
        session.self_test = self_test(session, backend, bundle, cpu_precision)
    except BaseException:
        session.close()
        raise


def _open_served(
    address: str,
    bundle: Bundle | str | Path,
    prefer: str | None,
    local: str | None,
    signed_by: Files | None,
    identity: str | None,
) -> Session:
    from vivit_export.runtime.session.triton.client import open_server

    if local is not None:
        raise UsageError(f"{local} is a choice for engines on this machine, but {address} runs on a server; drop it")
    if bundle != address:
        source = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        require_signer(source, signed_by, identity)
        return open_server(address, source)
    if prefer is not None:
        raise UsageError(f"{prefer} cannot be chosen: {address} is served, and the server chose its engine; drop it")
    return open_server(address)


def _nothing_fits(prefer: str | None, passed_over: dict[str, str], faults: list[Exception]) -> EnvironmentFault:
    missing = all(isinstance(fault, MissingDependencyError) for fault in faults)
    kind = MissingDependencyError if missing else EnvironmentFault
    if prefer and len(faults) == 1:
        return kind(f"{prefer} was requested but is not available: {faults[0]}")
    asked = f"{prefer} was requested but is not available" if prefer else "no engine can run this bundle here"
    return kind(f"{asked}: {'; '.join(f'{name}: {reason}' for name, reason in passed_over.items())}")


def _read_wish(bundle: Bundle, prefer: str | None, device: str | None, cpu_precision: CpuPrecision | None) -> _Wish:
    on, gpu = _read_device(device)
    if cpu_precision not in (None, *get_args(CpuPrecision)):
        raise UsageError(f"cpu_precision={cpu_precision!r} is unknown; use fp32 or bf16")
    engines, name = _read_preference(bundle, prefer)
    low = Precision(cpu_precision or Precision.FP32).rounds
    if low and (on == "cuda" or not CPU_ENGINES.intersection(engines)):
        raise UsageError("cpu_precision=bf16 is for CPU engines; drop it, or choose device=cpu")
    if low:
        on = "cpu"
    return _Wish(engines, name, on, gpu, Precision(cpu_precision or Precision.FP32))


def _read_device(device: str | None) -> tuple[str | None, int]:
    if device is None:
        return None, 0
    named = str(device)  # also a torch.device
    kind, _, ordinal = named.partition(":")
    if named == "cpu":
        return "cpu", 0
    if kind != "cuda" or not (ordinal.isdecimal() or named == "cuda"):
        raise UsageError(f"device={device!r} is unknown; use cpu, cuda or cuda:N")
    return "cuda", int(ordinal or 0)


def _read_preference(bundle: Bundle, prefer: str | None) -> tuple[tuple[str, ...], str | None]:
    if prefer is None:
        return ORDER, None
    if not isinstance(prefer, str):
        raise UsageError(f"engine {prefer!r} must be a text")
    if prefer in bundle.engines and prefer not in ORDER:
        return (str(bundle.engines[prefer].flavour),), prefer
    if prefer in ORDER:
        return (prefer,), None
    if prefer in _ALIASES:
        return _ALIASES[prefer], None
    known = ", ".join(dict.fromkeys([*ENGINE_NAMES, *bundle.engines]))
    raise UsageError(f"engine {prefer!r} is unknown; use one of {known}")


def _open(name: str, bundle: Bundle, wish: _Wish) -> LocalBackend:
    """Open one engine.

    Raises:
        EnvironmentFault: it does not fit the machine or the wish.
        BuildError: it refuses the graph.
    """
    runs_on = "cpu" if name in CPU_ENGINES else "cuda"
    if wish.on not in (None, runs_on):
        raise EnvironmentFault(f"it runs on {runs_on}, but {wish.on} was requested")
    return _OPENERS[name](bundle, wish)


def _open_tensorrt(flavour: Flavour) -> Callable[[Bundle, _Wish], LocalBackend]:
    def open_(bundle: Bundle, wish: _Wish) -> LocalBackend:
        from vivit_export.runtime.session.tensorrt import open_engine

        return open_engine(bundle, flavour, wish.engine_name, wish.gpu)

    return open_


def _open_onnxruntime_cuda(bundle: Bundle, wish: _Wish) -> LocalBackend:
    from vivit_export.runtime.session.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(bundle, wish.gpu)


def _open_onnxruntime_cpu(bundle: Bundle, wish: _Wish) -> LocalBackend:
    from vivit_export.runtime.session.onnxruntime import OnnxRuntimeBackend

    if wish.cpu_precision.rounds:
        raise EnvironmentFault(f"ONNX Runtime has no {wish.cpu_precision} arithmetic on the CPU; use openvino")
    return OnnxRuntimeBackend(bundle)


def _open_openvino(bundle: Bundle, wish: _Wish) -> LocalBackend:
    from vivit_export.runtime.session.openvino import OpenVinoBackend

    return OpenVinoBackend(bundle, wish.cpu_precision)


_OPENERS: dict[str, Callable[[Bundle, _Wish], LocalBackend]] = {
    **{flavour: _open_tensorrt(flavour) for flavour in Flavour},
    "onnxruntime-cuda": _open_onnxruntime_cuda,
    "openvino": _open_openvino,
    "onnxruntime-cpu": _open_onnxruntime_cpu,
}
