"""Convert a checkpoint of Google's scenic into a folder that an export takes; without JAX, Flax or torch."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vivit_export.errors import BundleError, CheckpointError, UsageError, counted, option
from vivit_export.families.scenic.flax_file import FlaxFile, StoredArray
from vivit_export.families.scenic.network import (
    CROP,
    TITLES,
    Kind,
    Parameters,
    ScenicNetwork,
    parameters_of,
    recognize,
)
from vivit_export.families.scenic.weights import Array, Weight, weights_of
from vivit_export.files import as_path, regular_text, sha256_of, write_json
from vivit_export.folders import FolderKind, check_target, writing
from vivit_export.limits import MOST_JSON_BYTES
from vivit_export.progress import Progress, Silent
from vivit_export.records import JsonObject, parse_foreign_json, shown
from vivit_export.runtime.labels import read_labels

CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
_FILES = {CONFIG, WEIGHTS, PROCESSOR}
_ORIGIN = "converted_from"
_RESIZES = {CROP: 256, 256: 288}
"""Pixels of the shorter side before each crop of scenic's configurations; the second is Something-Something's."""
_EPIC = 300 + 97
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "F32"}


@dataclass(frozen=True, slots=True)
class Conversion:
    """A converted checkpoint.

    Attributes:
        path: its folder.
        kind: which of the paper's four networks it is.
        clip: (frames, rows, columns) of its input.
        labels: name of each logit.
        numbers: how many numbers its weights have.
        notes: what the checkpoint does not say, and was taken from scenic's configurations.
    """

    path: Path
    kind: Kind
    clip: tuple[int, int, int]
    labels: tuple[str, ...]
    numbers: int
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The network's name for people."""
        return TITLES[self.kind]

    def to_json(self) -> JsonObject:
        """Return the facts for machines."""
        facts = {"kind": self.kind, "clip": list(self.clip), "labels": list(self.labels), "parameters": self.numbers}
        return {"folder": str(self.path), **facts, "notes": list(self.notes)}


def convert_scenic(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    num_frames: int | None = None,
    classes: tuple[int, int] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write a checkpoint of scenic's ViViT as a folder in Hugging Face form.

    Joint attention becomes ``VivitForVideoClassification``; the three factorised networks become ``vivit_factorised``
    (`vivit_export.families.networks.vivit_factorised_modeling`). Weights keep the type in which they are stored, but
    bfloat16 becomes float32.

    Args:
        checkpoint: the file that scenic wrote with Flax.
        output: the folder to write, as a whole or not at all.
        labels: file with the name of each logit: one per line, or JSON.
        num_frames: frames of a clip, where the position table leaves a choice.
        classes: first and last logit of the head to keep, of several heads in one classifier.
        force: replace a folder that this wrote before.
        progress: told of the stages.

    Raises:
        CheckpointError: it is not, or not only, such a checkpoint, or is damaged; see `FlaxFile`, `parameters_of`,
            `recognize` and `ScenicNetwork.clip`.
        InputError: the labels cannot be read, or are not as many as the logits.
        OutputError: the folder exists, or cannot be written.
        UsageError: ``classes`` is not a range of the logits.
    """
    path, target, progress = as_path(checkpoint, "checkpoint"), as_path(output, "output"), progress or Silent()
    check_target(target, force, _KIND)
    with progress.stage("read the names of the parameters"):
        file = FlaxFile(path)
    with file:
        plan = _plan(file, num_frames, classes)
        names = tuple(f"LABEL_{i}" for i in range(len(plan.classes)))
        if labels is not None:
            names = read_labels(as_path(labels, "labels"), len(plan.classes))
        for text in plan.notes:
            progress.note(text)
        with progress.stage("hash the checkpoint"):
            origin = {"format": "scenic", "file": path.name, "sha256": sha256_of(path)}
        config = {**_config(plan.network, plan.clip, names), "dtype": plan.dtype, _ORIGIN: origin}
        with writing(target, force=force, kind=_KIND, note=progress.note) as folder:
            write_json(folder / CONFIG, config)
            write_json(folder / PROCESSOR, _processor(plan.clip))
            _write_weights(folder / WEIGHTS, file, plan, progress)
    return Conversion(target, plan.network.kind, plan.clip, names, plan.numbers, plan.notes)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is in a file, and what to make of it: the network, its parameters, the clip, and the logits to keep."""

    network: ScenicNetwork
    parameters: Parameters
    clip: tuple[int, int, int]
    classes: range
    weights: tuple[Weight, ...]
    notes: tuple[str, ...]

    @property
    def numbers(self) -> int:
        return sum(math.prod(weight.shape) for weight in self.weights)

    @property
    def dtype(self) -> str:
        """The type of a config whose weights are read without a loss."""
        stored = {self.parameters[weight.source].dtype for weight in self.weights}
        return "float64" if "float64" in stored else "float16" if stored == {"float16"} else "float32"


def _plan(file: FlaxFile, num_frames: int | None, classes: tuple[int, int] | None) -> _Plan:
    try:
        parameters = parameters_of(file.tree)
        network = recognize(parameters)
        clip = network.clip(num_frames)
        kept = _kept(network, classes)
    except CheckpointError as e:
        raise CheckpointError(f"{file.path}: {e.sentence}") from e
    notes = tuple(_notes(network, clip, num_frames))
    return _Plan(network, parameters, clip, kept, tuple(weights_of(network, kept)), notes)


def _write_weights(path: Path, file: FlaxFile, plan: _Plan, progress: Progress) -> None:
    """Write one weight after the other, so that no more than one is in memory."""
    with progress.counting("convert", len(plan.weights), "weights") as advance, path.open("wb") as made:
        _write_header(made, plan.weights, plan.parameters)
        for weight in plan.weights:
            made.write(_bytes_of(file, plan.parameters[weight.source], weight))
            advance(1)


def _kept(network: ScenicNetwork, classes: tuple[int, int] | None) -> range:
    """Return the logits to keep."""
    if classes is None:
        if network.kind == "encoder" and network.classes == _EPIC:
            raise CheckpointError(
                f"the classifier has {_EPIC} logits, as scenic's for Epic Kitchens, which are two heads: 300 nouns and "
                "97 verbs, each with a softmax of its own; convert one of them: "
                f"{option('classes', '0-299')} or {option('classes', '300-396')} (or all, as one head: "
                f"{option('classes', '0-396')})"
            )
        return range(network.classes)
    first, last = classes
    if not 0 <= first <= last < network.classes:
        raise UsageError(
            f"{option('classes', f'{first}-{last}')} is not part of the logits, which are 0-{network.classes - 1}"
        )
    return range(first, last + 1)


def _notes(network: ScenicNetwork, clip: tuple[int, int, int], num_frames: int | None) -> Iterator[str]:
    """Yield what a reader of the checkpoint cannot know from it."""
    frames, height, width = clip
    if num_frames is None and network.kind != "encoder":
        yield (
            f"taken for clips of {frames} frames of {height} x {width} pixels, which scenic's configurations crop; the "
            "position table does not say"
        )
    if network.kind == "self_attention":
        yield "taken to attend over time first, scenic's default; if not, set attention_order in config.json"
    if network.kind == "dot_product":
        yield "taken for heads that attend over time or space; joint attention without a class token looks the same"
    if not (height == width and height in _RESIZES):
        yield (
            f"frames are resized to {_resize(clip)} pixels before the crop, in the proportion of scenic's "
            f"configurations ({_RESIZES[CROP]} for {CROP}); the checkpoint does not say"
        )
    yield (
        "the checkpoint does not say how frames are drawn: scenic's configurations for Kinetics take every 2nd frame "
        "(stride 2), the others every one"
    )


def _resize(clip: tuple[int, int, int]) -> int:
    side = max(clip[1:])
    return _RESIZES.get(side) or round(side * _RESIZES[CROP] / CROP)


def _config(network: ScenicNetwork, clip: tuple[int, int, int], labels: Sequence[str]) -> JsonObject:
    frames, height, width = clip
    first = network.stacks[0]
    config: JsonObject = {
        "architectures": ["VivitForVideoClassification"],
        "model_type": "vivit",
        "hidden_size": network.hidden,
        "num_hidden_layers": first.layers,
        "num_attention_heads": first.heads,
        "intermediate_size": first.inner,
        "num_frames": frames,
        "image_size": height if height == width else [height, width],
        "tubelet_size": list(network.tubelet),
        "num_channels": 3,
        "hidden_act": "gelu_fast",  # the tanh form, as jax.nn.gelu
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
        "problem_type": "single_label_classification",
    }
    if network.kind == "joint":
        return config
    config |= {
        "architectures": ["VivitFactorisedForVideoClassification"],
        "model_type": "vivit_factorised",
        "factorisation": network.kind,
    }
    if network.kind == "self_attention":
        config["attention_order"] = "time_space"
    if network.kind == "encoder":
        second = network.stacks[1]
        config |= {
            "temporal_num_hidden_layers": second.layers,
            "temporal_num_attention_heads": second.heads,
            "temporal_intermediate_size": second.inner,
        }
    return config


def _processor(clip: tuple[int, int, int]) -> JsonObject:
    """Return what scenic does to a frame: the shorter side to 256, say, the middle 224 x 224, values from -1 to 1.

    ``offset`` subtracts one from values of 0 to 2. There is no further mean or deviation: transformers' own conversion
    found the same (its default processor would normalize again, to values from -3).
    """
    return {
        "image_processor_type": "VivitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": _resize(clip)},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": clip[1], "width": clip[2]},
        "do_rescale": True,
        "rescale_factor": 1 / 127.5,
        "offset": True,
        "do_normalize": False,
    }


def _write_header(file: BinaryIO, weights: Sequence[Weight], parameters: Parameters) -> None:
    """Write the beginning of a safetensors file (https://huggingface.co/docs/safetensors)."""
    header: JsonObject = {"__metadata__": {"format": "pt"}}
    end = 0
    for weight in weights:
        dtype = _DTYPES[parameters[weight.source].dtype]
        begin, end = end, end + math.prod(weight.shape) * int(dtype[1:]) // 8
        header[weight.name] = {"dtype": dtype, "shape": list(weight.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)


def _bytes_of(file: FlaxFile, parameter: StoredArray, weight: Weight) -> bytes:
    array: Array = file.read(parameter)
    bad = int(np.count_nonzero(~np.isfinite(array.astype(np.float64))))
    if bad:
        raise CheckpointError(
            f"{file.path}: {weight.source} has {counted(bad, 'NaN or infinite values')}; the checkpoint is damaged"
        )
    made = np.ascontiguousarray(weight.of(array))
    assert made.shape == weight.shape
    return made.tobytes()


def _listed(folder: Path) -> set[str]:
    """Return the files of a folder that `convert_scenic` wrote."""
    path = folder / CONFIG
    try:
        config = parse_foreign_json(regular_text(path, MOST_JSON_BYTES))
    except (OSError, ValueError) as e:
        raise BundleError(f"{path} cannot be read as JSON: {e}") from e
    if not isinstance(config, dict) or _ORIGIN not in config:
        raise BundleError(f"{folder} was not converted: {CONFIG} has no {shown(_ORIGIN)}")
    return _FILES


_KIND = FolderKind("converted checkpoint", _listed)
