"""The page in a real browser: it reaches nothing, fits a phone, answers to keys, and axe finds nothing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import browser
import pytest
from long_report import long_report, save_golden

from vivit_export.report.compare import compare
from vivit_export.report.compare_text import comparison_html
from vivit_export.report.html import write_report
from vivit_export.report.stored import StoredRun

KINDS = ("passed", "failed", "unchecked", "compared")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages that are different in kind, each with everything that a bundle may say."""
    made = {}
    contents = {"passed": long_report(), "failed": long_report(worst=0.0812)}
    contents["unchecked"] = replace(contents["passed"], checks=None)
    for kind, content in contents.items():
        folder = tmp_path_factory.mktemp(kind)
        save_golden(folder / "golden.safetensors", 8)
        write_report(folder, content)
        made[kind] = folder / "report.html"
    compared = compare(StoredRun("before", contents["passed"]), StoredRun("after", contents["failed"]))
    made["compared"] = made["passed"].with_name("compared.html")
    made["compared"].write_text(comparison_html(compared), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running.page()


@pytest.fixture(scope="module")
def axe() -> str:
    return browser.axe()


@pytest.mark.parametrize("kind", KINDS)
def test_it_fits_a_phone_and_a_desk_and_reaches_nothing(tab: browser.Page, pages: dict[str, Path], kind: str) -> None:
    for width in (390, 1280):
        tab.show(pages[kind], width=width)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert not tab.complaints
        assert {address.partition(":")[0] for address in tab.requests} <= {"file", "data"}
        assert sum(address.startswith("file:") for address in tab.requests) == 1


@pytest.mark.parametrize(
    ("kind", "scheme", "width"),
    [
        ("passed", "light", 390),
        ("passed", "dark", 1280),
        ("failed", "light", 1280),
        ("failed", "dark", 390),
        ("unchecked", "light", 1280),
        ("compared", "dark", 390),
        ("compared", "light", 1280),
    ],
)
def test_axe_finds_nothing(
    tab: browser.Page, pages: dict[str, Path], axe: str, kind: str, scheme: browser.Scheme, width: int
) -> None:
    tab.show(pages[kind], width=width, scheme=scheme)
    assert tab.violations(axe) == []


def test_axe_would_find_it(tab: browser.Page, axe: str, tmp_path: Path) -> None:
    page = "<!doctype html><html lang=en><title>a</title><main><h1>a</h1><img src=b></main>"
    (tmp_path / "bad.html").write_text(page)
    tab.show(tmp_path / "bad.html")
    assert [found.split()[0] for found in tab.violations(axe)] == ["image-alt"]
    assert any(address.endswith("/b") for address in tab.requests) and tab.complaints  # and so are those


def test_a_long_name_without_a_space_fits_a_phone(tab: browser.Page, tmp_path: Path) -> None:
    content = long_report()
    model = replace(content.model, id="x" * 400, weights_sha256={"y" * 300: "f" * 64})
    write_report(tmp_path, replace(content, model=model, engines={"z" * 200: content.engines["tensorrt-rtx"]}))
    tab.show(tmp_path / "report.html", width=390)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_light_and_dark_are_different_and_print_is_light(tab: browser.Page, pages: dict[str, Path]) -> None:
    colors = []
    tab.show(pages["passed"])
    for scheme, media in (("light", "screen"), ("dark", "screen"), ("dark", "print")):
        tab.look(scheme, media)  # type: ignore[arg-type]
        colors.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colors == ["rgb(255, 255, 255)", "rgb(16, 20, 26)", "rgb(255, 255, 255)"]
    assert tab.evaluate("getComputedStyle(document.querySelector('.tip')).display") == "block"  # explained on paper


SHOWN = "[...document.querySelectorAll('.tip')].filter(e => e.checkVisibility()).map(e => e.id)"


def test_a_term_is_explained_to_pointer_keyboard_and_finger(tab: browser.Page, pages: dict[str, Path]) -> None:
    tab.show(pages["passed"])
    assert tab.evaluate(SHOWN) == []
    place = tab.evaluate(
        "(e => {e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect(); return [r.x + 5, r.y + 5]})"
        "(document.querySelector('[popovertarget=term-drift]'))"
    )
    tab.point_at(*place)
    assert tab.evaluate(SHOWN) == ["term-drift"]
    tab.point_at(1, 1)
    assert tab.evaluate(SHOWN) == []
    tab.evaluate("document.querySelector('[popovertarget=term-gate]').click()")  # as a finger does
    assert tab.evaluate(SHOWN) == ["term-gate"]
    tab.press("Escape")
    assert tab.evaluate(SHOWN) == []
    tab.show(pages["passed"])
    names = []
    for _ in range(12):
        tab.press("Tab")
        names.append(tab.evaluate("document.activeElement.textContent.trim()"))
        if "Drift" in names[names.index("Origin") + 1 :] if "Origin" in names else False:
            break
    assert names[0] == "Skip to the content" and names[1] == "Drift" and names[-1] == "Drift"
    assert tab.evaluate(SHOWN) == ["term-drift"]  # the keyboard is on it
    tab.press("Enter")
    assert tab.evaluate("document.querySelector('#term-drift').matches(':popover-open')")


def test_500_clips_fit_in_three_megabytes_and_open_in_a_second(tab: browser.Page, tmp_path: Path) -> None:
    save_golden(tmp_path / "golden.safetensors", 500)
    write_report(tmp_path, long_report(500))
    page = tmp_path / "report.html"
    assert page.stat().st_size < 3_000_000
    assert min(tab.show(page) for _ in range(3)) < 1.0
