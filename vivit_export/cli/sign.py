"""The commands that sign a bundle and verify who signed it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vivit_export.cli.command import Command
from vivit_export.cli.options import output_options
from vivit_export.cli.show import show_json, show_text
from vivit_export.cli.values import BUNDLE, FILE
from vivit_export.errors import InputError, UsageError, counted, option
from vivit_export.printing import one_line
from vivit_export.records import JsonObject

if TYPE_CHECKING:
    from vivit_export.bundle.signatures.trust import Trust
    from vivit_export.bundle.signatures.verify import Signer
    from vivit_export.progress import Silent

PASSWORD_VARIABLE = "VIVIT_KEY_PASSWORD"


@click.command(cls=Command, examples=("vivit sign out/demo --key signer.pem",))
@click.argument("bundle", type=BUNDLE)
@click.option("--key", required=True, type=FILE, help="Your private key: a PEM file, on P-256, P-384 or P-521.")
@click.option(
    "--certificate",
    "certificates",
    multiple=True,
    type=FILE,
    help="Your certificate, and then those of authorities (PEM), so that others need not have your key. Repeatable.",
)
@click.option(
    "--password-file",
    type=FILE,
    help=f"File whose first line is the key's password.  [default: {PASSWORD_VARIABLE}, or asked for]",
)
@click.option("--force", is_flag=True, help="Replace a signature.")
@output_options
def sign(
    bundle: Path,
    key: Path,
    certificates: tuple[Path, ...],
    password_file: Path | None,
    force: bool,
    as_json: bool,
    progress: Silent,
) -> None:
    """Sign BUNDLE: write model.sig into it, which OpenSSF Model Signing's own tools verify, too."""
    from vivit_export.bundle.signatures.sign import sign_bundle

    password = _password(key, password_file)
    signer = sign_bundle(bundle, key, password=password, certificates=certificates, force=force, progress=progress)
    _show(bundle, signer, "signed", as_json)


def _password(key: Path, file: Path | None) -> str | None:
    """Return the key's password: from a file, the environment, or whoever types it; None: it has none."""
    from vivit_export.bundle.signatures.keys import is_encrypted

    if file is not None:
        try:
            return file.read_text(encoding="utf-8").split("\n")[0].removesuffix("\r")
        except (OSError, ValueError) as e:
            raise InputError(f"{option('password_file', file)} cannot be read as text") from e
    if not is_encrypted(key):
        return None
    if (password := os.environ.get(PASSWORD_VARIABLE)) is not None:
        return password
    if not sys.stdin.isatty():
        raise UsageError(f"{key} is encrypted; give {option('password_file')}, or set {PASSWORD_VARIABLE}")
    try:
        return str(click.prompt(f"Password of {one_line(str(key))}", hide_input=True, err=True))
    except click.Abort:
        raise KeyboardInterrupt from None


@click.command(
    cls=Command,
    examples=(
        "vivit verify out/demo --key signer-public.pem",
        "vivit verify out/demo --certificate authority.pem --identity release@example.com",
    ),
)
@click.argument("bundle", metavar="BUNDLE|DEPLOYMENT", type=BUNDLE)
@click.option("--key", "keys", multiple=True, type=FILE, help="Public key (PEM) that you trust. Repeatable.")
@click.option(
    "--certificate",
    "certificates",
    multiple=True,
    type=FILE,
    help="Certificates (PEM) that you trust: of signers, or of authorities that vouch for them. Repeatable.",
)
@click.option("--identity", metavar="NAME", help="Name that the signer's certificate must have.")
@output_options
def verify(
    bundle: Path,
    keys: tuple[Path, ...],
    certificates: tuple[Path, ...],
    identity: str | None,
    as_json: bool,
    progress: Silent,
) -> None:
    """Verify who signed BUNDLE, every file that it lists, and that there are no others; else exit with 3.

    A DEPLOYMENT that vivit deploy made of a signed bundle is verified, too. Without --key and --certificate, the
    environment variable VIVIT_REQUIRE_SIGNATURE names the files that you trust.
    """
    from vivit_export.bundle.names import MANIFEST
    from vivit_export.bundle.signatures.sign import verify_whole
    from vivit_export.deploy.listing import LISTING

    trust = _trust(keys, certificates, identity)
    if (bundle / LISTING).is_file() and not os.path.lexists(bundle / MANIFEST):  # what has both is opened as a bundle
        _verify_deployment(bundle, trust, as_json, progress)
        return
    with progress.stage("verify the bundle"):
        signer = verify_whole(bundle, trust)
    _show(bundle, signer, "verified", as_json)


def _trust(keys: tuple[Path, ...], certificates: tuple[Path, ...], identity: str | None) -> Trust:
    from vivit_export.bundle.signatures.trust import FILES_VARIABLE, read_trust, trust_of_environment

    if not keys and not certificates:
        found = trust_of_environment()
        if found is None or identity is not None:
            raise UsageError(
                f"{option('key')} or {option('certificate')} says whom you trust; give one, or set {FILES_VARIABLE}"
            )
        return found
    if keys and (wrong := read_trust(keys)).certificates:
        raise UsageError(f"{wrong.source} holds certificates; give them with {option('certificate')}")
    if certificates and (wrong := read_trust(certificates)).keys:
        raise UsageError(f"{wrong.source} holds a public key; give it with {option('key')}")
    return read_trust((*keys, *certificates), identity)


def _verify_deployment(folder: Path, trust: Trust, as_json: bool, progress: Silent) -> None:
    from vivit_export.deploy.proof import verify_deployment

    with progress.stage("verify the deployment"):
        proof = verify_deployment(folder, trust)
    if as_json:
        show_json(
            {
                **_facts(folder, proof.signer),
                "kind": proof.kind,
                "files": sorted(proof.signed),
                "derived": sorted(proof.derived),
                "unsigned": sorted(proof.unsigned),
            }
        )
        return
    files = ", ".join(proof.derived)
    derived = f"  derived    {files}: the signed graph with fused attention\n" if files else ""
    show_text(
        f"{folder}  from a bundle signed by {proof.signer.title}, verified\n"
        f"  signed     {counted(len(proof.signed), 'files')}: {', '.join(proof.signed)}\n{derived}"
        f"  unsigned   {counted(len(proof.unsigned), 'files')}, as vivit deploy wrote them"
    )


def _facts(folder: Path, signer: Signer) -> JsonObject:
    return {"folder": str(folder), "key": signer.key, "names": list(signer.names), "files": sorted(signer.files)}


def _show(folder: Path, signer: Signer, done: str, as_json: bool) -> None:
    if as_json:
        show_json(_facts(folder, signer))
        return
    show_text(f"{folder}  {done}, {counted(len(signer.files), 'files')}\n  signed by  {signer.title}")
