"""The report as a page: the same facts, nothing empty, no markup from names, and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
from headless_bundle import CHECKS, ENGINE, headless
from long_report import long_report, save_golden

from vivit_export.bundle import read_bundle
from vivit_export.bundle.manifest import FileRecord
from vivit_export.errors import MissingDependencyError
from vivit_export.report import templating
from vivit_export.report.html import golden_pictures, render_html, write_report

OLD = Path(__file__).parents[1] / "data/vivit-bundle-1"


def test_the_page_shows_the_same_and_takes_no_markup_from_names() -> None:
    page = render_html(headless(checks=CHECKS, engines={"rtx": ENGINE}).manifest)
    assert "<b>mine" not in page and "&lt;b&gt;mine&lt;/b&gt;" in page
    for text in ("0.9998700", "not run: needs 2.0 GiB", "SM89, SM120", "1 / 4 / 8", "1.5 MB", "8×8"):
        assert text in page
    assert ">NOT CHECKED<" in render_html(headless().manifest)


def test_every_section_is_there_and_none_is_empty() -> None:
    whole, bare = render_html(long_report()), render_html(headless().manifest)
    for section in ("drift", "model", "engines", "speed", "calibration", "origin"):
        assert f'<h2 id="{section}">' in whole and f'href="#{section}"' in whole
    for section in ("drift", "engines", "speed", "calibration", "clips"):
        assert f'id="{section}"' not in bare and f'href="#{section}"' not in bare
    for page in (whole, bare):
        assert not re.findall(r"<(dd|ul|dl|tbody|section)[^>]*>\s*</\1>", page)


def test_a_column_that_says_nothing_is_left_out() -> None:
    page = render_html(headless(checks=CHECKS).manifest)  # has no logits
    assert "KL (nats)" not in page and "top-1 agreement" not in page and '<th scope="col">cosine</th>' in page


def test_the_verdict_comes_first() -> None:
    passed, failed = render_html(long_report()), render_html(long_report(worst=0.0812))
    assert passed.index(">PASS<") < passed.index("<main") and "<title>PASS ·" in passed
    assert ">FAIL<" in failed
    assert (
        "The largest logit difference is 8.12 % of the range in onnxruntime 1.32.0 cpu, batch 8, and must be" in failed
    )


def test_nothing_comes_from_elsewhere_and_no_script_may_run() -> None:
    page = render_html(long_report(), {0: "data:image/jpeg;base64,AAAA"})
    assert "<script" not in page and "http" not in page.replace("http-equiv", "") and " on" + "click" not in page
    assert not re.findall(r"<[^>]* style=", page)  # the policy would refuse it
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_the_files_are_listed_with_their_hashes() -> None:
    listed = {"model.onnx": FileRecord("ab" * 32, 1_000_000)}
    assert "ab" * 32 in render_html(long_report(), files=listed)
    assert "1.0 MB" in render_html(headless().manifest)  # a manifest brings its own


def test_clips_of_the_check_are_shown(tmp_path: Path) -> None:
    save_golden(tmp_path / "golden.safetensors", 3)
    write_report(tmp_path, long_report(3))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/jpeg;base64,') == 3
    assert 'alt="Frames of kinetics/clip_00002.mp4"' in page
    assert page.count('class="scores"') == 3 and page.count(">clear flip</button>") == 2  # the legend, and one clip
    first = (tmp_path / "report.html").read_bytes()
    write_report(tmp_path, long_report(3))
    assert (tmp_path / "report.html").read_bytes() == first


def test_clips_of_an_older_check_are_shown_too(tmp_path: Path) -> None:
    content = long_report(30)
    assert content.checks is not None
    save_golden(tmp_path / "golden.safetensors", 30)
    write_report(tmp_path, replace(content, checks=replace(content.checks, view=None)))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/jpeg;base64,') == 24 and 'class="cards"' not in page


def test_pictures_are_of_the_clips_of_the_check(tmp_path: Path) -> None:
    """Golden clips have pictures, in a later check too; other clips of the same names have none."""
    save_golden(tmp_path / "golden.safetensors", 8)
    content = long_report()
    checks = content.checks
    assert checks is not None
    elsewhere = replace(checks, clips=replace(checks.clips, source="videos in another/folder"))
    fewer = replace(checks, clips=replace(checks.clips, names=checks.names[:3]))
    for later, count in ((elsewhere, 8), (checks, 16), (fewer, 16)):
        page = render_html(replace(content, recheck=later), golden_pictures(tmp_path, content))
        assert page.count("<img ") == count
    assert golden_pictures(tmp_path, content, elsewhere) == {}
    assert list(golden_pictures(tmp_path, content, checks)) == list(range(8))
    assert golden_pictures(tmp_path, replace(content, checks=None), checks) == {}


def test_more_clips_are_folded_away(tmp_path: Path) -> None:
    write_report(tmp_path, long_report(30))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count('class="scores"') == 30 and "<summary>18 more clips</summary>" in page


def test_a_check_that_was_saved_later_decides_and_comes_first() -> None:
    checks = long_report(worst=0.0812).checks
    page = render_html(replace(long_report(), recheck=checks))
    assert ">FAIL<" in page
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert ids.index("saved") < ids.index("saved-clips") < ids.index("drift") < ids.index("drift-clips")


def test_devices_that_ran_an_engine_are_named() -> None:
    page = render_html(long_report())
    assert "<dd>NVIDIA L4</dd>" in page
    assert "<li>verified on NVIDIA L4, driver 580.65.06, CUDA 13.0, 8 golden clips: batch 1: top-1 100.0 %" in page
    assert page.count("No device has run the golden clips on it yet.") == 1


def test_where_drift_begins_is_told() -> None:
    page = render_html(long_report())
    assert "Drift begins in layer 9 MLP" in page
    assert "To do: export again with --keep-fp16 &#39;layers.9.*&#39;, or with --fix" in page


def test_a_bundle_from_before_has_a_page() -> None:
    bundle = read_bundle(OLD)
    page = render_html(bundle.manifest)
    assert bundle.manifest.model.id in page and "0.1.0" in page


def test_without_the_package_the_page_is_left_out_and_a_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "report.html").write_text("of another state")
    notes: list[object] = []
    write_report(tmp_path, long_report(), notes.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json"]
    assert notes == [
        "report.html is left out: a report as a page needs the package jinja2, which is not installed; "
        'install it with: pip install "vivit-export[report]"'
    ]


def test_asked_for_a_page_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    templating._environment.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"page needs the package jinja2.*vivit-export\[report\]"):
        render_html(long_report())


def test_what_a_bundle_says_is_never_a_template() -> None:
    model = replace(long_report().model, id="{{ 7 * 7 }}{% raw %}")
    assert "{{ 7 * 7 }}{% raw %}" in render_html(replace(long_report(), model=model))
