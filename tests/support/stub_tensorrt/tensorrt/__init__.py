"""TensorRT without its libraries: the real names and signatures, made-up behavior.

Importable as ``tensorrt`` in a child process that has the real ``tensorrt_bindings`` on its path
and stub libraries to load (see test_tensorrt_names.py). Every object is a `Simulated` of a real
class: an attribute that the real class lacks is an AttributeError, a call that fits none of its
signatures is a TypeError, and results have the type that the signature tells.

Environment: STUB_RECORD, a file that gets the names used and the names missed; STUB_INSPECTOR, a
file with the engine inspector's answer; STUB_WITHOUT, comma separated names to act as if missing.
"""

from __future__ import annotations

import atexit
import json
import os
import re
from pathlib import Path
from typing import Any

import onnx
import tensorrt_bindings as real

__version__ = real.__version__
_WITHOUT = set(filter(None, os.environ.get("STUB_WITHOUT", "").split(",")))
_used: set[str] = set()
_missing: set[str] = set()


@atexit.register
def _write_record() -> None:
    if "STUB_RECORD" in os.environ:
        record = {"used": sorted(_used), "missing": sorted(_missing)}
        Path(os.environ["STUB_RECORD"]).write_text(json.dumps(record))


def _lookup(owner: Any, owner_name: str, name: str) -> Any:
    full = f"{owner_name}.{name}"
    if full in _WITHOUT or not hasattr(owner, name):
        _missing.add(full)
        raise AttributeError(f"{full} does not exist in TensorRT {__version__}")
    _used.add(full)
    return getattr(owner, name)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _lookup(real, "trt", name)


class HostMemory(bytes):
    """Bytes that the compiler owns."""

    nbytes = property(len)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Simulated:
    """An object of the real class ``kind``; ``values`` are its properties and what its methods return."""

    def __init__(self, kind: str, **values: Any) -> None:
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "values", values)

    def __getattr__(self, name: str) -> Any:
        member = _lookup(getattr(real, self.kind), self.kind, name)
        if isinstance(member, property):
            return self.values.get(name, _default(_signatures(member.fget.__doc__)[0][1]))
        return lambda *args, **kwargs: self._call(name, member.__doc__, args, kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        member = _lookup(getattr(real, self.kind), self.kind, name)
        if not isinstance(member, property) or member.fset is None:
            raise AttributeError(f"{self.kind}.{name} cannot be set")
        _check([_signatures(member.fset.__doc__)[0]], f"{self.kind}.{name}", (self, value), {})
        self.values[name] = value

    def __iter__(self) -> Any:
        _lookup(getattr(real, self.kind), self.kind, "__getitem__")
        return iter(())

    def __bool__(self) -> bool:
        return True

    def _call(self, name: str, doc: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = _check(_signatures(doc), f"{self.kind}.{name}", (self, *args), kwargs)
        value = self.values.get(name, _default(result))
        return value(*args, **kwargs) if callable(value) and not isinstance(value, Simulated) else value


def _signatures(doc: str | None) -> list[tuple[list[tuple[str, str, bool]], str]]:
    """Read ``name(self: T, flag: U = 0) -> V`` lines of a pybind11 docstring: ([(name, type, optional)], result)."""
    found = []
    for parameters, result in re.findall(r"^(?:\d+\. )?\w*\((.*)\) -> (.*)$", doc or "", re.MULTILINE):
        if parameters == "*args, **kwargs":
            continue
        parts = [p for p in re.split(r", (?=\w+: )", parameters) if p]
        named = [(p.split(": ", 1)[0], p.split(": ", 1)[1].split(" = ")[0], " = " in p) for p in parts]
        found.append((named, result.strip()))
    return found


def _check(signatures: list[Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the result type of the first signature that the arguments fit."""
    for parameters, result in signatures:
        given = dict(zip([p[0] for p in parameters], args, strict=False)) | kwargs
        known = {p[0] for p in parameters}
        complete = all(optional or parameter in given for parameter, _, optional in parameters)
        fits = all(_is_a(given[parameter], kind) for parameter, kind, _ in parameters if parameter in given)
        if len(args) <= len(parameters) and set(given) <= known and complete and fits:
            return str(result)
    raise TypeError(f"{name} does not take {args[1:]} {kwargs}; it takes {signatures}")


def _is_a(value: Any, kind: str) -> bool:
    short = kind.rsplit(".", 1)[-1]
    if isinstance(value, Simulated):
        return bool(value.kind == short)
    if kind.startswith("tensorrt_bindings.") and short != "Dims":
        return bool(isinstance(value, getattr(real, short)))
    plain: dict[str, type | tuple[type, ...]] = {
        "str": str,
        "bool": bool,
        "SupportsInt": int,
        "int": int,
        "Dims": (tuple, list),
        "Buffer": (bytes, memoryview),
    }
    return isinstance(value, plain.get(short, object))


def _default(result: str) -> Any:
    plain: dict[str, Any] = {"int": 0, "bool": True, "str": "", "float": 0.0, "None": None}
    short = result.rsplit(".", 1)[-1]
    if short in plain:
        return plain[short]
    members = getattr(getattr(real, short, None), "__members__", None)
    return next(iter(members.values())) if members else Simulated(short)


def _construct(kind: str, *args: Any, **values: Any) -> Simulated:
    made = Simulated(kind, **values)
    _check(_signatures(_lookup(real, "trt", kind).__init__.__doc__), f"trt.{kind}", (made, *args), {})
    return made


def Builder(logger: Any) -> Simulated:  # noqa: N802 - the class's name
    network = Simulated("INetworkDefinition", num_inputs=0, get_flag=lambda flag: True)

    def create_network(flags: int = 0) -> Simulated:
        if flags >> int(real.NetworkDefinitionCreationFlag.STRONGLY_TYPED) & 1:
            _used.add("NetworkDefinitionCreationFlag.STRONGLY_TYPED")
        return network

    def build(network: Simulated, config: Simulated) -> HostMemory:
        logger.log(real.Logger.VERBOSE, "Total Activation Memory: 1000 bytes")
        logger.log(real.Logger.VERBOSE, "Total Weights Memory: 2000 bytes")
        return HostMemory(b"ftrt engine")

    cache = Simulated("ITimingCache", serialize=HostMemory(b"timings"))
    config = Simulated("IBuilderConfig", get_timing_cache=cache, DLA_core=-1)
    return _construct(
        "Builder", logger, create_network=create_network, create_builder_config=config, build_serialized_network=build
    )


def OnnxParser(network: Simulated, logger: Any) -> Simulated:  # noqa: N802
    def parse_from_file(model: str) -> bool:
        inputs = []
        for value in onnx.load(model, load_external_data=False).graph.input:
            shape = tuple(d.dim_value or -1 for d in value.type.tensor_type.shape.dim)
            inputs.append(Simulated("ITensor", name=value.name, shape=shape, is_shape_tensor=False))
        network.values.update(num_inputs=len(inputs), get_input=lambda index: inputs[index])
        return True

    return _construct("OnnxParser", network, logger, num_errors=0, parse_from_file=parse_from_file)


def Runtime(logger: Any) -> Simulated:  # noqa: N802
    text = Path(os.environ["STUB_INSPECTOR"]).read_text()
    inspector = Simulated("EngineInspector", get_engine_information=text)
    engine = Simulated("ICudaEngine", create_engine_inspector=inspector)
    return _construct("Runtime", logger, deserialize_cuda_engine=engine)


def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
    _lookup(real, "trt", "init_libnvinfer_plugins")
    return True
