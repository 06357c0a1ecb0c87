"""The command that looks at the machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vivit_export.cli.command import Command
from vivit_export.cli.options import output_options
from vivit_export.cli.show import show_json, show_text
from vivit_export.cli.values import BUNDLE
from vivit_export.errors import EnvironmentFault

if TYPE_CHECKING:
    from vivit_export.progress import Silent


@click.command(cls=Command, examples=("vivit doctor", "vivit doctor out/demo", "vivit doctor --json"))
@click.argument("bundle", type=BUNDLE, required=False)
@output_options
def doctor(bundle: Path | None, as_json: bool, progress: Silent) -> None:
    """Show what is installed, what this machine can do, and how to get what is missing.

    With BUNDLE, also open it on each engine, which runs a golden clip; exit with 7 if none runs it.
    """
    from vivit_export.bundle import read_bundle
    from vivit_export.doctor import diagnose

    found = None
    if bundle is not None:
        with progress.stage("verify the bundle"):
            found = read_bundle(bundle)
    with progress.stage("try the engines"):
        diagnosis = diagnose(found)
    if as_json:
        show_json(diagnosis.to_json())
    else:
        show_text(str(diagnosis))
    if diagnosis.engines and all(engine.reason is not None for engine in diagnosis.engines):
        raise EnvironmentFault(f"no engine can run {bundle} here; the reasons are above")
