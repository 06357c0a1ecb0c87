"""The commands that publish a bundle on a hub of models, and get one from there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vivit_export.cli.command import Command
from vivit_export.cli.options import force_option, output_options
from vivit_export.cli.show import show_json, show_text
from vivit_export.cli.values import BUNDLE, PATH

if TYPE_CHECKING:
    from vivit_export.progress import Silent


@click.command(
    cls=Command,
    interrupted="nothing was published",
    examples=("vivit push out/demo me/demo", "vivit push out/demo me/demo --private --license apache-2.0"),
)
@click.argument("bundle", type=BUNDLE)
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Create the repository for its owner only.")
@click.option("--branch", default="main", show_default=True, help="Branch to commit to.")
@click.option("--pull-request", is_flag=True, help="Propose the commit instead.")
@click.option("--message", help="Message of the commit.  [default: names the model]")
@click.option("--license", "license_id", metavar="NAME", help="License of the model, such as apache-2.0.")
@click.option("--no-card", is_flag=True, help="Write no model card.")
@output_options
def push(
    bundle: Path,
    repo: str,
    private: bool,
    branch: str,
    pull_request: bool,
    message: str | None,
    license_id: str | None,
    no_card: bool,
    as_json: bool,
    progress: Silent,
) -> None:
    """Verify BUNDLE and publish it as OWNER/NAME on the Hugging Face Hub, with its model card.

    Log in first: set HF_TOKEN, or run hf auth login. A repository that does not exist is created. One commit adds the
    files of BUNDLE and removes those of an earlier bundle there; files of others stay.
    """
    from vivit_export.sharing import push as run

    done = run(
        bundle,
        repo,
        private=private,
        branch=branch,
        pull_request=pull_request,
        message=message,
        license_id=license_id,
        with_card=not no_card,
        progress=progress,
    )
    if as_json:
        facts = {"address": str(done.address), "url": done.url, "changed": done.changed, "removed": list(done.removed)}
        show_json(facts)
        return
    there = "" if done.changed else ", which was there already"
    show_text(f"{done.address}{there}\n  page  {done.url}\n  use   vivit predict {done.address} VIDEO")


@click.command(cls=Command, examples=("vivit pull hf://me/demo -o out/demo",))
@click.argument("address", metavar="hf://OWNER/NAME[@REVISION]")
@click.option("-o", "--output", required=True, type=PATH, metavar="DIR", help="Folder for the bundle.")
@force_option
@output_options
def pull(address: str, output: Path, force: bool, as_json: bool, progress: Silent) -> None:
    """Download a bundle from the Hugging Face Hub into a folder of your own, and verify it.

    Commands that only read a bundle take the address itself. REVISION is a branch, a tag or a commit.
    """
    from vivit_export.sharing import pull as run

    found = run(address, output, force=force, progress=progress)
    if as_json:
        show_json({"bundle": str(output), "model": found.manifest.model.id, "precision": str(found.precision)})
        return
    show_text(f"{output}  {found.manifest.model.id} in {found.precision}, {len(found.manifest.files)} files verified")
