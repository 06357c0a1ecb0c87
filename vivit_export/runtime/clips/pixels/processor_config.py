"""Read a checkpoint's preprocessing and clip geometry from its own JSON, without transformers.

The reference is ``VivitImageProcessor`` (Pillow and NumPy): a field that the JSON lacks takes that
class's default, as it does when transformers loads the same file. Anything that the class would refuse
at its first frame is refused here. ``VivitVideoProcessor`` (torchvision) computes differently, by a level
here and there; its JSON is read for its fields only.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import PIL

from vivit_export.contract import Clip, Preprocess, ResizeOrder
from vivit_export.errors import CheckpointError
from vivit_export.files import regular_text
from vivit_export.limits import MOST_JSON_BYTES
from vivit_export.records import JsonObject, parse_foreign_json, shortly, shown

_IMAGE_PROCESSORS = ("VivitImageProcessor", "VivitImageProcessorFast")  # Fast: an alias since transformers 5.0
_VIDEO_PROCESSOR = "VivitVideoProcessor"
# Where transformers looks, in its order: a nested processor_config.json wins over its older siblings.
_SOURCES = (
    ("processor_config.json", "image_processor", _IMAGE_PROCESSORS[0]),
    ("preprocessor_config.json", None, _IMAGE_PROCESSORS[0]),
    ("processor_config.json", "video_processor", _VIDEO_PROCESSOR),
    ("video_preprocessor_config.json", None, _VIDEO_PROCESSOR),
)


def read_preprocess(folder: str | Path, default_crop: tuple[int, int]) -> Preprocess:
    """Read the pixel pipeline of a checkpoint.

    Args:
        folder: a checkpoint in Hugging Face form.
        default_crop: (height, width) of the model's input: recorded as the crop if the JSON
            switches cropping off, and named in the message if there is no JSON at all. It never
            replaces a missing ``crop_size``; that is 224 x 224, as in transformers.

    Returns:
        The fields, with the resize order of the Pillow that is installed.

    Raises:
        CheckpointError: no processor JSON, an unreadable one, another processor class, or a value
            that ``VivitImageProcessor`` cannot work with.
    """
    fields, origin, kind = _find_fields(Path(folder), default_crop)
    name = _processor_name(fields, origin, kind)
    is_video = name == _VIDEO_PROCESSOR
    if is_video:  # the video class replaces null by its default, the image class keeps it
        fields = {key: value for key, value in fields.items() if value is not None}
    do_resize, do_center_crop = _flag(fields, "do_resize", origin), _flag(fields, "do_center_crop", origin)
    do_rescale, do_normalize = _flag(fields, "do_rescale", origin), _flag(fields, "do_normalize", origin)
    # The video class has no offset field: it subtracts one whenever it rescales.
    offset = _flag(fields, "offset", origin, default=do_rescale if is_video else True)
    if offset and not do_rescale:
        raise CheckpointError(f"{origin}: offset needs do_rescale; set do_rescale to true or offset to false")
    shortest_edge, size = _size(fields, origin) if do_resize else (None, None)
    mean, std = (_channels(fields, key, origin, do_normalize) for key in ("image_mean", "image_std"))
    return Preprocess(
        do_resize=do_resize,
        shortest_edge=shortest_edge,
        size=size,
        resample=_resample(fields, origin) if do_resize else 2,
        do_center_crop=do_center_crop,
        crop_size=_crop_size(fields, origin) if do_center_crop else default_crop,
        do_rescale=do_rescale,
        rescale_factor=_number(fields.get("rescale_factor", 1 / 127.5), "rescale_factor", origin)
        if do_rescale
        else 1 / 127.5,
        offset=offset,
        do_normalize=do_normalize,
        mean=mean,
        std=std,
        resize_order=installed_resize_order(),
        processor=name,
    )


def doubt_about(preprocess: Preprocess) -> str | None:
    """Return a sentence about pixel values that no network was trained on, or None.

    ``offset`` subtracts one, which centers values of 0 to 2 (a ``rescale_factor`` of 1/127.5). After 1/255, the
    default of transformers 4.31, white is 0 and all else below.
    """
    white = 255 * preprocess.rescale_factor - 1
    if not (preprocess.do_rescale and preprocess.offset) or white > 0.5:
        return None
    ends = [(-1.0, white)] * 3
    if preprocess.do_normalize:
        ends = [((-1 - m) / s, (white - m) / s) for m, s in zip(preprocess.mean, preprocess.std, strict=True)]
    low, high = min(map(min, ends)), max(map(max, ends))
    return (
        f"the processor's rescale_factor {preprocess.rescale_factor:.6g} and offset true give pixel values from "
        f"{low:.3g} to {high:.3g}, as in transformers; if the model was trained on others, correct "
        "preprocessor_config.json: offset goes with a rescale_factor of 1/127.5"
    )


def read_clip_geometry(path: str | Path) -> Clip:
    """Read the shape of the network's input from ``config.json``.

    Args:
        path: the file, or the folder that holds it. Fields it lacks take ``VivitConfig``'s
            defaults. ``image_size`` is one number or (height, width), as the network uses it.

    Raises:
        CheckpointError: no file, not JSON, not a ViViT, or a field of another form.
        InputError: sizes that the tubelet does not divide.
    """
    file = Path(path)
    file = file / "config.json" if file.is_dir() else file
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; give a checkpoint folder that holds config.json")
    config, origin = _load(file), str(file)
    if config.get("model_type", "vivit") != "vivit":
        raise CheckpointError(f"{origin}: model_type is {shown(config['model_type'])}; vivit is needed")
    if config.get("num_channels", 3) != 3:
        raise CheckpointError(f"{origin}: num_channels is {shown(config['num_channels'])}; only RGB (3) is supported")
    side = config.get("image_size", 224)
    height, width = _integers(side if isinstance(side, list) else [side] * 2, 2, "image_size", origin)
    tubelet = config.get("tubelet_size", [2, 16, 16])
    t, h, w = _integers(tubelet if isinstance(tubelet, list) else [tubelet], 3, "tubelet_size", origin)
    (num_frames,) = _integers([config.get("num_frames", 32)], 1, "num_frames", origin)
    return Clip(num_frames=num_frames, height=height, width=width, tubelet_size=(t, h, w))


def installed_resize_order() -> ResizeOrder:
    """Pass order of the installed Pillow's own resize, which transformers calls; it changed in 13.0."""
    return "pillow-13" if int(PIL.__version__.split(".")[0]) >= 13 else "horizontal-first"


def _find_fields(folder: Path, default_crop: tuple[int, int]) -> tuple[JsonObject, str, str]:
    """Return the processor's fields, the file that they are in, and the class that saves there."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give the checkpoint folder that holds config.json")
    for file, key, kind in _SOURCES:
        path = folder / file
        if not path.is_file():
            continue
        fields = _load(path)
        if key is None:
            return fields, str(path), kind
        if key in fields:
            if not isinstance(fields[key], dict):
                raise CheckpointError(f"{path}: {key} must be a JSON object, got {shown(fields[key])}")
            return fields[key], f"{path} ({key})", kind
    height, width = default_crop
    made = f'VivitImageProcessor(crop_size={{"height": {height}, "width": {width}}}).save_pretrained(folder)'
    above = folder.absolute().parent  # where a Trainer leaves it
    example = f"the one in {above}" if any((above / file).is_file() for file, key, _ in _SOURCES if not key) else made
    raise CheckpointError(
        f"{folder} has no preprocessor_config.json, so how frames become pixel values is unknown; write the "
        f"processor the model was trained with into the folder, for example {example}"
    )


def _load(path: Path) -> JsonObject:
    try:
        data = parse_foreign_json(regular_text(path, MOST_JSON_BYTES, "utf-8-sig"))
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{path} cannot be read as JSON: {e}") from e
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(data).__name__}")
    return data


def _processor_name(fields: JsonObject, origin: str, kind: str) -> str:
    keys = ("image_processor_type", "video_processor_type", "feature_extractor_type")
    name = next((fields[key] for key in keys if fields.get(key)), kind)
    if name not in (*_IMAGE_PROCESSORS, _VIDEO_PROCESSOR):
        raise CheckpointError(
            f"{origin} is for {shortly(str(name))}, whose arithmetic is not ViViT's; save a VivitImageProcessor with "
            "the fields the model was trained with"
        )
    return str(name)


def _flag(fields: JsonObject, name: str, origin: str, default: bool = True) -> bool:
    value = fields.get(name, default)
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(f"{origin}: {name} must be true or false, got {shown(value)}")
    return bool(value)


def _size(fields: JsonObject, origin: str) -> tuple[int | None, tuple[int, int] | None]:
    """(shortest_edge, None) or (None, (height, width)), by the rules of transformers' get_size_dict."""
    value = fields.get("size")
    if value is None:
        value = {"shortest_edge": 256}
    if isinstance(value, list):
        return None, _pair(value, "size", origin)
    if not isinstance(value, dict):
        return _integers([value], 1, "size", origin)[0], None
    if set(value) == {"height", "width"}:
        return None, _pair([value["height"], value["width"]], "size", origin)
    # A longest_edge beside it is accepted and ignored, as VivitImageProcessor does.
    if set(value) in ({"shortest_edge"}, {"shortest_edge", "longest_edge"}):
        return _integers([value["shortest_edge"]], 1, "size.shortest_edge", origin)[0], None
    raise CheckpointError(f"{origin}: size must have shortest_edge, or height and width; got {shown(value)}")


def _crop_size(fields: JsonObject, origin: str) -> tuple[int, int]:
    value = fields.get("crop_size")
    if value is None:
        return 224, 224
    if isinstance(value, dict):
        if set(value) != {"height", "width"}:
            raise CheckpointError(f"{origin}: crop_size must have height and width, got {shown(value)}")
        value = [value["height"], value["width"]]
    return _pair(value if isinstance(value, list) else [value] * 2, "crop_size", origin)


def _resample(fields: JsonObject, origin: str) -> int:
    value = fields.get("resample", 2)
    if type(value) is not int or value not in range(6):
        raise CheckpointError(f"{origin}: resample must be the number of a Pillow filter, 0 to 5; got {shown(value)}")
    return value


def _channels(fields: JsonObject, name: str, origin: str, used: bool) -> tuple[float, float, float]:
    value = fields.get(name)
    if value is None or not used:
        return (0.5, 0.5, 0.5)
    values = value if isinstance(value, list) else [value] * 3
    if len(values) != 3:
        raise CheckpointError(f"{origin}: {name} must be one number or three (R, G, B), got {shown(value)}")
    r, g, b = (_number(v, name, origin) for v in values)
    return r, g, b


def _number(value: Any, name: str, origin: str) -> float:
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:  # also refuses NaN
        raise CheckpointError(f"{origin}: {name} must be a finite number, got {shown(value)}")
    return float(value)


def _pair(values: list[Any], name: str, origin: str) -> tuple[int, int]:
    height, width = _integers(values, 2, name, origin)
    return height, width


def _integers(values: list[Any], count: int, name: str, origin: str) -> list[int]:
    if len(values) != count or not all(type(v) is int and v > 0 for v in values):
        what = "a positive integer" if count == 1 else f"{count} positive integers"
        raise CheckpointError(f"{origin}: {name} must be {what}, got {shown(values[0] if count == 1 else values)}")
    return values
