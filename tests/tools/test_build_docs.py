"""The documentation as a site: complete, without a link that leads nowhere, readable by everybody, and offline."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import build_docs
import click
import error_page
import fetch_iframe_worker
import pytest
import write_reference_pages
import yaml
from capabilities import fetched

import vivit_export as ve
from vivit_export import cli
from vivit_export.errors import VivitExportError

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vivit_export"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site, built as ``make docs`` does: a fault of a page or a link fails it."""
    fetched("fetch_doxygen.py", "doxygen")
    fetched("fetch_iframe_worker.py", "iframe-worker")
    folder = tmp_path_factory.mktemp("site")
    build_docs.build(folder)
    return folder


def text_of(page: Path) -> str:
    """What a page says, without its tags, in single spaces."""
    content = page.read_text(encoding="utf-8")
    content = content[content.index("<article") : content.index("</article>")]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", content)).split())


# --- complete ------------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not page.startswith("commands/")} <= named  # those are added when it is built


def test_the_pages_made_from_code_are_up_to_date() -> None:
    made = write_reference_pages.pages()
    written = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in made}
    assert written == made, "run: PYTHONPATH=tools:tools/docs_site python tools/write_reference_pages.py"
    assert {f"commands/{path.name}" for path in (ROOT / "docs/commands").iterdir()} <= made.keys()


@pytest.mark.parametrize("module", ["vivit_export", "vivit_export.runtime"])
def test_every_public_name_is_in_the_reference(site: Path, module: str) -> None:
    ids = set(re.findall(r'id="([\w.]+)"', (site / "python-api.html").read_text(encoding="utf-8")))
    names = ve.__all__ if module == "vivit_export" else ve.runtime.__all__
    missing = [name for name in names if f"{module}.{name}" not in ids and name not in ("__version__", "runtime")]
    assert not missing
    assert f"{module}.no_such_name" not in ids


def commands(command: click.Command = cli.vivit, *words: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(words), command
        return
    for name, inner in command.commands.items():
        yield from commands(inner, *words, name)


COMMANDS = dict(commands())


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_is_in_the_reference(site: Path, words: str) -> None:
    command = COMMANDS[words]
    name = "vivit-export" if words == "export" else words.replace(" ", "-")
    told = text_of(site / f"commands/{name}.html")
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert all(re.search(rf"(?<![\w-]){flag}(?![\w-])", told) for flag in option.opts), option.opts
        elif isinstance(option, click.Argument):
            assert option.make_metavar(click.Context(command)).strip("[].") in told


def test_every_exit_code_has_a_cause_and_a_cure(site: Path) -> None:
    page = (site / "errors.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<h2 id="(\d+)-.*?</h2>(.*?)(?=<h2|</article>)', page, re.DOTALL))
    codes = {1, 130} | {kind.exit_code for kind in all_errors(VivitExportError)}
    assert {int(code) for code in sections} == codes
    assert all("What to do:" in sections[str(code)] for code in codes)


def all_errors(kind: type[VivitExportError]) -> Iterator[type[VivitExportError]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from all_errors(inner)


def literals() -> Iterator[tuple[str, str]]:
    """Where an error is raised, and the longest piece of its sentence that never changes."""
    pattern = re.compile(r"^class (\w+)\((?:\w+Error|EnvironmentFault)\):", re.MULTILINE)
    named = {name for path in PACKAGE.rglob("*.py") for name in pattern.findall(path.read_text(encoding="utf-8"))}
    names = {name for name in named if name not in ("DuplicateKeyError", "_MalformedError")} | {"VivitExportError"}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in names and node.args:
                values = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else node.args[:1]
                pieces = [str(part.value) for part in values if isinstance(part, ast.Constant)]
                if pieces:
                    yield f"{path.name}:{node.lineno}", " ".join(max(pieces, key=len).split())


def test_every_sentence_of_an_error_is_in_the_reference(site: Path) -> None:
    told, found = text_of(site / "errors.html"), list(literals())
    assert len(found) > 600
    assert not [(place, piece) for place, piece in found if len(piece) > 4 and piece not in told]


def test_only_these_errors_have_no_sentence_of_their_own() -> None:
    passing_on = {
        path.name for _, call, path in error_page.raised() if not call.args or not error_page.sentences(call.args[0])
    }
    assert passing_on == {
        "certificates.py", "compare.py", "frames.py", "front.py", "in_memory.py", "pipeline.py", "predict.py",
        "processes.py", "run.py", "sampling.py", "verify.py", "videos.py",
    }  # fmt: skip


def test_every_variable_of_the_environment_is_explained() -> None:
    names = {
        name
        for path in PACKAGE.rglob("*.py")
        for name in re.findall(r"\"(VIVIT_[A-Z_]+[A-Z])\"", path.read_text(encoding="utf-8"))
    }
    told = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    assert {"VIVIT_MAX_PIXELS", "VIVIT_REQUIRE_SIGNATURE"} <= names
    assert not {name for name in names if name not in told}


# --- offline -------------------------------------------------------------------------------------


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        loaded = re.findall(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=\"?(https?:[^\s\">]+)", page.read_text())
        assert not loaded, page


def test_no_page_names_a_folder_of_this_machine(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert str(ROOT) not in page.read_text(encoding="utf-8"), page


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running.page()


def test_the_search_finds_a_word_without_a_server(tab: browser.Page, site: Path) -> None:
    tab.show(site / "index.html")
    tab.evaluate(
        "(e => {e.focus(); e.value = 'McNemar'; e.dispatchEvent(new Event('input', {bubbles: true}));"
        " e.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true}))})"
        "(document.querySelector('.md-search__input'))"
    )
    found = tab.wait_until("[...document.querySelectorAll('.md-search-result__link')].map(e => e.href)")
    assert found and any(re.split("[?#]", address)[0].endswith("checking.html") for address in found)
    assert {address.partition(":")[0] for address in tab.requests} <= {"file", "data", "blob", "about"}


# --- for everybody -------------------------------------------------------------------------------

KINDS = (
    "index.html",
    "tutorials/gate.html",
    "commands/vivit-export.html",
    "python-api.html",
    "cpp/classvivit_1_1Session.html",
    "errors.html",
    "schemas.html",
    "sizing.html",
    "performance.html",
)


@pytest.mark.parametrize("page", KINDS)
def test_it_fits_a_phone_and_a_wide_screen(tab: browser.Page, site: Path, page: str) -> None:
    for width in (360, 768, 1280, 1920):
        tab.show(site / page, width=width)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert not tab.complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", KINDS)
def test_axe_finds_nothing(tab: browser.Page, site: Path, page: str, scheme: browser.Scheme) -> None:
    tab.show(site / page, width=1280, scheme=scheme)
    assert tab.violations(browser.axe()) == []


# --- its parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["gone.md", "index.md#gone"])
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path, target: str) -> None:
    fetched("fetch_doxygen.py", "doxygen")
    settings = yaml.safe_dump({"site_name": "x", "strict": True, "validation": settings_of_the_site()["validation"]})
    (tmp_path / "mkdocs.yml").write_text(settings)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(f"# x\n\n[gone]({target})\n")
    with pytest.raises(build_docs.Faulty, match=rf"{target}"):
        build_docs.build(tmp_path / "site", tmp_path)


def test_a_script_other_than_the_one_looked_at_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fetched("fetch_iframe_worker.py", "iframe-worker")
    monkeypatch.setattr(fetch_iframe_worker, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match="has the SHA-256"):
        fetch_iframe_worker.fetch(tmp_path / "shim")
    assert not (tmp_path / "shim").exists()


def settings_of_the_site() -> dict[str, Any]:
    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Takes MkDocs' tag for variables of the environment as it stands."""

    Loader.add_constructor("!ENV", lambda loader, node: loader.construct_sequence(node))
    found: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    return found


def test_faults_end_the_build_and_no_font_is_loaded() -> None:
    found = settings_of_the_site()
    assert found["strict"] is True and found["theme"]["font"] is False
