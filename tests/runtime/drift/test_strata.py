"""Groups of clips: which properties make some, in what order, and what each says."""

from __future__ import annotations

from vivit_export.bundle.checks import CheckedClips
from vivit_export.bundle.clip_view import Flip, Strata, VideoFacts
from vivit_export.runtime.drift.strata import strata_of

NAMES = ("a/1.mp4", "a/2.mp4", "b/3.mp4", "b/4.mp4")
FLIPS: tuple[Flip, ...] = ("none", "near", "clear", "none")
DRIFT = (0.01, 0.02, 0.5, None)


def groups(videos: tuple[VideoFacts | None, ...] = (), margins: tuple[float | None, ...] = (None,) * 4) -> list[Strata]:
    clips = CheckedClips("mine", NAMES, videos)
    return list(strata_of(clips, ["x", "x", "y", "x"], margins, 0.02, DRIFT, FLIPS))


def told(strata: Strata) -> list[tuple[str, int, int, int, float | None]]:
    return [(g.value, g.clips, g.near_flips, g.clear_flips, g.drift) for g in strata.groups]


def test_the_worst_class_and_folder_come_first() -> None:
    by_class, by_folder = groups()
    assert (by_class.by, told(by_class)) == ("class", [("y", 1, 0, 1, 0.5), ("x", 3, 1, 0, None)])
    assert (by_folder.by, told(by_folder)) == ("folder", [("b", 2, 0, 1, None), ("a", 2, 1, 0, 0.02)])


def test_properties_that_all_clips_share_are_left_out() -> None:
    same = VideoFacts(320, 240, 25.0, 3.0, "h264")
    assert [strata.by for strata in groups((same,) * 4)] == ["class", "folder"]


def test_what_videos_differ_in_is_grouped() -> None:
    videos = (
        VideoFacts(320, 240, 25.0, 3.0, "h264"),
        VideoFacts(320, 240, 29.97002997, 3.0, "vp9"),
        VideoFacts(1920, 1080, 25.0, 12.5, "h264"),
        None,
    )
    found = {strata.by: told(strata) for strata in groups(videos)}
    assert [row[:2] for row in found["size"]] == [("1920x1080", 1), ("320x240", 2)]
    assert [row[:2] for row in found["fps"]] == [("25 fps", 2), ("29.97 fps", 1)]
    assert [row[:2] for row in found["seconds"]] == [("3 s", 2), ("12.5 s", 1)]
    assert [row[:2] for row in found["codec"]] == [("h264", 2), ("vp9", 1)]


def test_what_is_near_a_tie_is_a_group_of_its_own() -> None:
    found = {strata.by: told(strata) for strata in groups(margins=(0.01, 0.02, 0.3, 0.4))}
    assert found["margin"] == [
        ("0 to 0.02 (near a tie)", 2, 1, 0, 0.02),
        ("0.3", 1, 0, 1, 0.5),
        ("0.4", 1, 0, 0, None),
    ]


def test_many_values_make_four_parts_that_hold_every_clip() -> None:
    names = tuple(f"{i}.mp4" for i in range(40))
    videos = tuple(VideoFacts(0, 0, None, float(i), "h264") for i in range(40))
    flips: list[Flip] = ["none"] * 40
    (found,) = strata_of(CheckedClips("mine", names, videos), [], [None] * 40, 0.0, [0.0] * 40, flips)
    assert [(g.value, g.clips) for g in found.groups] == [
        ("0 to 9 s", 10),
        ("10 to 19 s", 10),
        ("20 to 29 s", 10),
        ("30 to 39 s", 10),
    ]
