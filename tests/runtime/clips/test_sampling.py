"""Which frames a clip takes: the formulas, the drawings that explain them, and the references they equal."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from vivit_export.contract import Clip, Contract, Sampling, Short
from vivit_export.errors import ClipError, InputError
from vivit_export.runtime import clip_indices
from vivit_export.runtime.clips import sampling
from vivit_export.runtime.clips.sampling import frames_needed, view_indices


def clip(num_frames: int, **rule: Any) -> Clip:
    return Clip(num_frames, 32, 32, (1, 16, 16), **rule)


@st.composite
def rules(draw: st.DrawFn, /, **fixed: Any) -> Clip:
    kind = fixed.get("sampling", draw(st.sampled_from(get_args(Sampling))))
    strides = kind == "stride"
    fields = {
        "sampling": kind,
        "stride": draw(st.integers(1, 6)) if strides else 1,
        "short": draw(st.sampled_from(get_args(Short))),
        "views": (draw(st.integers(1, 6)) if strides else 1, draw(st.sampled_from([1, 3]))),
    }
    return clip(draw(st.integers(1, 40)), **(fields | fixed))


totals = st.integers(1, 400)


def scenic_clip(total: int, num_frames: int, stride: int, offset: int) -> list[int]:
    """The paper's code: frames offset, offset + stride, … of the video repeated without end."""
    endless = list(range(total)) * ((offset + num_frames * stride) // total + 1)
    return endless[offset : offset + num_frames * stride : stride]


def float32_linspace(stop: int, count: int) -> list[int]:
    """`tf.linspace` in float32, cut to integers."""
    step = np.float32(stop) / np.float32(count - 1)
    return [*(int(np.float32(i) * step) for i in range(count - 1)), stop]


# --- the drawings ------------------------------------------------------------------------------


def drawn(label: str) -> tuple[list[int], int | None]:
    """Frame numbers under which a line of the docstring has carets, and the one of its bar."""
    lines = (sampling.__doc__ or "").splitlines()
    ruler = next(line for line in lines if line.strip().startswith("video  "))
    columns = {ruler.index("0") + 3 * n: n for n in range(17)}
    assert ruler.split()[1:] == [str(n) for n in range(16)]
    line = next(line for line in lines if line.strip().startswith(label))
    marks = {mark: [columns[i] for i, c in enumerate(line) if c == mark] for mark in "^|"}
    return marks["^"], next(iter(marks["|"]), None)


@pytest.mark.parametrize("kind", ["uniform", "center", "head"])
def test_the_drawings_show_the_rules(kind: Any) -> None:
    assert drawn(kind)[0] == clip_indices(16, clip(4, sampling=kind)).tolist()


def test_the_drawings_show_strides_and_views() -> None:
    window = clip_indices(16, clip(4, sampling="stride", stride=2)).tolist()
    assert drawn("stride") == (window, window[0] + 8)
    views = view_indices(16, clip(4, sampling="stride", stride=2, views=(3, 1))).tolist()
    assert [drawn(f"view {v}") for v in range(3)] == [(view, view[0] + 8) for view in views]


# --- the references ----------------------------------------------------------------------------


@given(totals, rules(sampling="uniform"))
def test_uniform_is_transformers_with_a_video_processor(total: int, rule: Clip) -> None:
    total += rule.num_frames
    metadata = VideoMetadata(total_num_frames=total, fps=25, duration=total / 25)
    # VivitVideoProcessor inherits it, and cannot be made without torchvision.
    expected = BaseVideoProcessor.sample_frames(SimpleNamespace(fps=None), metadata, num_frames=rule.num_frames)
    np.testing.assert_array_equal(clip_indices(total, rule), expected)


@given(totals, rules(sampling="head"))
def test_head_is_transformers_without_one(total: int, rule: Clip) -> None:
    expected = np.linspace(0, rule.num_frames - 1, num=rule.num_frames, dtype=np.int64)
    np.testing.assert_array_equal(clip_indices(total + rule.num_frames, rule), expected)


@given(totals, rules(sampling="stride", short="loop", views=(1, 1)))
@pytest.mark.field_case("transformers 48076")
def test_stride_is_the_papers_central_clip(total: int, rule: Clip) -> None:
    offset = max(0, (total - rule.num_frames * rule.stride) // 2)
    expected = scenic_clip(total, rule.num_frames, rule.stride, offset)
    assert clip_indices(total, rule).tolist() == expected


@given(totals, rules(sampling="stride", short="loop"))
def test_views_are_the_papers_test_clips(total: int, rule: Clip) -> None:
    count = rule.views[0]
    room = max(0, total - rule.num_frames * rule.stride)
    offsets = float32_linspace(room, count) if count > 1 else [room // 2]
    expected = [scenic_clip(total, rule.num_frames, rule.stride, offset) for offset in offsets]
    assert view_indices(total, rule).tolist() == expected


def test_the_papers_protocol_on_a_kinetics_clip() -> None:
    """Ten seconds at 25 fps, 32 frames with stride 2, 4 temporal views."""
    views = view_indices(250, clip(32, sampling="stride", stride=2, views=(4, 3)))
    assert views[:, 0].tolist() == [0, 62, 124, 186]
    assert views[:, -1].tolist() == [62, 124, 186, 248]


# --- what holds for every rule -------------------------------------------------------------------


@given(totals, rules())
def test_indices_lie_in_the_video_and_do_not_turn_back(total: int, rule: Clip) -> None:
    is_short = total < frames_needed(rule)
    if is_short and rule.short == "refuse":
        with pytest.raises(ClipError, match=f"has {total} frames? but the model takes {rule.num_frames}"):
            clip_indices(total, rule)
        return
    indices, views = clip_indices(total, rule), view_indices(total, rule)
    assert indices.dtype == np.int64 and indices.shape == (rule.num_frames,)
    assert views.shape == (rule.views[0], rule.num_frames)
    for row in (indices, *views):
        assert row.min() >= 0
        assert row.max() < total
        if not is_short:
            assert (np.diff(row) >= 1).all()
    if rule.views[0] == 1:
        np.testing.assert_array_equal(views[0], indices)
    elif not is_short:
        assert views[0, 0] == 0
        assert views[-1, 0] == max(0, total - rule.num_frames * rule.stride)


@given(totals, rules(short="refuse", views=(1, 1)))
@pytest.mark.field_case("CO2A 3")
def test_a_short_video_is_continued(total: int, rule: Clip) -> None:
    """As if the indices were drawn from the shortest video that is long enough."""
    needed = frames_needed(rule)
    whole = clip_indices(max(total, needed), rule)
    fields = {"sampling": rule.sampling, "stride": rule.stride}
    repeated = clip_indices(total, clip(rule.num_frames, **fields, short="repeat"))
    looped = clip_indices(total, clip(rule.num_frames, **fields, short="loop"))
    np.testing.assert_array_equal(repeated, np.minimum(whole, total - 1))
    np.testing.assert_array_equal(looped, whole % total)


@given(rules(sampling="center"), totals)
def test_center_is_stride_one_and_leaves_the_same_on_both_sides(rule: Clip, extra: int) -> None:
    total = rule.num_frames + extra
    indices = clip_indices(total, rule)
    assert 0 <= (total - 1 - indices[-1]) - indices[0] <= 1
    np.testing.assert_array_equal(indices, clip_indices(total, clip(rule.num_frames, sampling="stride")))


@pytest.mark.parametrize("short", get_args(Short))
def test_a_video_without_frames_is_always_refused(short: Any) -> None:
    with pytest.raises(ClipError, match=r"film\.mp4 holds no video frames"):
        clip_indices(0, clip(4, short=short), source="film.mp4")


def test_the_message_says_what_is_needed() -> None:
    with pytest.raises(
        ClipError, match=r"the video has 62 frames but the model takes 32, one in 2, out of 63; .* short=loop"
    ):
        clip_indices(62, clip(32, sampling="stride", stride=2))


# --- in the contract -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"sampling": "stride", "stride": 0}, "stride is 1 or more"),
        ({"stride": 2}, "clip stride=2 with sampling=uniform; .* only with sampling=stride"),
        ({"views": (0, 1)}, "views=0x1; 1 or more temporal"),
        ({"views": (1, 2)}, "views=1x2; .* 1 or 3 spatial"),
        ({"views": (4, 3)}, "views=4x3 with sampling=uniform; several temporal views need sampling=stride"),
    ],
)
def test_rules_that_contradict_themselves_are_refused(rule: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        clip(8, **rule)


@given(rules())
def test_the_rule_survives_the_bundle(rule: Clip) -> None:
    from videos import contract

    whole = contract(rule.num_frames, rule)
    assert Contract.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_a_contract_from_before_these_fields_reads_as_it_was() -> None:
    from videos import contract

    data = contract(8).to_json()
    for field in ("stride", "short", "views"):
        del data["clip"][field]
    assert Contract.from_json(data) == contract(8)
