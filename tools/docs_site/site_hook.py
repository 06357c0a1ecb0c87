"""What MkDocs calls while it builds the site: adds files of the project, and leads the links to them.

The pages in ``docs/`` are written for the repository, where a link leads to any file. On the site it leads to the page
made of that file, to a copy of it, or, if the site has neither, nowhere.
"""

from __future__ import annotations

import html as html_text
import os
import re
from pathlib import Path, PurePosixPath

import command_pages
import fetch_iframe_worker
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

REPOSITORY_PAGES = {"SECURITY.md": "security.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository that are pages of the site, by the page's name."""

CPP_HEADERS = "vivit_export/deploy/cpp/project/include/vivit"
"""The folder of which a plug-in makes pages."""

COPIED = ("examples", "benchmarks/results", "vivit_export/bundle/schemas")
"""Folders of which the site has copies, for links."""

_SHIM = "assets/javascripts/iframe-worker.js"
_REMOTE_SHIM = "https://unpkg.com/iframe-worker/shim"  # what the theme names; the site asks nothing of a network

_SEARCH = 'data-md-component="search" role="dialog"'
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the commands where the navigation has their index."""
    index = "commands/index.md"
    for section in config.nav or []:
        for entries in section.values():
            if index in entries:
                names = [{name: f"commands/{command_pages.file_of(name)}"} for name in command_pages.commands()]
                entries[entries.index(index)] = {"Commands": [index, *names]}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is not in ``docs/``."""
    for name, page in REPOSITORY_PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for folder in COPIED:
        for path in sorted(p for p in (ROOT / folder).rglob("*") if p.is_file()):
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV))
    files.append(File.generated(config, _SHIM, abs_src_path=str(fetch_iframe_worker.fetch())))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page that are files of the repository to what the site has of them."""
    uri = page.file.src_uri
    origin = next((name for name, there in REPOSITORY_PAGES.items() if there == uri), f"docs/{uri}")
    if not (ROOT / origin).exists():  # made by a plug-in
        return markdown

    def lead(found: re.Match[str]) -> str:
        picture, text, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        path, _, anchor = target.partition("#")
        there = site_uri(PurePosixPath(os.path.normpath(PurePosixPath(origin).parent / path)))
        if there is None or files.get_file_from_path(there) is None:
            return text if (ROOT / PurePosixPath(origin).parent / path).exists() else found[0]
        relative = os.path.relpath(there, PurePosixPath(uri).parent)
        return f"{picture}[{text}]({relative}{'#' + anchor if anchor else ''})"

    return _LINK.sub(lead, markdown)


def site_uri(path: PurePosixPath) -> str | None:
    """Where the site has a file of the repository; None: nowhere."""
    known = {**REPOSITORY_PAGES, CPP_HEADERS: "cpp/annotated.md"}
    if path.as_posix() in known:
        return known[path.as_posix()]
    if path.parts[:1] == ("docs",):
        return path.relative_to("docs").as_posix()
    return path.as_posix() if any(path.is_relative_to(folder) for folder in COPIED) else None


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write formulas as MathML, which browsers show without a script."""
    html = _FORMULA.sub(lambda found: _formula(found[2], "inline" if found[1] == "span" else "block"), html)
    return html.replace("<th></th>", "<td></td>")  # a head of nothing is none


def _formula(latex: str, display: str) -> str:
    return convert(html_text.unescape(latex), display=display)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Take the theme's one script of a server from the site, and name its dialog."""
    there = os.path.relpath(_SHIM, PurePosixPath(page.file.dest_uri).parent)
    output = output.replace(_SEARCH, f'{_SEARCH} aria-label="Search"')
    return output.replace(_REMOTE_SHIM, there)


def on_post_template(output: str, *, template_name: str, config: MkDocsConfig) -> str:
    """Do the same in the page for addresses that lead nowhere, which has no place of its own."""
    return output.replace(_REMOTE_SHIM, f"/{_SHIM}") if template_name == "404.html" else output
