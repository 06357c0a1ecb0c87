"""Publishing a bundle, and getting it back, against a local double of the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from console import files_of
from hub_server import Hub, Repository
from made_keys import write_pair
from noted import Noted
from small_bundle import CONTENT, make

import vivit_export as ve
from vivit_export.bundle import MANIFEST, read_bundle, write_manifest
from vivit_export.errors import BundleError, OutputError, SignatureError, UsageError
from vivit_export.sharing import CARD, pull, push


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "demo")


def test_what_is_pushed_comes_back_byte_for_byte(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    notes = Noted()
    done = push(bundle, "me/demo", license_id="mit", progress=notes)
    repository = hub.repositories["me/demo"]
    assert {n: c for n, c in repository.files.items() if n not in (".gitattributes", CARD)} == files_of(bundle)
    assert repository.files[CARD].startswith(b'---\nlicense: "mit"\nlibrary_name: vivit-export\n')
    assert b"vivit predict hf://me/demo video.mp4" in repository.files[CARD]
    assert done.changed
    assert not done.removed
    assert done.address.is_pinned
    assert repr(done) == f"<Pushed hf://me/demo@{repository.refs['main']}>"
    assert notes.notes == [
        "golden.safetensors holds frames of the clips that the bundle was checked on; they are published too"
    ]

    got = pull(str(done.address), tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(bundle)
    assert not any(path.is_symlink() for path in (tmp_path / "back").rglob("*"))
    assert got.path == tmp_path / "back"


def test_a_large_file_goes_over_lfs(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    with (bundle / "model.onnx").open("ab") as file:
        file.truncate(11 << 20)  # too large to be sent from memory, too
    write_manifest(bundle, CONTENT)
    push(bundle, "me/demo")
    assert any(path.startswith("/lfs/") for method, path in hub.requests if method == "PUT")
    pull("hf://me/demo", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(bundle)
    assert any(path.startswith("/lfs/") for method, path in hub.requests if method == "GET")


def test_a_signature_comes_along(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    private, public = write_pair(tmp_path)
    ve.sign_bundle(bundle, private)
    push(bundle, "me/demo")
    pull("hf://me/demo", tmp_path / "back")
    assert ve.verify_bundle(tmp_path / "back", public).key == ve.verify_bundle("hf://me/demo", public).key
    with pytest.raises(SignatureError):
        ve.verify_bundle("hf://me/demo", write_pair(tmp_path, "stranger")[1])
    (bundle / "model.sig").unlink()
    assert push(bundle, "me/demo").removed == ("model.sig",)


def test_an_earlier_bundle_leaves_nothing_and_other_files_stay(hub: Hub, bundle: Path) -> None:
    push(bundle, "me/demo")
    repository = hub.repositories["me/demo"]
    repository.commit({**repository.files, "notes/more.txt": b"mine"})
    (bundle / "golden.safetensors").unlink()
    (bundle / "model.onnx").write_bytes(b"another graph")
    write_manifest(bundle, CONTENT)
    assert push(bundle, "me/demo").removed == ("golden.safetensors",)
    assert set(repository.files) == {*files_of(bundle), CARD, ".gitattributes", "notes/more.txt"}
    assert repository.files["model.onnx"] == b"another graph"


def test_the_same_bundle_makes_no_commit(hub: Hub, bundle: Path) -> None:
    first = push(bundle, "me/demo")
    again = push(bundle, "hf://me/demo")
    assert (again.changed, again.address) == (False, first.address)
    assert repr(again).endswith(", which was there already>")


def test_a_card_of_somebody_else_stays(hub: Hub, bundle: Path) -> None:
    repository = hub.repositories["me/demo"] = Repository()
    repository.commit({CARD: b"---\ntags: x\n---\n# Mine\n\nlibrary_name: vivit-export\n"})
    notes = Noted()
    push(bundle, "me/demo", progress=notes)
    assert repository.files[CARD].startswith(b"---\ntags: x")
    assert notes.notes[0] == "README.md of me/demo was not written by vivit-export, so it is left as it is"


def test_without_a_card(hub: Hub, bundle: Path) -> None:
    push(bundle, "me/demo", with_card=False)
    assert CARD not in hub.repositories["me/demo"].files


def test_private(hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(bundle, "me/demo", private=True)
    assert hub.repositories["me/demo"].private
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(
        BundleError, match=r"^the hub shows no me/demo; check the spelling \(if it is private, set HF_TOKEN\)$"
    ):
        read_bundle("hf://me/demo")


def test_a_pull_request_leaves_the_branch(hub: Hub, bundle: Path) -> None:
    push(bundle, "me/demo")
    repository = hub.repositories["me/demo"]
    head = repository.refs["main"]
    (bundle / "model.onnx").write_bytes(b"another graph")
    write_manifest(bundle, CONTENT)
    done = push(bundle, "me/demo", pull_request=True, message="Better")
    assert (repository.refs["main"], repository.messages[-1]) == (head, "Better")
    assert done.url.endswith("/me/demo/discussions/1")
    assert (read_bundle("hf://me/demo@refs/pr/1").path / "model.onnx").read_bytes() == b"another graph"
    assert (read_bundle("hf://me/demo").path / "model.onnx").read_bytes() == b"graph"


def test_a_branch(hub: Hub, bundle: Path) -> None:
    push(bundle, "me/demo")
    repository = hub.repositories["me/demo"]
    repository.refs["fp8"] = repository.refs["main"]
    (bundle / "model.onnx").write_bytes(b"another graph")
    write_manifest(bundle, CONTENT)
    push(bundle, "me/demo", branch="fp8")
    assert repository.commits[repository.refs["fp8"]]["model.onnx"] == b"another graph"
    assert repository.files["model.onnx"] == b"graph"


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repo", "more", "told"),
    [
        ("demo", {}, "repo='demo' is not a repository to write to; write OWNER/NAME"),
        ("a/b/c", {}, "repo='a/b/c' is not a repository to write to; write OWNER/NAME"),
        ("hf://me/demo@main", {}, "repo='hf://me/demo@main' is not a repository to write to; write OWNER/NAME"),
        ("hf://me", {}, "'hf://me' is not an address of the hub; write hf://OWNER/NAME or hf://OWNER/NAME@REVISION"),
        ("me/demo", {"branch": ""}, "branch='' is not the name of a branch"),
        ("me/demo", {"branch": "a..b"}, "branch='a..b' is not the name of a branch"),
        (
            "me/demo",
            {"license_id": "MIT License"},
            "license_id='MIT License' is not the name of a license; give one like apache-2.0",
        ),
    ],
)
def test_names_that_are_none(hub: Hub, bundle: Path, repo: str, more: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError) as refused:
        push(bundle, repo, **more)  # type: ignore[arg-type]
    assert str(refused.value) == told
    assert not hub.repositories


def test_files_of_others_are_not_replaced(hub: Hub, bundle: Path) -> None:
    repository = hub.repositories["me/other"] = Repository()
    head = repository.commit({"model.onnx": b"another tool's"})
    with pytest.raises(
        OutputError, match=r"the repository has 'model.onnx', which is part of no bundle there and would be"
    ):
        push(bundle, "me/other")
    assert repository.refs["main"] == head


def test_a_damaged_bundle_is_not_pushed(hub: Hub, bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"grapH")
    with pytest.raises(BundleError, match=r"is not the file that bundle\.json describes"):
        push(bundle, "me/demo")
    assert not hub.repositories


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_signature_is_not_published(hub: Hub, bundle: Path, tmp_path: Path, kind: str) -> None:
    """A bundle of somebody else may hold a link to a secret of its user."""
    secret = tmp_path / "id_rsa"
    secret.write_text('{"secret": 1}')
    if kind == "link":
        (bundle / "model.sig").symlink_to(secret)
    else:
        (bundle / "model.sig").write_bytes(b"\xff")
    with pytest.raises(SignatureError):
        push(bundle, "me/demo")
    assert not hub.repositories


def test_a_bundle_that_lists_a_readme_keeps_it(hub: Hub, bundle: Path) -> None:
    (bundle / CARD).write_text("mine")
    write_manifest(bundle, CONTENT)
    push(bundle, "me/demo")
    push(bundle, "me/demo")
    assert hub.repositories["me/demo"].files[CARD] == b"mine"


def test_a_name_that_no_repository_can_have(hub: Hub, bundle: Path) -> None:
    (bundle / ".git").mkdir()
    (bundle / ".git/config").write_text("x")
    write_manifest(bundle, CONTENT)
    with pytest.raises(OutputError, match=r"^hf://me/demo@main is refused by the hub's client: Invalid .*\.git"):
        push(bundle, "me/demo")


def test_a_bundle_that_changes_meanwhile_is_not_pushed(hub: Hub, bundle: Path) -> None:
    def change(method: str, path: str) -> None:
        (bundle / "model.onnx").write_bytes(b"grapH")

    hub.before = change
    with pytest.raises(BundleError, match="changed since it was verified; push a bundle that nobody writes to"):
        push(bundle, "me/demo")
    assert set(hub.repositories["me/demo"].files) == {".gitattributes"}


@pytest.mark.parametrize(
    ("token", "repo", "told"),
    [
        (None, "me/demo", "the hub refuses hf://me/demo@main with status 401; set HF_TOKEN to a token that allows it"),
        (
            "hf_reader",
            "me/demo",
            "the hub refuses hf://me/demo@main with status 403; set HF_TOKEN to a token that allows it",
        ),
        ("hf_writer", "somebody-else/x", "the hub refuses hf://somebody-else/x@main with status 403; set HF_TOKEN to"),
    ],
)
def test_who_may_not_write(
    hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, repo: str, told: str
) -> None:
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(OutputError, match=f"^{told}"):
        push(bundle, repo)
    assert not hub.repositories


def test_a_branch_that_does_not_exist(hub: Hub, bundle: Path) -> None:
    push(bundle, "me/demo")
    with pytest.raises(OutputError, match=r"^hf://me/demo has no revision nowhere; check the spelling$"):
        push(bundle, "me/demo", branch="nowhere")


def test_a_commit_of_somebody_else_meanwhile(hub: Hub, bundle: Path) -> None:
    push(bundle, "me/demo")
    repository = hub.repositories["me/demo"]
    (bundle / "model.onnx").write_bytes(b"another graph")
    write_manifest(bundle, CONTENT)

    def commit(method: str, path: str) -> None:
        if "/commit/" in path and len(repository.messages) == 2:
            repository.commit({**repository.files, "more": b"x"})

    hub.before = commit
    with pytest.raises(OutputError, match=r"^hf://me/demo@main was changed meanwhile; run again$"):
        push(bundle, "me/demo")
    assert repository.files["model.onnx"] == b"graph"


def test_a_hub_that_fails(hub: Hub, bundle: Path) -> None:
    hub.before = lambda method, path: 500 if "/commit/" in path else None
    with pytest.raises(OutputError, match=r"^the hub answers with status 500 for hf://me/demo@main; try again later$"):
        push(bundle, "me/demo")


def test_pull_replaces_only_a_bundle_and_only_with_force(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    push(bundle, "me/demo")
    pull("hf://me/demo", tmp_path / "back")
    with pytest.raises(OutputError, match="exists; pass force to replace that bundle"):
        pull("hf://me/demo", tmp_path / "back")
    pull("hf://me/demo", tmp_path / "back", force=True)
    (tmp_path / "else").mkdir()
    (tmp_path / "else/file").touch()
    with pytest.raises(OutputError, match="exists and is not a bundle, so it is left alone"):
        pull("hf://me/demo", tmp_path / "else", force=True)
    with pytest.raises(BundleError, match="the hub shows no me/nothing"):
        pull("hf://me/nothing", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UsageError, match="is not an address of the hub"):
        pull("me/demo", tmp_path / "new")


def test_a_manifest_that_cannot_be_read_is_no_bundle_to_replace(hub: Hub, bundle: Path) -> None:
    repository = hub.repositories["me/demo"] = Repository()
    repository.commit({MANIFEST: json.dumps({"format": "vivit-bundle/9", "files": {"model.onnx": {}}}).encode()})
    with pytest.raises(OutputError, match=r"the repository has 'bundle\.json', which is part of no bundle"):
        push(bundle, "me/demo")
