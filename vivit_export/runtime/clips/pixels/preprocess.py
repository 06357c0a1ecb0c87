"""Turn frames into pixel values, bit-equal to ``VivitImageProcessor``, without transformers.

Two facts make this both exact and fast. First, Pillow resizes 8-bit images in two independent passes with
8-bit pixels in between. Each pass can therefore run as a one-axis resize, on only the pixels that the crop
depends on, in the order that the contract records, with any version of Pillow. Second, everything after the
resize is a function of one 8-bit value per channel (see `vivit_export.runtime.clips.pixels.levels`).
`vivit_export.runtime.clips.video.frames` reads the videos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vivit_export.arguments import instance
from vivit_export.contract import Clip, Preprocess, require_agreement
from vivit_export.cores import usable_cores
from vivit_export.errors import ClipError
from vivit_export.files import as_path
from vivit_export.limits import MOST_RESIZED_PIXELS
from vivit_export.runtime.clips.pixels.arrays import as_array, described
from vivit_export.runtime.clips.pixels.axes import Axis, crop_axis, resized_size
from vivit_export.runtime.clips.pixels.levels import fewest_steps, make_table
from vivit_export.runtime.clips.pixels.processor_config import read_clip_geometry, read_preprocess

if TYPE_CHECKING:
    from vivit_export.bundle import Bundle

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Frames = UInt8 | Sequence[UInt8] | Sequence[Image.Image]
_Images = UInt8 | Sequence[Any]  # checked, each a uint8 array (h, w, 3) or an RGB Pillow image

# A frame is resized in strips of about 1 MiB: a whole one would cost fresh pages each time.
_STRIP_PIXELS = 1 << 18
_X, _Y = 0, 1


class Preprocessor:
    """The pixel pipeline of one checkpoint.

    Attributes:
        clip: geometry of the network's input.
        preprocess: the processor's fields.
        table: float32 (3, 256), read-only: the pixel value of each 8-bit level, per channel R, G, B.
    """

    def __init__(self, clip: Clip, preprocess: Preprocess) -> None:
        clip, preprocess = instance("clip", clip, Clip), instance("preprocess", preprocess, Preprocess)
        require_agreement(clip, preprocess)
        self.clip = clip
        self.preprocess = preprocess
        self.table = make_table(preprocess)
        self._steps = fewest_steps(preprocess, self.table)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Preprocessor:
        """Read ``config.json`` and the processor's JSON of a local checkpoint.

        Raises:
            InputError: the folder is not a usable ViViT checkpoint.
            UsageError: it is not a path.
        """
        folder = as_path(folder, "folder")
        clip = read_clip_geometry(folder)
        return cls(clip, read_preprocess(folder, default_crop=(clip.height, clip.width)))

    @classmethod
    def from_bundle(cls, bundle: str | Path | Bundle) -> Preprocessor:
        """Read the contract of an exported bundle.

        Args:
            bundle: its folder, or what `read_bundle` returned.

        Raises:
            BundleError: not a bundle, or one that was altered.
        """
        from vivit_export.bundle import Bundle, read_bundle

        contract = (bundle if isinstance(bundle, Bundle) else read_bundle(bundle)).contract
        return cls(contract.clip, contract.preprocess)

    def __call__(self, frames: Frames) -> Float32:
        """Do the whole pipeline on one clip.

        Args:
            frames: as for `crops`.

        Returns:
            float32 (1, T, 3, H, W), bit-equal to ``VivitImageProcessor(list(frames))``.

        Raises:
            ClipError: the frames do not fit the model.
        """
        return self.to_pixels(self.crops(frames)[None])

    def crops(self, frames: Frames, position: float = 0.5) -> UInt8:
        """Resize and crop one clip, for an engine with the input ``crops``.

        Args:
            frames: T frames of one size: a uint8 array (T, h, w, 3), a list of uint8 arrays
                (h, w, 3), or a list of RGB Pillow images; RGB order, 0 to 255. Not modified. Tensors of other
                libraries count as arrays if NumPy can read them, as those of PyTorch on the CPU. The last axis
                is always the channels: ``VivitImageProcessor`` would take the first one of frames that are 1 or
                3 pixels high, unless it is told ``input_data_format="channels_last"``.
            position: position of the crop along the longer side of the resized frame: 0.0 start
                (top or left), 0.5 center, as in ``VivitImageProcessor``, 1.0 end.

        Returns:
            uint8 (T, H, W, 3); zero where the crop reaches beyond the frame.

        Raises:
            ClipError: another type, dtype, layout or number of frames; frames of several sizes; or
                a size that the pipeline does not bring to H x W.
        """
        images, height, width = self._check(frames)
        rows, columns = self.axes(height, width, position)
        out = np.empty((len(images), rows.length, columns.length, 3), np.uint8)
        _in_threads(lambda i: self._fill(out[i], np.asarray(images[i]), rows, columns), len(images))
        return out

    def crop(self, frame: UInt8 | Image.Image, position: float = 0.5) -> UInt8:
        """Resize and crop one frame, for callers that receive frames one by one.

        Args:
            frame: as one of the frames of `crops`.
            position: as for `crops`.

        Returns:
            uint8 (H, W, 3): the same frame as from `crops`.

        Raises:
            ClipError: as for `crops`.
        """
        out = np.empty((self.clip.height, self.clip.width, 3), np.uint8)
        self.write(frame, out, position)
        return out

    def write(self, frame: UInt8 | Image.Image, out: npt.NDArray[Any], position: float = 0.5) -> None:
        """Resize and crop one frame straight to its place, such as that in a batch.

        Args:
            frame: as one of the frames of `crops`.
            out: uint8 (H, W, 3) for the crop, or float32 (3, H, W) for its normalized pixels; whatever it holds is
                overwritten.
            position: as for `crops`.

        Raises:
            ClipError: as for `crops`.
        """
        frame = as_array(frame)
        rows, columns = self.axes(*_frame_size(frame, 0), position)
        if out.dtype == np.uint8:
            self._fill(out, np.asarray(frame), rows, columns)
        else:
            crop = np.empty((rows.length, columns.length, 3), np.uint8)
            self._fill(crop, np.asarray(frame), rows, columns)
            self.normalize(crop, out)

    def write_clip(self, frames: Frames, out: npt.NDArray[Any]) -> None:
        """Do `write` for each frame of a clip, in this thread.

        Args:
            frames: as for `crops`.
            out: uint8 (T, H, W, 3), or float32 (T, 3, H, W).

        Raises:
            ClipError: as for `crops`.
        """
        images, _, _ = self._check(frames)
        for image, place in zip(images, out, strict=True):
            self.write(image, place)

    def _fill(self, out: UInt8, frame: UInt8, rows: Axis, columns: Axis) -> None:
        """Write the crop of ``frame`` to ``out`` (H, W, 3), over whatever that holds."""
        inner = out[rows.pad : rows.pad + rows.kept, columns.pad : columns.pad + columns.kept]
        if inner.shape != out.shape:
            out[...] = 0
        # Pillow returns a copy of an image that has the size already, as Kinetics often has.
        if (rows.source, columns.source) != (rows.resized, columns.resized):
            first = _Y if self.vertical_first(rows, columns) else _X
            inner[...] = _resize_crop(frame, (columns, rows), first, self.preprocess.resample)
        else:
            inner[...] = frame[rows.start : rows.stop, columns.start : columns.stop]

    def to_pixels(self, crops: UInt8) -> Float32:
        """Rescale, offset and normalize crops.

        Args:
            crops: uint8 (B, T, H, W, 3), from `crops`.

        Returns:
            float32 (B, T, 3, H, W), for an engine with the input ``pixels``.

        Raises:
            ClipError: another dtype or shape.
        """
        shape = (self.clip.num_frames, self.clip.height, self.clip.width, 3)
        crops = as_array(crops)
        if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8 or crops.shape[1:] != shape:
            needed = "(B, " + ", ".join(map(str, shape)) + ")"
            raise ClipError(f"crops must be a uint8 array {needed}, got {described(crops)}")
        out = np.empty((*crops.shape[:2], 3, *crops.shape[2:4]), np.float32)
        images = crops.reshape(-1, *shape[1:])
        planes = out.reshape(-1, 3, *shape[1:3])
        _in_threads(lambda i: self.normalize(images[i], planes[i]), len(images))
        return out

    def normalize(self, crops: UInt8, out: Float32) -> None:
        """Rescale, offset and normalize crops straight to their place, such as that in a batch, in this thread.

        Args:
            crops: uint8 (..., H, W, 3), from `crops` or `crop`.
            out: float32 (..., 3, H, W); whatever it holds is overwritten.
        """
        if crops.ndim > 3:  # frame by frame, each of which stays in the processor's cache
            for crop, place in zip(crops, out, strict=True):
                self.normalize(crop, place)
            return
        if self._steps is not None:
            out[...] = crops.transpose(2, 0, 1)
            for step in self._steps:
                step.apply(out)
            return
        for channel in range(3):
            # All indices are in range; without a mode NumPy would buffer the whole output.
            np.take(self.table[channel], crops[:, :, channel], out=out[channel], mode="clip")

    def _check(self, frames: Frames) -> tuple[_Images, int, int]:
        """Return the frames and their common (height, width)."""
        frames = [as_array(frame) for frame in frames] if isinstance(frames, (list, tuple)) else as_array(frames)
        if isinstance(frames, np.ndarray):
            if frames.ndim != 4:
                raise ClipError(f"frames must be an array (T, h, w, 3) or a list of frames, got {described(frames)}")
        elif not isinstance(frames, (list, tuple)):
            raise ClipError(
                "frames must be a uint8 array (T, h, w, 3), a list of uint8 arrays (h, w, 3) or a list of RGB "
                f"Pillow images, got {described(frames)}"
            )
        if len(frames) != self.clip.num_frames:
            raise ClipError(
                f"the clip has {len(frames)} frames but the model takes {self.clip.num_frames}; sample the video "
                "with read_clip, or pick that many frames"
            )
        sizes = [_frame_size(frame, i) for i, frame in enumerate(frames)]
        for i, size in enumerate(sizes):
            if size != sizes[0]:
                raise ClipError(
                    f"frame {i} is {_by(size)} but frame 0 is {_by(sizes[0])} (height x width); the frames of a clip "
                    "must have one size"
                )
        return frames, sizes[0][0], sizes[0][1]

    def axes(self, height: int, width: int, position: float = 0.5) -> tuple[Axis, Axis]:
        """Return the axes (rows, columns) that lead from a frame of this size to its crop.

        Args:
            height: rows of the frame.
            width: columns of the frame.
            position: as for `crops`; in a square the longer side is the height.

        Raises:
            ClipError: the pipeline does not turn that size into H x W.
            ValueError: a position outside [0, 1].
        """
        if not 0 <= position <= 1:
            raise ValueError(f"a crop's position is from 0.0 (start) to 1.0 (end), got {position = }")
        p, clip = self.preprocess, self.clip
        resized = resized_size(height, width, p) if p.do_resize else (height, width)
        if p.do_resize and resized[0] * resized[1] > MOST_RESIZED_PIXELS:
            raise ClipError(
                f"frames of {_by((height, width))} (height x width) would become {_by(resized)}, more than "
                f"{MOST_RESIZED_PIXELS} pixels; crop the video to a usual aspect ratio"
            )
        target = p.crop_size if p.do_center_crop else resized
        if target != (clip.height, clip.width):
            raise ClipError(
                f"frames of {_by((height, width))} become {_by(target)} but the model takes "
                f"{_by((clip.height, clip.width))} (height x width), and the processor does not crop; give frames "
                "that end up at that size, or set do_center_crop in preprocessor_config.json and export again"
            )
        down, right = (position, 0.5) if resized[0] >= resized[1] else (0.5, position)
        return crop_axis(height, resized[0], target[0], down), crop_axis(width, resized[1], target[1], right)

    def vertical_first(self, rows: Axis, columns: Axis) -> bool:
        """Return whether the rows are resized before the columns, by the contract's ``resize_order``."""
        shrink = rows.source - rows.resized
        return self.preprocess.resize_order == "pillow-13" and shrink > max(0, 2 * (columns.source - columns.resized))


def _resize_crop(frame: UInt8, axes: tuple[Axis, Axis], first: int, resample: int) -> UInt8:
    """Resize a frame and keep the part inside the crop.

    Args:
        frame: uint8 (h, w, 3).
        axes: columns (x) and rows (y).
        first: the axis whose pass runs first, 0 for x or 1 for y.
        resample: Pillow filter number.

    Returns:
        uint8 (rows.kept, columns.kept, 3), the pixels of one ``Image.resize`` call cut to the crop.
    """
    second = 1 - first
    low, high = axes[second].needed(resample)
    # Full length along the second axis, because that fixes the second pass's weights; the pixels
    # outside [low, high) stay black and only reach pixels outside the crop.
    canvas = Image.new("RGB", _pair(first, axes[first].kept, axes[second].source))
    # Strips of one size, so that one image holds each in turn; the last overlaps the one before.
    step = min(high - low, max(1, _STRIP_PIXELS // axes[first].source))
    strip = Image.new("RGB", _pair(first, axes[first].source, step))
    for start in range(low, high, step):
        at = min(start, high - step)
        strip.frombytes(np.ascontiguousarray(frame[at : at + step] if first == _X else frame[:, at : at + step]))
        canvas.paste(_one_pass(strip, axes[first], first, resample), _pair(first, 0, at))
    return np.asarray(_one_pass(canvas, axes[second], second, resample))


def _one_pass(image: Image.Image, axis: Axis, which: int, resample: int) -> Image.Image:
    """Resize along one axis, then cut it to what the crop keeps. Pillow skips the other axis's pass."""
    across = image.size[1 - which]
    resized = image.resize(_pair(which, axis.resized, across), resample)
    return resized.crop((*_pair(which, axis.start, 0), *_pair(which, axis.stop, across)))


def _pair(which: int, along: int, across: int) -> tuple[int, int]:
    """(x, y) from the coordinate along axis ``which`` and the one across it."""
    return (along, across) if which == _X else (across, along)


def _frame_size(frame: Any, index: int) -> tuple[int, int]:
    if isinstance(frame, Image.Image):
        if frame.mode != "RGB":
            raise ClipError(f"frame {index} is a Pillow image of mode {frame.mode}; convert it with .convert('RGB')")
        frame.load()  # reads a lazily opened file here, not in several threads
        return frame.height, frame.width
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        raise ClipError(
            f"frame {index} is {described(frame)}, but uint8 RGB from 0 to 255 is needed; convert it first "
            "(a float image in [0, 1]: (x * 255).round().astype('uint8'))"
        )
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ClipError(f"frame {index} has shape {frame.shape}, but (height, width, 3) is needed: RGB, channels last")
    if 0 in frame.shape:
        raise ClipError(f"frame {index} has shape {frame.shape}: it holds no pixels")
    return frame.shape[0], frame.shape[1]


def _by(size: tuple[int, int] | None) -> str:
    return "x".join(map(str, size or ()))


def _in_threads(function: Callable[[int], None], count: int) -> None:
    """Call ``function(0..count-1)``; Pillow and NumPy release the interpreter lock in their loops."""
    workers = min(usable_cores(), 8, count)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for _ in pool.map(function, range(count)):
            pass
