"""The stored weights of a checkpoint: read, named as the network names them, and refused if they are not whole."""

from __future__ import annotations

import pickle
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from vivit_export.errors import CheckpointError, option
from vivit_export.export.checkpoint.files import merge_advice
from vivit_export.export.checkpoint.pickles import require_only_tensors
from vivit_export.families import Family
from vivit_export.files import open_regular
from vivit_export.limits import MOST_HEADER_BYTES, MOST_WEIGHTS
from vivit_export.records import shown

_OF_AN_ADAPTER = re.compile(r"\.(lora_|ia3_|hada_|lokr_|base_layer\.|modules_to_save\.|original_module\.)")
_OF_THE_ENCODER = re.compile(r"\blayers?\.\d+\.|\bembeddings\.")  # named so by transformers 5.9+, and before
_A_PARAMETER = (".weight", ".bias", "cls_token", "position_embeddings")
_LFS_POINTER = b"version https://git-lfs"
_LONGEST = 300  # characters of another library's message, or of a name
_A_SCALE = re.compile(r"(scale|scale_inv|absmax|quant_state\S*|SCB)$")


State = dict[str, torch.Tensor]


def read_weights(folder: Path, files: Sequence[Path]) -> State:
    """Read all files, as tensors of the types stored.

    Raises:
        CheckpointError: one is truncated, or holds something else; the message names it.
    """
    state: State = {}
    for path in files:
        _require_usual(path)
        try:
            state |= _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
        except pickle.UnpicklingError as e:  # torch's own message advises to load the file unsafely
            raise CheckpointError(
                f"{path} holds more than tensors, which may be code, so it is not read; convert it to safetensors"
            ) from e
        except CheckpointError:
            raise
        except Exception as e:  # torch and safetensors raise many kinds for one bad file
            raise CheckpointError(f"{folder} cannot be loaded: {path.name}: {one_line(e)}") from e
        _require_names(state, path)
    return state


def _require_usual(path: Path) -> None:
    """Refuse what is not a file, has no weights, or has a header that takes long to read."""
    try:
        with open_regular(path) as file:
            head = file.read(len(_LFS_POINTER))
    except OSError as e:
        raise CheckpointError(f"{path} cannot be read: {e.strerror or e}") from e
    if head == _LFS_POINTER:
        raise CheckpointError(f"{path} is a pointer of Git LFS, not the weights themselves; run git lfs pull")
    size = int.from_bytes(head[:8], "little")
    if path.suffix == ".safetensors" and size > MOST_HEADER_BYTES:
        raise CheckpointError(
            f"{path} would have a header of {size} bytes; that of a model has at most {MOST_HEADER_BYTES}"
        )


def _require_names(names: Collection[str], path: Path) -> None:
    if len(names) > MOST_WEIGHTS:
        raise CheckpointError(f"{path} has {len(names)} weights, and a model at most {MOST_WEIGHTS}")
    odd = next((name for name in names if not isinstance(name, str) or len(name) > _LONGEST), None)
    if odd is not None:
        raise CheckpointError(f"{path} has a weight named {shown(odd)}, which is not a valid name for a weight")


def _read_safetensors(path: Path) -> State:
    with safe_open(path, framework="pt") as file:
        # `safetensors.torch.save_model` stores a tensor that several names share once, and the other names here.
        shared = file.metadata() or {}
        _require_names([*file.keys(), *shared], path)
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return {**{name: state[kept] for name, kept in shared.items() if kept in state}, **state}


def _read_pickle(path: Path) -> State:
    require_only_tensors(path)
    found = torch.load(path, map_location="cpu", weights_only=True)
    others = [name for name, value in found.items() if not torch.is_tensor(value)] if isinstance(found, dict) else []
    if not isinstance(found, dict) or others:
        what = f"an entry {shown(others[0])}" if others else f"a {type(found).__name__}"
        raise CheckpointError(
            f"{path} holds {what} where tensors by name are needed, as model.state_dict() gives them; save those alone"
        )
    for name, value in found.items():
        if value.layout is not torch.strided or value.nbytes > value.untyped_storage().nbytes():
            raise CheckpointError(
                f"{path} holds {name!r}, a tensor of {value.numel()} numbers that are not all stored; save it with "
                "tensor.contiguous()"
            )
    return found


def one_line(error: Exception) -> str:
    """Return the message of another library's error as a part of a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def unwrapped(state: State, folder: Path, family: Family) -> tuple[State, str]:
    """Name weights as the network does, without what DataParallel, torch.compile or a class around it put in front.

    An encoder beside its classifier gets the family's name back: transformers 5.9 renames no old weight without it.

    Args:
        state: weights as stored.
        folder: for the message.
        family: of the network.

    Returns:
        The weights, and the prefix that was removed.

    Raises:
        CheckpointError: there are several networks, of which none has the names that transformers gives.
    """
    prefixes = sorted({_prefix(name, family) for name in state if f".{name}".endswith(f".{family.anchor}")})
    if not prefixes or "" in prefixes:
        return _with_base(state, family), ""
    if len(prefixes) > 1:
        raise CheckpointError(
            f"{folder} holds several networks, whose weights begin with {' and '.join(map(repr, prefixes))}; save the "
            "one to export by itself, with save_pretrained"
        )
    bare = {name.removeprefix(prefixes[0]): value for name, value in state.items()}
    return _with_base(bare, family), prefixes[0]


def _with_base(state: State, family: Family) -> State:
    if family.anchor not in state or not any(name.startswith("classifier.") for name in state):
        return state
    return {name if name.startswith("classifier.") else f"{family.base}.{name}": state[name] for name in state}


def _prefix(anchor: str, family: Family) -> str:
    parts = f".{anchor}".removesuffix(f".{family.anchor}").split(".")[1:]
    if parts and parts[-1] == family.base:
        parts.pop()
    return "".join(f"{part}." for part in parts)


def require_floats(state: State, folder: Path) -> None:
    """Refuse weights that mean something only together with others: codes of quantization, parts of an adapter.

    Raises:
        CheckpointError: there are such; the message names the first.
    """
    parts = sorted(name for name in state if _OF_AN_ADAPTER.search(f".{name}"))
    if parts:
        raise CheckpointError(
            f"{folder} holds {len(parts)} weights of an adapter, the first is {parts[0]}; {merge_advice(folder)}"
        )
    scaled = any(_A_SCALE.search(name) for name in state)
    for name, value in sorted(state.items()):
        is_code = not value.is_floating_point() or (scaled and value.element_size() == 1)
        if is_code and name.endswith(_A_PARAMETER):
            raise CheckpointError(
                f"{folder}: weight {name} is stored as codes of quantization, not as floats; export the checkpoint "
                f"that was quantized, with {option('precision', 'int8')} if you like"
            )


def require_all(
    missing: Collection[str], unused: Collection[str], folder: Path, family: Family, *, has_head: bool
) -> None:
    """Refuse a checkpoint whose weights are not those of the network in its config.

    Args:
        missing: weights that the network has and the checkpoint lacks.
        unused: those that the checkpoint has and the network lacks.
        folder: for the message.
        family: of the network.
        has_head: whether the config asks for a classifier.

    Raises:
        CheckpointError: something is missing, or left over where another network would be exported without it.
    """
    if missing:
        others = f"; for {_named(unused)} the model has no place" if unused else ""
        only_head = has_head and not unused and all(name.startswith("classifier.") for name in missing)
        encoder = f'["{family.encoder}"]'
        way = f"; is it an encoder alone? Then set architectures to {encoder} in config.json" if only_head else ""
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of the model's weights, the first is {min(missing)}{others}; they would be "
            f"random, so nothing is exported{way}"
        )
    if inside := [name for name in unused if _OF_THE_ENCODER.search(name)]:
        raise CheckpointError(
            f"{folder}: config.json has no place for {len(inside)} of the encoder's weights, the first is "
            f"{min(inside)}; without them it is another network, so nothing is exported"
        )
    if not has_head and (head := [name for name in unused if name.startswith("classifier.")]):
        raise CheckpointError(
            f"{folder}: config.json asks for the encoder alone, but there is a classifier ({min(head)}); set "
            f'architectures to ["{family.classifier}"], and id2label to its labels, in config.json; '
            f"{option('outputs', 'embedding')} then leaves the classifier out"
        )


def mismatch(name: str, wanted: list[int]) -> str:
    """Return the end of a sentence about a weight of another shape than the config implies."""
    if name.endswith("position_embeddings"):
        return (
            f"num_frames, image_size and tubelet_size of config.json imply {wanted}; the network takes clips of the "
            "size that it was trained on: give that size, or resize the table (transformers cannot: "
            "interpolate_pos_encoding fails for every other number of tokens), then train on"
        )
    return f"config.json implies {wanted}; the weights and the config belong to different models"


def unused_note(unused: Collection[str], *, has_head: bool) -> str | None:
    """Return a sentence that names the weights that are not exported, or None; an encoder's pooler has no reader."""
    left = [name for name in unused if has_head or not name.startswith("pooler.")]
    if not left:
        return None
    what = "the classifier" if has_head else "the encoder alone"
    return f"not exported: {_named(left)}, for which config.json has no place; the output is that of {what}"


def _named(names: Collection[str]) -> str:
    return f"the weight {min(names)}" if len(names) == 1 else f"{len(names)} weights ({min(names)} and others)"
