"""Read a checkpoint's preprocessing and clip geometry from its own JSON, without transformers.

The reference is the image processor that the JSON names, computed with Pillow and NumPy (``VivitImageProcessor``,
``VideoMAEImageProcessorPil``): a field that the JSON lacks takes that class's default, as it does when transformers
loads the same file. Anything that the class would refuse at its first frame is refused here. Processors of torchvision
compute differently, by a level here and there; their JSON is read for its fields only.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL

from vivit_export.contract import Clip, Preprocess, ResizeOrder
from vivit_export.errors import CheckpointError
from vivit_export.families import find_family
from vivit_export.families.family import whole_numbers
from vivit_export.files import regular_text
from vivit_export.limits import MOST_JSON_BYTES
from vivit_export.records import JsonObject, parse_foreign_json, shortly, shown


@dataclass(frozen=True)
class _Processor:
    """What the classes of one arithmetic take for fields that their JSON lacks.

    Attributes:
        shortest_edge: of ``size``, in pixels.
        rescale_factor: on the 0..255 level.
        offset: whether one is subtracted after rescaling.
        mean: the same for R, G and B.
        std: the same for R, G and B.
        crop: of ``crop_size``, in pixels.
        enlarged: whether the shortest edge is always 256/224 of the crop, whatever ``size`` says.
    """

    shortest_edge: int
    rescale_factor: float
    offset: bool
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    crop: int = 224
    enlarged: bool = False


_VIVIT = _Processor(256, 1 / 127.5, offset=True)
_VIDEOMAE = _Processor(224, 1 / 255, offset=False)
# transformers.utils.constants.IMAGENET_DEFAULT_MEAN and IMAGENET_DEFAULT_STD
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TIMESFORMER = _Processor(224, 1 / 255, False, *_IMAGENET)
_VJEPA2 = _Processor(292, 1 / 255, False, *_IMAGENET, crop=256, enlarged=True)
# By class name. Fast: an alias since transformers 5.0; FeatureExtractor: the name before 4.26; Pil: since 5.0.
_IMAGE_PROCESSORS = {
    **dict.fromkeys(("VivitImageProcessor", "VivitImageProcessorFast"), _VIVIT),
    **dict.fromkeys(("VideoMAEImageProcessor", "VideoMAEImageProcessorPil", "VideoMAEImageProcessorFast"), _VIDEOMAE),
    "VideoMAEFeatureExtractor": _VIDEOMAE,
}
_VIDEO_PROCESSORS = {
    "VivitVideoProcessor": _VIVIT,
    "VideoMAEVideoProcessor": _VIDEOMAE,
    "TimesformerVideoProcessor": _TIMESFORMER,
    "VJEPA2VideoProcessor": _VJEPA2,
}
_PROCESSORS = {**_IMAGE_PROCESSORS, **_VIDEO_PROCESSORS}
# Where transformers looks, in its order: a nested processor_config.json wins over its older siblings.
_SOURCES = (
    ("processor_config.json", "image_processor"),
    ("preprocessor_config.json", None),
    ("processor_config.json", "video_processor"),
    ("video_preprocessor_config.json", None),
)


def read_preprocess(
    folder: str | Path, default_crop: tuple[int, int], processor: str = "VivitImageProcessor"
) -> Preprocess:
    """Read the pixel pipeline of a checkpoint.

    Args:
        folder: a checkpoint in Hugging Face form.
        default_crop: (height, width) of the model's input: recorded as the crop if the JSON
            switches cropping off, and named in the message if there is no JSON at all. It never
            replaces a missing ``crop_size``; that is 224 x 224, as in transformers.
        processor: class of an image processor whose JSON names none.

    Returns:
        The fields, with the resize order of the Pillow that is installed.

    Raises:
        CheckpointError: no processor JSON, an unreadable one, another processor class, or a value
            that the class cannot work with.
    """
    fields, origin, for_video = _find_fields(Path(folder), default_crop, processor)
    kind = processor.replace("ImageProcessor", "VideoProcessor") if for_video else processor
    name = _processor_name(fields, origin, kind)
    defaults, is_video = _PROCESSORS[name], name in _VIDEO_PROCESSORS
    if defaults.enlarged:
        fields = {**fields, "size": {"shortest_edge": _enlarged(fields, origin, defaults.crop)}}
    if is_video:  # the video class replaces null by its default, the image class keeps it
        fields = {key: value for key, value in fields.items() if value is not None}
    do_resize, do_center_crop = _flag(fields, "do_resize", origin), _flag(fields, "do_center_crop", origin)
    do_rescale, do_normalize = _flag(fields, "do_rescale", origin), _flag(fields, "do_normalize", origin)
    # Only ViViT's classes have an offset, and its video class no field for it: it subtracts one whenever it rescales.
    given = fields if defaults.offset else {}
    offset = _flag(given, "offset", origin, default=defaults.offset and (do_rescale or not is_video))
    if offset and not do_rescale:
        raise CheckpointError(f"{origin}: offset needs do_rescale; set do_rescale to true or offset to false")
    shortest_edge, size = _size(fields, origin, defaults.shortest_edge) if do_resize else (None, None)
    mean = _channels(fields, "image_mean", origin, defaults.mean) if do_normalize else _VIVIT.mean
    std = _channels(fields, "image_std", origin, defaults.std) if do_normalize else _VIVIT.std
    return Preprocess(
        do_resize=do_resize,
        shortest_edge=shortest_edge,
        size=size,
        resample=_resample(fields, origin) if do_resize else 2,
        do_center_crop=do_center_crop,
        crop_size=_crop_size(fields, origin, defaults.crop) if do_center_crop else default_crop,
        do_rescale=do_rescale,
        rescale_factor=_number(fields.get("rescale_factor", defaults.rescale_factor), "rescale_factor", origin)
        if do_rescale
        else defaults.rescale_factor,
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
        path: the file, or the folder that holds it. Fields it lacks take the defaults of the family's
            config class; without a ``model_type`` it is a ViViT's. ``image_size`` is one number or
            (height, width), as the network uses it.

    Raises:
        CheckpointError: no file, not JSON, no family that we know, or a field of another form.
        InputError: sizes that the tubelet does not divide.
    """
    file = Path(path)
    file = file / "config.json" if file.is_dir() else file
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; give a checkpoint folder that holds config.json")
    config, origin = _load(file), str(file)
    family = find_family(config.get("model_type", "vivit"), origin)
    if config.get("num_channels", 3) != 3:
        raise CheckpointError(f"{origin}: num_channels is {shown(config['num_channels'])}; only RGB (3) is supported")
    return family.clip(config, origin)


def installed_resize_order() -> ResizeOrder:
    """Pass order of the installed Pillow's own resize, which transformers calls; it changed in 13.0."""
    return "pillow-13" if int(PIL.__version__.split(".")[0]) >= 13 else "horizontal-first"


def _find_fields(folder: Path, default_crop: tuple[int, int], processor: str) -> tuple[JsonObject, str, bool]:
    """Return the processor's fields, the file that they are in, and whether it is for video processors."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give the checkpoint folder that holds config.json")
    for file, key in _SOURCES:
        path, for_video = folder / file, "video" in (key or file)
        if not path.is_file():
            continue
        fields = _load(path)
        if key is None:
            return fields, str(path), for_video
        if key in fields:
            if not isinstance(fields[key], dict):
                raise CheckpointError(f"{path}: {key} must be a JSON object, got {shown(fields[key])}")
            return fields[key], f"{path} ({key})", for_video
    height, width = default_crop
    made = f'{processor}(crop_size={{"height": {height}, "width": {width}}}).save_pretrained(folder)'
    above = folder.absolute().parent  # where a Trainer leaves it
    example = f"the one in {above}" if any((above / file).is_file() for file, key in _SOURCES if not key) else made
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
    if not isinstance(name, str) or name not in _PROCESSORS:
        raise CheckpointError(
            f"{origin} is for {shortly(str(name))}, whose arithmetic is not known; save a VivitImageProcessor or a "
            "VideoMAEImageProcessor with the fields the model was trained with"
        )
    return name


def _flag(fields: JsonObject, name: str, origin: str, default: bool = True) -> bool:
    value = fields.get(name, default)
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(f"{origin}: {name} must be true or false, got {shown(value)}")
    return bool(value)


def _size(fields: JsonObject, origin: str, default: int) -> tuple[int | None, tuple[int, int] | None]:
    """(shortest_edge, None) or (None, (height, width)), by the rules of transformers' get_size_dict."""
    value = fields.get("size")
    if value is None:
        value = {"shortest_edge": default}
    if isinstance(value, list):
        return None, _pair(value, "size", origin)
    if not isinstance(value, dict):
        return whole_numbers([value], 1, "size", origin)[0], None
    if set(value) == {"height", "width"}:
        return None, _pair([value["height"], value["width"]], "size", origin)
    # A longest_edge beside it is accepted and ignored, as VivitImageProcessor does.
    if set(value) in ({"shortest_edge"}, {"shortest_edge", "longest_edge"}):
        return whole_numbers([value["shortest_edge"]], 1, "size.shortest_edge", origin)[0], None
    raise CheckpointError(f"{origin}: size must have shortest_edge, or height and width; got {shown(value)}")


def _enlarged(fields: JsonObject, origin: str, default: int) -> int:
    """Return the shortest edge that ``VJEPA2VideoProcessor.__init__`` works out of the crop, in place of any other."""
    crop = fields.get("crop_size", default)
    side = crop.get("height") if isinstance(crop, dict) else crop
    if type(side) is not int:
        raise CheckpointError(f"{origin}: crop_size must be a whole number, or have a height, got {shown(crop)}")
    return int(side * 256 / 224)


def _crop_size(fields: JsonObject, origin: str, default: int) -> tuple[int, int]:
    value = fields.get("crop_size")
    if value is None:
        return default, default
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


def _channels(
    fields: JsonObject, name: str, origin: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    value = fields.get(name)
    if value is None:
        return default
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
    height, width = whole_numbers(values, 2, name, origin)
    return height, width
