"""The contract: plain JSON both ways, and one sentence for whatever cannot be one."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivit_export.contract import IO, Clip, Contract, InputMode, Preprocess, Tensor
from vivit_export.errors import InputError

sizes = st.integers(1, 512)
pairs = st.tuples(sizes, sizes)
positive = st.floats(min_value=1e-6, max_value=1e6)
triples = st.tuples(positive, positive, positive)
names = st.text(max_size=20)


@st.composite
def clips(draw: st.DrawFn) -> Clip:
    tubelet, counts = (
        draw(st.tuples(st.integers(1, 4), st.integers(1, 32), st.integers(1, 32))),
        draw(st.tuples(*[st.integers(1, 8)] * 3)),
    )
    frames, height, width = (side * count for side, count in zip(tubelet, counts, strict=True))
    return Clip(frames, height, width, tubelet)


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    clip = draw(clips())
    shape = (clip.height, clip.width)
    resizes, crops, rescales = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    by_edge = draw(st.booleans()) and crops
    preprocess = Preprocess(
        do_resize=resizes,
        shortest_edge=draw(sizes) if by_edge else None,
        size=None if by_edge else draw(pairs) if crops else shape,
        resample=draw(st.integers(0, 5)),
        do_center_crop=crops,
        crop_size=shape if crops else draw(pairs),
        do_rescale=rescales,
        rescale_factor=draw(positive),
        offset=draw(st.booleans()) and rescales,
        do_normalize=draw(st.booleans()),
        mean=draw(triples),
        std=draw(triples),
        resize_order=draw(st.sampled_from(["horizontal-first", "pillow-13"])),
        processor=draw(names),
    )
    labels = tuple(draw(st.lists(names, max_size=5)))
    outputs: tuple[Tensor, ...] = (Tensor("embedding", "float32", ("batch", 8)),)
    if labels:
        outputs = (Tensor("logits", "float32", ("batch", len(labels))), *outputs)
    mode = draw(st.sampled_from(get_args(InputMode)))
    frame_size = draw(pairs) if mode == "frames" else None
    source = Tensor("x", "uint8", (draw(names), clip.num_frames, *(frame_size or shape), 3))
    if mode == "pixels":
        source = Tensor("x", "float32", (draw(names), clip.num_frames, 3, *shape))
    io = IO(mode, (source,), outputs, frame_size)
    return Contract(clip, preprocess, io, labels)


EXAMPLE = Contract(
    Clip(8, 64, 64, (2, 8, 8)),
    Preprocess(shortest_edge=64, crop_size=(64, 64)),
    IO("crops", (Tensor("frames", "uint8", ("batch", 8, 64, 64, 3)),), (Tensor("logits", "float32", ("batch", 2)),)),
    ("left", "right"),
)


def taking(**io: Any) -> Contract:
    """The example with another signature."""
    return dataclasses.replace(EXAMPLE, io=dataclasses.replace(EXAMPLE.io, **io))


@given(contracts())
def test_round_trip_through_json_text(contract: Contract) -> None:
    text = json.dumps(contract.to_json(), allow_nan=False)
    assert Contract.from_json(json.loads(text)) == contract


def test_tokens_are_tubelets_and_the_class_token() -> None:
    assert Clip(32, 224, 224, (2, 16, 16)).num_tubelets == 3136
    assert Clip(8, 32, 64, (4, 8, 16)).num_tubelets == 2 * 4 * 4


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Clip(7, 64, 64, (2, 8, 8)), "num_frames=7 is not a positive multiple of the tubelet's 2"),
        (lambda: Clip(8, 60, 64, (2, 8, 8)), "height=60 is not"),
        (lambda: Clip(8, 64, 60, (2, 8, 8)), "width=60 is not"),
        (lambda: Clip(0, 64, 64, (2, 8, 8)), "num_frames=0 is not"),
        (lambda: Clip(8, 64, 64, (2, 0, 8)), "height=64 is not a positive multiple of the tubelet's 0"),
        (lambda: Preprocess(), "exactly one of size.shortest_edge and size.height/width"),
        (lambda: Preprocess(shortest_edge=8, size=(8, 8)), "exactly one of"),
        (lambda: Preprocess(shortest_edge=0), "1 pixel or more, got shortest_edge=0"),
        (lambda: Preprocess(size=(8, -8)), "1 pixel or more"),
        (lambda: Preprocess(shortest_edge=8, crop_size=(0, 8)), "1 pixel or more"),
        (lambda: Preprocess(shortest_edge=8, resample=6), "resample=6 is not a Pillow filter"),
        (lambda: Preprocess(shortest_edge=8, std=(0.5, 0.0, 0.5)), r"image_std=\[0.5, 0.0, 0.5\] contains a zero"),
        (lambda: Preprocess(shortest_edge=8, do_rescale=False), "offset=true needs do_rescale=true"),
        (lambda: dataclasses.replace(EXAMPLE, clip=Clip(8, 32, 64, (2, 8, 8))), "makes frames of 64x64 .* takes 32x64"),
        (
            lambda: dataclasses.replace(EXAMPLE, preprocess=Preprocess(size=(32, 64), do_center_crop=False)),
            "makes frames of 32x64 .* takes 64x64",
        ),
        (lambda: dataclasses.replace(EXAMPLE, labels=("left",)), "1 labels for 2 logits"),
        (lambda: dataclasses.replace(EXAMPLE.io, inputs=()), "exactly one input"),
        (lambda: dataclasses.replace(EXAMPLE.io, inputs=EXAMPLE.io.inputs * 2), "exactly one input"),
        (lambda: dataclasses.replace(EXAMPLE.io, mode="frames"), "frame_size"),
        (lambda: dataclasses.replace(EXAMPLE.io, frame_size=(9, 9)), "frame_size"),
        (lambda: Clip(1026, 64, 64, (2, 8, 8)), "clip of 1026 frames of 64x64 .height x width. is too large"),
        (lambda: Clip(2, 64, 4104, (2, 8, 8)), "too large; at most 1024 frames, 4096 pixels a side and 256 MiB"),
        (lambda: Clip(1024, 512, 512, (2, 8, 8)), "too large"),
        (lambda: Clip(8, 64, 64, (2, 8, 8), "stride", 65537), "stride=65537 is too large; at most 65536"),
        (lambda: Clip(8, 64, 64, (2, 8, 8), "stride", 2, views=(129, 3)), "views=129x3; at most 128 temporal"),
        (lambda: Preprocess(shortest_edge=4097), "4096 pixels or less, got shortest_edge=4097"),
        (lambda: Preprocess(size=(4097, 8)), "4096 pixels or less"),
        (lambda: Preprocess(shortest_edge=8, std=(0.5, 1e-7, 0.5)), "no deviation below 1e-06"),
        (lambda: Preprocess(shortest_edge=8, mean=(0.5, 1e7, 0.5)), "none may be beyond 1e.06"),
        (lambda: Preprocess(shortest_edge=8, rescale_factor=-1e300), "do not make pixel values"),
        (lambda: taking(mode="frames", frame_size=(0, 9)), r"frame_size=\(0, 9\) is not 1 to 16384 pixels a side"),
        (lambda: taking(mode="frames", frame_size=(9, 16385)), "frame_size"),
        (
            lambda: taking(inputs=(Tensor("x", "uint8", ("batch", 8, 64, 3)),)),
            "does not take the clip; mode",
        ),
        (lambda: taking(inputs=(Tensor("x", "uint8", ("batch", 8, 64, "w", 3)),)), "does not take the clip"),
        (lambda: taking(inputs=(Tensor("x", "uint8", (1, 8, 64, 64, 3)),)), "does not take the clip"),
        (lambda: taking(inputs=(Tensor("x", "uint8", ()),)), "does not take the clip"),
        (lambda: taking(inputs=(Tensor("x", "int64", ("batch", 8, 64, 64, 3)),)), r"input x int64 \['batch', 8, 64, 6"),
        (lambda: taking(mode="pixels"), r"mode pixels takes float32 \['batch', 8, 3, 64, 64\]"),
        *(
            (lambda name=name: taking(inputs=(Tensor(name, "uint8", ("batch", 8, 64, 64, 3)),)), "input's name")
            for name in ("", "../../x", "/etc/x", "..", "a/b", "a b", "a\nb", "\x1b[2J", "ü", "x" * 65, "`x`", "-x")
        ),
        (lambda: taking(outputs=EXAMPLE.io.outputs * 2), "output logits float32 .* is not possible; .* each once"),
        (lambda: taking(outputs=(Tensor("x", "float32", ("batch", 2)),)), "output x float32"),
        (lambda: taking(outputs=(Tensor("logits", "int64", ("batch", 2)),)), "output logits int64"),
        (lambda: taking(outputs=(Tensor("logits", "float32", ("batch", 65537)),)), "'batch', 1 to 65536"),
        (lambda: taking(outputs=(Tensor("logits", "float32", ("batch", "n")),)), "not possible"),
        (lambda: taking(outputs=(Tensor("logits", "float32", (2, 2)),)), "not possible"),
        (lambda: taking(outputs=(Tensor("logits", "float32", ("batch", 2, 2)),)), "not possible"),
        (lambda: dataclasses.replace(EXAMPLE, labels=("l" * 1001, "r")), "label 0 has 1001 characters; at most 1000"),
    ],
)
def test_what_does_not_fit_together_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_std_of_zero_is_fine_where_nothing_is_normalised() -> None:
    Preprocess(shortest_edge=8, do_normalize=False, std=(0.0, 0.0, 0.0))


def changed(path: str, value: Any) -> dict[str, Any]:
    """EXAMPLE as JSON with one field set; "a.b.0" is a path."""
    data: Any = copy.deepcopy(EXAMPLE.to_json())
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = data
    for part in parents:
        place = place[part]
    place[last] = value
    assert isinstance(data, dict)
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("clip.num_frames", "8", r"contract.clip.num_frames must be int, got '8'"),
        ("clip.num_frames", True, "contract.clip.num_frames must be int, got True"),
        ("clip.num_frames", 8.0, "contract.clip.num_frames must be int, got 8.0"),
        ("clip.num_frames", None, "contract.clip.num_frames must be int, got None"),
        ("clip.sampling", "random", "contract.clip.sampling must be uniform.*, got 'random'"),
        ("clip.tubelet_size", [2, 8], r"contract.clip.tubelet_size must be a list of 3 int, got \[2, 8\]"),
        ("clip.tubelet_size.1", "8", r"contract.clip.tubelet_size\[1\] must be int, got '8'"),
        ("clip.tubelet_size", "288", "contract.clip.tubelet_size must be a list of 3 int, got '288'"),
        ("clip", [], "contract.clip must be a JSON object, got list"),
        ("clip.fps", 30, "contract.clip has an unknown field 'fps'; it was written by another version"),
        ("preprocess.std", [1, 1, float("inf")], r"contract.preprocess.std\[2\] must be a finite number, got inf"),
        ("preprocess.rescale_factor", float("nan"), "rescale_factor must be a finite number, got nan"),
        pytest.param("preprocess.rescale_factor", 10**400, "must be a finite number, got 1000", id="huge"),
        ("preprocess.rescale_factor", True, "rescale_factor must be a finite number, got True"),
        ("preprocess.shortest_edge", "64", r"shortest_edge must be int or null, got '64'"),
        ("preprocess.size", [64], "size must be a list of 2 int or null, got"),
        ("io.mode", "clip", "contract.io.mode must be crops or pixels or frames, got 'clip'"),
        ("io.inputs.0.shape.1", 1.5, r"contract.io.inputs\[0\].shape\[1\] must be int or str, got 1.5"),
        ("io.inputs.0", "frames", r"contract.io.inputs\[0\] must be a JSON object, got str"),
        ("labels", {"0": "left"}, "contract.labels must be a list of str, got"),
        ("labels.0", 3, r"contract.labels\[0\] must be str, got 3"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(path: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Contract.from_json(changed(path, value))


@pytest.mark.parametrize("data", [None, [], "contract", 3])
def test_only_an_object_is_a_contract(data: Any) -> None:
    with pytest.raises(InputError, match="contract must be a JSON object"):
        Contract.from_json(data)


@pytest.mark.parametrize(("section", "field"), [("clip", "width"), ("io", "outputs")])
def test_a_missing_field_is_named(section: str, field: str) -> None:
    data = EXAMPLE.to_json()
    del data[section][field]
    with pytest.raises(InputError, match=f"contract.{section} lacks the field '{field}'"):
        Contract.from_json(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)


def paths(data: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [prefix, *(path for key, value in children for path in paths(value, (*prefix, key)))]


@given(st.sampled_from(paths(EXAMPLE.to_json())[1:]), json_values)
def test_any_damage_is_refused_or_read_as_it_stands(path: tuple[Any, ...], value: Any) -> None:
    data = EXAMPLE.to_json()
    place: Any = data
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    try:
        contract = Contract.from_json(data)
    except InputError:
        return
    assert Contract.from_json(contract.to_json()) == contract
