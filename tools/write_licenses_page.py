"""Write ``docs/licenses.md``: the packages that each extra installs, and the licenses that they state.

    .venv/bin/python tools/write_licenses_page.py

The packages are those of the environment that `make venv` makes; a test compares the page. Native code inside of wheels
has licenses of its own, which `_NATIVE` names where they say more than the package's.
"""

from __future__ import annotations

from pathlib import Path

from vivit_export.bundle.sbom import Package
from vivit_export.export.installed import installed_packages

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/licenses.md"
EXTRAS = ("export", "cpu", "hub", "openvino", "ray", "rtx", "sign", "triton")

_INTRO = """# Licenses

`tools/write_licenses_page.py` writes this page from what is installed for the tests on Linux: every package that ours
requires, with what it requires in turn, and the license that it states. This package is under Apache-2.0. `--sbom`
writes the same into a bundle, with versions.
"""
_NATIVE = """## Native code inside

What a wheel contains besides Python has licenses of its own, in the wheel's `*.dist-info` folder.

- `av` contains FFmpeg, which states "LGPL version 3 or later", and next to it x264 and x265, which are under the GPL,
  version 2 or later, or under a commercial license. Read both before you redistribute an image or a program with it. A
  PyAV that you build against an FFmpeg of your own has what you choose; this package encodes nothing.
- `tensorrt-rtx` and `tensorrt` are proprietary. NVIDIA's agreement, which comes with them, says what you may
  redistribute.
- `torch` for CUDA brings NVIDIA's libraries under NVIDIA's agreements; they are not listed here, because the tests use
  the build for the CPU.
"""


def page() -> str:
    """Return the page's text."""
    base = {package.name: package for package in installed_packages(())}
    parts = [_INTRO, "## Base install\n", _packages(base)]
    for extra in EXTRAS:
        added = {p.name: p for p in installed_packages((extra,)) if p.name not in base}
        parts += [f"## `[{extra}]` adds\n", _packages(added)]
    return "\n".join((*parts, _NATIVE))


def _packages(packages: dict[str, Package]) -> str:
    rows = [f"| {p.name} | {p.license or 'not stated'} |" for p in packages.values() if p.name != "vivit-export"]
    return "\n".join(("| package | license |", "|---|---|", *rows, ""))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
