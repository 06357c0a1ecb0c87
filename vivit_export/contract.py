"""The contract: everything a caller must know about the input and output of a model.

It is read once from the checkpoint, stored in ``bundle.json`` and read back by every
consumer (Python runtime, Triton, C++). No other module writes down a fact about the input.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from vivit_export.errors import InputError, counted
from vivit_export.limits import (
    LARGEST_FACTOR,
    LONGEST_LABEL,
    MOST_CAMERA_SIDE,
    MOST_CLIP_BYTES,
    MOST_FRAMES,
    MOST_SIDE,
    MOST_STRIDE,
    MOST_VIEWS,
    MOST_WIDTH,
)
from vivit_export.records import JsonObject, from_json, shortly, shown, to_json

InputMode = Literal["crops", "pixels", "frames"]
ResizeOrder = Literal["horizontal-first", "pillow-13"]
Sampling = Literal["uniform", "center", "head", "stride"]
Short = Literal["refuse", "repeat", "loop"]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
Task = Literal["single_label_classification", "multi_label_classification", "regression"]
"""What the logits mean, as ``problem_type`` of a Hugging Face config names it."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Geometry of one clip for the network, and how it is drawn from a video.

    Attributes:
        num_frames: frames per clip (T), fixed by the checkpoint.
        height: rows of a frame after cropping, in pixels.
        width: columns of a frame after cropping, in pixels.
        tubelet_size: (t, h, w) extent of one token.
        sampling: rule that draws T frames from a video of N (`vivit_export.runtime.clips.sampling` has
            the formulas): ``uniform`` over the whole video, ``center`` or ``head`` for T
            consecutive frames, ``stride`` for every ``stride``-th frame around the middle.
        stride: distance between frames, for sampling ``stride``; 1 elsewhere.
        short: what to do with a video that has too few frames: ``refuse`` it, ``repeat`` its last
            frame, or ``loop`` it.
        views: (temporal, spatial) clips per video whose logits are averaged: temporal windows
            equally spaced (1, or any number with sampling ``stride``), and 1 (center) or 3 (start,
            center, end) crops along the longer side.
    """

    num_frames: int
    height: int
    width: int
    tubelet_size: tuple[int, int, int]
    sampling: Sampling = "uniform"
    stride: int = 1
    short: Short = "refuse"
    views: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        sides = (self.num_frames, self.height, self.width)
        for name, side, tube in zip(("num_frames", "height", "width"), sides, self.tubelet_size, strict=True):
            if side < 1 or tube < 1 or side % tube:
                raise InputError(
                    f"clip {name}={side} is not a positive multiple of the tubelet's {tube}; "
                    "image_size, num_frames and tubelet_size of the config must divide"
                )
        side = max(self.height, self.width)
        if self.num_frames > MOST_FRAMES or side > MOST_SIDE or self.num_bytes > MOST_CLIP_BYTES:
            raise InputError(
                f"clip of {self.num_frames} frames of {self.height}x{self.width} (height x width) is too large; at "
                f"most {MOST_FRAMES} frames, {MOST_SIDE} pixels a side and {MOST_CLIP_BYTES >> 20} MiB are possible"
            )
        if self.stride > MOST_STRIDE:
            raise InputError(f"clip stride={self.stride} is too large; at most {MOST_STRIDE} is possible")
        if self.stride < 1 or (self.stride > 1 and self.sampling != "stride"):
            raise InputError(
                f"clip stride={self.stride} with sampling={self.sampling}; stride is 1 or more, and more than 1 only "
                "with sampling=stride"
            )
        temporal, spatial = self.views
        if temporal < 1 or spatial not in (1, 3):
            raise InputError(f"clip views={temporal}x{spatial}; 1 or more temporal and 1 or 3 spatial views are needed")
        if temporal > MOST_VIEWS:
            raise InputError(f"clip views={temporal}x{spatial}; at most {MOST_VIEWS} temporal views are possible")
        if temporal > 1 and self.sampling != "stride":
            raise InputError(
                f"clip views={temporal}x{spatial} with sampling={self.sampling}; several temporal views need "
                "sampling=stride (the paper's protocol is stride 2, views 4x3)"
            )

    @property
    def num_tubelets(self) -> int:
        """How many tubelets a clip is cut into; each becomes one token."""
        t, h, w = self.tubelet_size
        return (self.num_frames // t) * (self.height // h) * (self.width // w)

    @property
    def num_bytes(self) -> int:
        """Bytes of one uint8 clip (T, H, W, 3)."""
        return self.num_frames * self.height * self.width * 3


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The fields of ``VivitImageProcessor``, from the checkpoint's own JSON.

    The order of the steps is fixed: resize (uint8, Pillow), center crop (zero padded),
    rescale, offset, normalize.

    Attributes:
        do_resize: whether frames are resized at all.
        shortest_edge: target of the short side in pixels, or None if ``size`` applies.
        size: (height, width) target, or None if ``shortest_edge`` applies.
        resample: Pillow filter number (0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box,
            5 hamming).
        do_center_crop: whether the resized frame is cropped (or padded) to ``crop_size``.
        crop_size: (height, width) of the crop.
        do_rescale: multiply by ``rescale_factor``.
        rescale_factor: factor on the 0..255 pixel value.
        offset: subtract one after rescaling.
        do_normalize: ``(x - mean) / std`` per channel.
        mean: per channel R, G, B.
        std: per channel R, G, B.
        resize_order: which pass of the separable resize runs first; Pillow changed it in
            13.0. ``horizontal-first``: always. ``pillow-13``: vertical first if and only if
            ``H - oh > 0`` and ``H - oh > 2 * (W - ow)``.
        processor: class name in the checkpoint that these fields were read for.
    """

    do_resize: bool = True
    shortest_edge: int | None = None
    size: tuple[int, int] | None = None
    resample: int = 2
    do_center_crop: bool = True
    crop_size: tuple[int, int] = (224, 224)
    do_rescale: bool = True
    rescale_factor: float = 1 / 127.5
    offset: bool = True
    do_normalize: bool = True
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resize_order: ResizeOrder = "pillow-13"
    processor: str = "VivitImageProcessor"

    def __post_init__(self) -> None:
        sides = (*self.crop_size, *(self.size or ()), 1 if self.shortest_edge is None else self.shortest_edge)
        if min(sides) < 1:
            raise InputError(
                f"preprocess: sizes must be 1 pixel or more, got shortest_edge={self.shortest_edge}, "
                f"size={self.size}, crop_size={self.crop_size}"
            )
        if max(sides) > MOST_SIDE:
            raise InputError(
                f"preprocess: sizes must be {MOST_SIDE} pixels or less, got shortest_edge={self.shortest_edge}, "
                f"size={self.size}, crop_size={self.crop_size}"
            )
        if self.do_resize and (self.shortest_edge is None) == (self.size is None):
            raise InputError(
                "preprocess: exactly one of size.shortest_edge and size.height/width is needed, "
                f"got shortest_edge={self.shortest_edge} and size={self.size}"
            )
        if self.resample not in range(6):
            raise InputError(f"preprocess: resample={self.resample} is not a Pillow filter (0 to 5)")
        if self.do_normalize and any(s == 0 for s in self.std):
            raise InputError(f"preprocess: image_std={list(self.std)} contains a zero; normalizing would divide by it")
        factors = max(map(abs, (self.rescale_factor, *self.mean, *self.std)))
        if factors > LARGEST_FACTOR or (self.do_normalize and min(map(abs, self.std)) < 1 / LARGEST_FACTOR):
            raise InputError(
                "preprocess: rescale_factor, image_mean and image_std do not make pixel values; none may be beyond "
                f"{LARGEST_FACTOR:.0e}, and no deviation below {1 / LARGEST_FACTOR:.0e}"
            )
        if self.offset and not self.do_rescale:
            raise InputError("preprocess: offset=true needs do_rescale=true (VivitImageProcessor refuses it too)")

    @property
    def produces(self) -> tuple[int, int] | None:
        """(height, width) of every output frame, or None if it depends on the video."""
        if self.do_center_crop:
            return self.crop_size
        return self.size if self.do_resize else None


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of the graph.

    Attributes:
        name: as in the graph.
        dtype: NumPy's name of its type, such as ``uint8``.
        shape: numbers, and names for dynamic dimensions.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class IO:
    """The graph's signature.

    Attributes:
        mode: what the input holds (design §6). ``crops``: uint8 (B, T, H, W, 3), resized and
            cropped; ``pixels``: float32 (B, T, 3, H, W), fully preprocessed; ``frames``:
            uint8 (B, T, h, w, 3) at ``frame_size``.
        inputs: exactly one tensor.
        outputs: ``logits`` float32 (B, num_labels) and/or ``embedding`` float32 (B, hidden).
        frame_size: (height, width) of a ``frames`` input, else None.
    """

    mode: InputMode
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    frame_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) != 1:
            raise InputError(f"io: a model has exactly one input, got {len(self.inputs)}")
        if not _NAME.fullmatch(self.inputs[0].name):  # also the name of a file, of Triton's warm-up
            raise InputError(
                f"io: the input's name {shown(self.inputs[0].name)} is not possible; 1 to 64 letters, digits, '_', '-' "
                "and '.' are, with no '.' or '-' in front"
            )
        if (self.mode == "frames") != (self.frame_size is not None):
            raise InputError(f"io: frame_size belongs to mode frames alone, got {self.frame_size} with {self.mode}")
        if self.frame_size is not None and not 1 <= min(self.frame_size) <= max(self.frame_size) <= MOST_CAMERA_SIDE:
            raise InputError(f"io: frame_size={self.frame_size} is not 1 to {MOST_CAMERA_SIDE} pixels a side")
        names = [tensor.name for tensor in self.outputs]
        for tensor in self.outputs:
            if not _is_output(tensor) or names.count(tensor.name) > 1:
                raise InputError(
                    f"io: output {described(tensor)} is not possible; outputs are logits and embedding, each once, "
                    f"float32 ['batch', 1 to {MOST_WIDTH}]"
                )


def described(tensor: Tensor) -> str:
    """Return name, type and shape, for a message."""
    return f"{shortly(tensor.name)} {shortly(tensor.dtype)} {shown(list(tensor.shape))}"


def _is_output(tensor: Tensor) -> bool:
    return (
        tensor.name in ("logits", "embedding")
        and tensor.dtype == "float32"
        and len(tensor.shape) == 2
        and isinstance(tensor.shape[0], str)
        and isinstance(tensor.shape[1], int)
        and 1 <= tensor.shape[1] <= MOST_WIDTH
    )


@dataclass(frozen=True, slots=True, repr=False)
class Contract:
    """Clip, preprocessing, signature and labels of one model; converts to and from plain JSON.

    Attributes:
        clip: geometry and sampling.
        preprocess: pixel pipeline.
        io: graph signature.
        labels: name of each logit, in order; empty for a model without a head.
        task: what the logits mean. ``single_label_classification``: their softmax is one distribution over the
            labels; ``multi_label_classification``: the sigmoid of each is the probability of its label;
            ``regression``: each is a value.
    """

    clip: Clip
    preprocess: Preprocess
    io: IO
    labels: tuple[str, ...] = field(default=())
    task: Task = "single_label_classification"

    def __repr__(self) -> str:
        clip, labels = self.clip, counted(len(self.labels), "labels")
        return f"<Contract: {clip.num_frames} frames of {clip.height}x{clip.width} by {clip.sampling}, {labels}>"

    def __post_init__(self) -> None:
        require_agreement(self.clip, self.preprocess)
        _require_input(self.clip, self.io)
        logits = next((t.shape[-1] for t in self.io.outputs if t.name == "logits"), None)
        if logits is not None and logits != len(self.labels):
            raise InputError(
                f"there are {len(self.labels)} labels for {logits} logits; id2label of the config is wrong"
            )
        for i, label in enumerate(self.labels):
            if len(label) > LONGEST_LABEL:
                raise InputError(f"label {i} has {len(label)} characters; at most {LONGEST_LABEL} are possible")

    def to_json(self) -> JsonObject:
        """Return a dict of JSON types."""
        return dict(to_json(self))

    @classmethod
    def from_json(cls, data: JsonObject) -> Contract:
        """Rebuild a contract from `to_json`.

        Raises:
            InputError: a field is missing, unknown, or of the wrong type.
        """
        return from_json(cls, data, "contract")


def require_agreement(clip: Clip, preprocess: Preprocess) -> None:
    """Refuse a processor whose frames do not fit the network.

    Raises:
        InputError: the sizes differ.
    """
    produced = preprocess.produces
    if produced is not None and produced != (clip.height, clip.width):
        raise InputError(
            f"the processor makes frames of {produced[0]}x{produced[1]} (height x width) but the model takes "
            f"{clip.height}x{clip.width}; make preprocessor_config.json and config.json agree"
        )


def _require_input(clip: Clip, io: IO) -> None:
    """Refuse an input that does not take the clip; the first dimension, the batch, is a name."""
    height, width = io.frame_size or (clip.height, clip.width)
    frames = ("uint8", ("batch", clip.num_frames, height, width, 3))
    pixels = ("float32", ("batch", clip.num_frames, 3, clip.height, clip.width))
    dtype, shape = pixels if io.mode == "pixels" else frames
    (tensor,) = io.inputs
    if (
        not tensor.shape
        or not isinstance(tensor.shape[0], str)
        or (tensor.dtype, tensor.shape[1:]) != (dtype, shape[1:])
    ):
        raise InputError(
            f"io: input {described(tensor)} does not take the clip; mode {io.mode} takes {dtype} {list(shape)}"
        )
