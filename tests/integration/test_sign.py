"""``vivit sign`` and ``vivit verify``, and what the other verbs say about signatures."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
from pathlib import Path

import pytest
from attacked import make
from bundles import need
from command_line import Cli
from console import BIN, console, tree

need("cryptography")
from made_chains import MIDDLE, ROOT  # noqa: E402
from made_keys import certify, digests_of, make_key, write_certificates, write_pair, write_private  # noqa: E402

from vivit_export.demo import clips_path  # noqa: E402


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("signed") / "bundle")


@pytest.fixture
def place(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a bundle ``b`` and the keys of a signer."""
    shutil.copytree(original, tmp_path / "b")
    write_pair(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_bundle_is_signed_and_verified(cli: Cli, place: Path) -> None:
    signed = cli("sign", "b", "--key", "signer.pem", "-q").stdout.splitlines()
    assert signed[0] == "b  signed, 7 files"
    assert signed[1].startswith("  signed by  key ")
    verified = cli("verify", "b", "--key", "signer.pub", "-q").stdout.splitlines()
    assert verified == ["b  verified, 7 files", signed[1]]
    facts = json.loads(cli("verify", "b", "--key", "signer.pub", "--json", "-q").stdout)
    assert facts == {"folder": "b", "key": facts["key"], "names": [], "files": sorted(digests_of(Path("b")))}
    assert len(facts["key"]) == 64 and facts["key"][:16] in signed[1]
    assert "exists; pass --force to replace that file" in cli("sign", "b", "--key", "signer.pem", "-q", code=3).stderr
    assert json.loads(cli("sign", "b", "--key", "signer.pem", "--force", "--json", "-q").stdout) == facts


def test_certificates_on_the_command_line(cli: Cli, place: Path) -> None:
    me = certify("me", MIDDLE)
    write_private(me.key, Path("me.pem"))
    write_certificates(Path("own.pem"), me)
    write_certificates(Path("between.pem"), MIDDLE)
    write_certificates(Path("ca.pem"), ROOT)
    chain = ("--certificate", "own.pem", "--certificate", "between.pem")
    assert "signed by  me (key " in cli("sign", "b", "--key", "me.pem", *chain, "-q").stdout
    assert "signed by  me (key " in cli("verify", "b", "--certificate", "ca.pem", "--identity", "me", "-q").stdout
    said = cli("verify", "b", "--certificate", "ca.pem", "--identity", "you", "-q", code=3).stderr
    assert said == "error: b/model.sig was made by me, not by you\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["verify", "b"], 2, "--key or --certificate says whom you trust; give one, or set VIVIT_REQUIRE_SIGNATURE"),
        (["verify", "b", "--identity", "me"], 2, "--key or --certificate says whom you trust"),
        (["verify", "b", "--key", "signer.pub", "--identity", "me"], 2, "--identity is the name in a certificate, but"),
        (["verify", "b", "--key", "ca.pem"], 2, "ca.pem holds certificates; give them with --certificate"),
        (["verify", "b", "--certificate", "signer.pub"], 2, "signer.pub holds a public key; give it with --key"),
        (["verify", "b", "--key", "signer.pem"], 3, "signer.pem holds a private key, which only the signer may have"),
        (["verify", "b", "--key", "nowhere"], 3, "nowhere cannot be read (No such file or directory); give a PEM file"),
        (["verify", "b", "--key", "signer.pub"], 3, "b is not signed: it has no model.sig; sign it with: vivit sign b"),
        (["verify", "nowhere", "--key", "signer.pub"], 3, "nowhere is not a folder"),
        (["sign", "b"], 2, "Missing option '--key'"),
        (["sign", "b", "--key", "signer.pub"], 3, "signer.pub holds a public key; to sign, give the file"),
        (["sign", "b", "--key", "secret.pem"], 2, "secret.pem is encrypted; give --password-file, or set VIVIT"),
        (["sign", "b", "--key", "signer.pem", "--password-file", "word"], 2, "is not encrypted; leave --password-file"),
        (["sign", "b", "--key", "secret.pem", "--password-file", "ca.pem"], 3, "the password is wrong"),
        (["sign", "b", "--key", "secret.pem", "--password-file", "nowhere"], 3, "--password-file nowhere cannot be"),
        (["sign", "b", "--key", "signer.pem", "--certificate", "ca.pem"], 3, "is not for signatures: its usage lacks"),
        (["predict", "b", "x.mp4", "--require-signature", "signer.pub"], 3, "b is not signed"),
        (["check", "b", "--require-signature", "signer.pub"], 3, "b is not signed"),
        (["check", "b", "--identity", "me"], 2, "--identity is for --require-signature; give both"),
        (["deploy", "cpp", "b", "app", "--require-signature", "signer.pub"], 3, "b is not signed"),
        (["deploy", "triton", "b", "models", "--require-signature", "signer.pub"], 3, "b is not signed"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(cli: Cli, place: Path, arguments: list[str], code: int, said: str) -> None:
    write_certificates(Path("ca.pem"), ROOT)
    write_private(make_key(), Path("secret.pem"), "word")
    Path("word").write_text("word\n")
    shutil.copy(next(clips_path().glob("*.mp4")), "x.mp4")
    before = tree(place)
    done = cli(*arguments, code=code)
    assert said in " ".join(done.stderr.split()), done.stderr
    assert tree(place) == before


@pytest.mark.parametrize("content", ["wörd", "wörd\n", "wörd\r\n", "wörd\nmore\n"])
def test_the_password_is_the_first_line_of_a_file(cli: Cli, place: Path, content: str) -> None:
    write_private(make_key(), Path("secret.pem"), "wörd")
    Path("word").write_bytes(content.encode())
    cli("sign", "b", "--key", "secret.pem", "--password-file", "word", "-q")


def test_the_password_may_come_from_the_environment(place: Path) -> None:
    write_private(make_key(), Path("secret.pem"), "word")
    environment = {**os.environ, "VIVIT_KEY_PASSWORD": "word"}
    done = console("vivit", "sign", "b", "--key", "secret.pem", cwd=place, env=environment)
    assert done.returncode == 0, done.stderr
    assert "word" not in done.stdout + done.stderr
    done = console("vivit", "sign", "b", "--key", "signer.pem", "--force", cwd=place, env=environment)
    assert done.returncode == 0, "a key without a password needs none"


def at_a_terminal(typed: bytes) -> tuple[int, str]:
    """Sign in a terminal of its own, typing something when asked; return the exit code and what is seen.

    What is typed is typed again after a while, as people do: Python misses a Ctrl-C that comes just before it reads.
    """
    command = [str(BIN / "vivit"), "sign", "b", "--key", "secret.pem", "-q"]
    process, terminal = pty.fork()
    if process == 0:
        os.execv(command[0], command)
    seen = b""
    with contextlib.suppress(OSError):  # the end of what a terminal shows
        while True:
            if select.select([terminal], [], [], 5)[0]:
                if not (piece := os.read(terminal, 1000)):
                    break
                seen += piece
            if seen.endswith(b": "):
                os.write(terminal, typed)
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), seen.decode()


def test_the_password_is_asked_for_at_a_terminal_and_not_shown(place: Path) -> None:
    write_private(make_key(), Path("secret.pem"), "swordfish")
    code, seen = at_a_terminal(b"swordfish\n")
    assert (code, seen.splitlines()[0]) == (0, "Password of secret.pem: ")
    assert "signed by" in seen and "swordfish" not in seen
    (place / "b/model.sig").unlink()
    code, seen = at_a_terminal(b"\x03")
    assert (code, seen.splitlines()[-1]) == (130, "error: interrupted; nothing was written")
    assert not (place / "b/model.sig").exists()


def test_without_the_package_one_sentence_says_what_to_install(place: Path) -> None:
    (place / "site").mkdir()
    (place / "site/sitecustomize.py").write_text("import sys\nsys.modules['cryptography'] = None\n")
    inherited = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PYTHONPATH": f"{place / 'site'}{os.pathsep}{inherited}"}
    sentence = (
        "error: signing a bundle, or verifying who signed it, needs the package cryptography, which is not installed; "
        'install it with: pip install "vivit-export[sign]"\n'
    )
    for command in (["sign", "b", "--key", "signer.pem"], ["verify", "b", "--key", "signer.pub"]):
        done = console("vivit", *command, "-q", cwd=place, env=environment)
        assert (done.returncode, done.stderr) == (7, sentence)
    done = console("vivit", "check", "b", "-q", cwd=place, env={**environment, "VIVIT_REQUIRE_SIGNATURE": "signer.pub"})
    assert (done.returncode, done.stderr) == (7, sentence)
    done = console("vivit", "inspect", "b", "-q", cwd=place, env=environment)
    assert done.returncode == 0 and "  signature  none\n" in done.stdout


def test_who_signed_is_told_and_unsigned_is_told(cli: Cli, place: Path) -> None:
    later = ", not verified; verify it with: vivit verify b --key FILE (or --certificate FILE)"
    for claim in (None, f"by a key{later}"):
        assert f"  signature  {claim or 'none'}\n" in cli("inspect", "b", "-q").stdout
        assert json.loads(cli("inspect", "b", "--json", "-q").stdout)["signature"] == claim
        cli("sign", "b", "--key", "signer.pem", "--force", "-q")
