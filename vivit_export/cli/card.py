"""The command that writes a model card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vivit_export.cli.command import Command
from vivit_export.cli.options import output_options
from vivit_export.cli.show import show_json, show_text
from vivit_export.cli.values import BUNDLE, FILE
from vivit_export.errors import UsageError, option

if TYPE_CHECKING:
    from vivit_export.progress import Silent


@click.command(cls=Command, examples=("vivit card out/demo", "vivit card out/demo --license apache-2.0 -o README.md"))
@click.argument("bundle", type=BUNDLE)
@click.option("-o", "--output", type=FILE, help="Write the card to this file.  [default: print it]")
@click.option("--license", "license_id", metavar="NAME", help="License of the model, such as apache-2.0.")
@click.option("--force", is_flag=True, help="Replace the file of --output if it exists.")
@output_options
def card(
    bundle: Path, output: Path | None, license_id: str | None, force: bool, as_json: bool, progress: Silent
) -> None:
    """Verify BUNDLE and write its model card: a README.md with front matter, as hubs of models show it."""
    from vivit_export.bundle import read_bundle
    from vivit_export.deploy.listing import require_outside
    from vivit_export.files import check_file, writing_file
    from vivit_export.report.card import card as card_of

    if force and output is None:
        raise UsageError(f"{option('force')} replaces the file that {option('output')} writes; give both")
    if output is not None:
        check_file(output, force)
    with progress.stage("verify the bundle"):
        found = read_bundle(bundle)
    if output is not None:
        require_outside(found, output)  # a bundle with a file that it does not list cannot be signed
    text = card_of(found, license_id=license_id)
    if output is not None:
        with writing_file(output, force=force) as part:
            part.write_text(text, encoding="utf-8")
    if as_json:
        show_json({"bundle": str(bundle), "output": None if output is None else str(output), "card": text})
    else:
        show_text(text if output is None else str(output))
