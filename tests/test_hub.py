"""Addresses of the hub, and bundles opened by them, against a local double of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from bundles import need
from command_line import Cli, error_of
from console import Exported, files_of, tree
from hub_server import Hub, Repository, running_hub
from hypothesis import given
from hypothesis import strategies as st
from made_keys import write_pair
from small_bundle import CONTENT, make

import vivit_export as ve
from vivit_export.bundle import MANIFEST, read_bundle, write_manifest
from vivit_export.bundle.signatures.sign import sign_bundle
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
from vivit_export.errors import BundleError, OutputError, UsageError
from vivit_export.hub import HubAddress, cached_address, is_hub_address, parse_hub_address

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def published(hub: Hub, folder: Path, repo: str = "me/demo", more: Mapping[str, bytes] | None = None) -> Repository:
    """Put a bundle on the hub, as another program could have."""
    repository = hub.repositories[repo] = Repository()
    repository.commit({**files_of(folder), **(more or {})})
    return repository


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "demo")


# --- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://me/demo", HubAddress("me/demo")),
        ("hf://me/demo@main", HubAddress("me/demo", "main")),
        ("hf://me/demo@refs/pr/1", HubAddress("me/demo", "refs/pr/1")),
        (f"hf://My-Org/vivit_b.16x2@{COMMIT}", HubAddress("My-Org/vivit_b.16x2", COMMIT)),
    ],
)
def test_an_address(text: str, address: HubAddress) -> None:
    assert parse_hub_address(text) == address
    assert str(address) == text
    assert address.is_pinned == text.endswith(COMMIT)


@pytest.mark.parametrize(
    "text",
    [
        "hf://", "hf://me", "hf://me/", "hf:///demo", "hf://me/demo/engines", "hf://me/demo@", "hf://me/demo@a b",
        "hf://me/..", "hf://../demo", "hf://me/a--b", "hf://me/demo@../x", "hf://me/demo@-x", "hf://me/demo?x=1",
        "hf://me/démo", "hf://me/demo\n", f"hf://me/{'x' * 97}", "hf://user:pw@host/x", "HF://me/demo",
    ],
)  # fmt: skip
def test_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address of the hub; write hf://OWNER/NAME or hf://OWNER/NAME@REV"):
        parse_hub_address(text)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        found = parse_hub_address("hf://" + text)
    except UsageError:
        return
    assert str(found) == "hf://" + text
    assert ".." not in text


def test_what_is_meant_as_an_address() -> None:
    assert is_hub_address("hf://nonsense")
    assert not any(map(is_hub_address, ["me/demo", Path("hf://me/demo"), None, "triton://host/model"]))


@pytest.mark.parametrize(
    ("path", "address"),
    [
        (f"/x/hub/models--me--demo/snapshots/{COMMIT}", HubAddress("me/demo", COMMIT)),
        (f"models--me--demo/snapshots/{COMMIT}", HubAddress("me/demo", COMMIT)),
        (f"/x/models--me--demo/snapshots/{COMMIT}/engines", None),
        ("/x/models--me--demo/snapshots/main", None),
        (f"/x/datasets--me--demo/snapshots/{COMMIT}", None),
        (f"/x/models--demo/snapshots/{COMMIT}", None),
        ("/", None),
    ],
)
def test_a_folder_of_the_cache(path: str, address: HubAddress | None) -> None:
    assert cached_address(Path(path)) == address


# --- bundles -----------------------------------------------------------------------------------


def test_a_bundle_is_read_at_one_commit_and_only_what_it_lists(hub: Hub, bundle: Path) -> None:
    repository = published(hub, bundle, more={"README.md": b"x", "config.json": b"{}"})
    found = read_bundle("hf://me/demo")
    assert found.path.name == repository.refs["main"]
    assert files_of(found.path) == files_of(bundle)
    assert cached_address(found.path) == HubAddress("me/demo", repository.refs["main"])


def test_a_pinned_one_stays_what_it_was(hub: Hub, bundle: Path) -> None:
    repository = published(hub, bundle)
    first = repository.refs["main"]
    (bundle / "model.onnx").write_bytes(b"another graph")
    write_manifest(bundle, CONTENT)
    repository.commit(files_of(bundle))
    assert read_bundle(f"hf://me/demo@{first}").read("model.onnx") == b"graph"
    assert read_bundle("hf://me/demo").read("model.onnx") == b"another graph"


def test_without_a_network_the_cache_is_read(hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    repository = published(hub, bundle)
    read_bundle("hf://me/demo")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert read_bundle("hf://me/demo").read("model.onnx") == b"graph"
    assert read_bundle(f"hf://me/demo@{repository.refs['main']}").read("model.onnx") == b"graph"
    assert not hub.requests
    said = r"^the hub cannot be reached \(.*\) for hf://me/other, and bundle.json is not in the local cache; try again"
    with pytest.raises(BundleError, match=said):
        read_bundle("hf://me/other")


def test_a_copy_that_was_altered_is_not_used(hub: Hub, bundle: Path) -> None:
    published(hub, bundle)
    copy = read_bundle("hf://me/demo").path / "model.onnx"
    copy.resolve().write_bytes(b"grapH")
    with pytest.raises(BundleError, match=r"is not the file that bundle\.json describes"):
        read_bundle("hf://me/demo")


def test_a_file_other_than_its_manifest_says(hub: Hub, bundle: Path) -> None:
    published(hub, bundle, more={"model.onnx": b"grapH"})
    with pytest.raises(BundleError, match=r"is not the file that bundle\.json describes"):
        read_bundle("hf://me/demo")


def test_a_file_that_is_larger_is_not_downloaded(hub: Hub, bundle: Path) -> None:
    published(hub, bundle, more={"model.onnx": b"x" * 1000})
    with pytest.raises(
        BundleError,
        match=r"^hf://me/demo@\w{40} holds a model.onnx of 1000 bytes, where 5 are expected at most; it was not down",
    ):
        read_bundle("hf://me/demo")
    assert ("GET", "/me/demo/resolve/main/model.onnx") not in hub.requests


def test_a_manifest_beyond_the_limit_is_not_downloaded(hub: Hub, bundle: Path) -> None:
    published(hub, bundle, more={MANIFEST: b" " * (17 << 20)})
    with pytest.raises(BundleError, match=r"holds a bundle\.json of 17825792 bytes"):
        read_bundle("hf://me/demo")


@pytest.mark.parametrize("name", ["../../../evil", "/etc/evil", "a\\..\\evil"])
def test_a_manifest_that_leads_outside(hub: Hub, bundle: Path, tmp_path: Path, name: str) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][name] = manifest["files"]["model.onnx"]
    published(hub, bundle, more={MANIFEST: json.dumps(manifest).encode()})
    with pytest.raises(BundleError, match="which lies outside the bundle"):
        read_bundle("hf://me/demo")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("hf://me/nothing", r"^the hub shows no me/nothing; check the spelling \(HF_TOKEN may be of somebody else\)$"),
        ("hf://me/demo@v9", r"^hf://me/demo has no revision v9; check the spelling$"),
        ("hf://me/model", r"^hf://me/model has no bundle.json, so it holds no complete bundle; check the address$"),
        ("hf://me/half", r"^hf://me/half@\w{40} has no model.onnx, so it holds no complete bundle; check the address$"),
        ("hf://me/gated", r"^hf://me/gated asks its users to agree to terms first; do so on its page, and set HF_TOK"),
    ],
)
def test_what_is_not_there(hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch, address: str, told: str) -> None:
    published(hub, bundle)
    hub.repositories["me/model"] = Repository()
    hub.repositories["me/model"].commit({"config.json": b"{}"})
    half = published(hub, bundle, "me/half")
    half.commit({name: content for name, content in half.files.items() if name != "model.onnx"})
    published(hub, bundle, "me/gated").gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(BundleError, match=told):
        read_bundle(address)


def test_a_cache_that_cannot_be_written(hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    published(hub, bundle)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(bundle / "model.onnx/hub"))
    with pytest.raises(OutputError, match="cannot be written"):
        read_bundle("hf://me/demo")


def test_a_copy_in_the_cache_is_never_changed(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    published(hub, bundle)
    found = read_bundle("hf://me/demo")
    before = files_of(found.path)
    told = r"^hf://me/demo@\w{40} is on the hub and .* its copy in the cache, which is not changed; make one of your"
    with pytest.raises(OutputError, match=told + r" own: vivit pull hf://me/demo@\w{40} -o DIR$"):
        ve.build("hf://me/demo")
    with pytest.raises(OutputError, match=told):
        sign_bundle(found, write_pair(tmp_path)[0])
    assert files_of(found.path) == before


def test_what_is_no_bundle_is_told_to_be_a_path(bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"^target=hf://me/x is on the hub, not a path; download it first: vivit pull"):
        ve.deploy_cpp(bundle, "hf://me/x")


# --- commands ----------------------------------------------------------------------------------


def test_every_command_that_reads_a_bundle_takes_an_address(
    hub: Hub, demo_export: Exported, cli: Cli, tmp_path: Path
) -> None:
    demo = demo_export.bundle
    head = published(hub, demo).refs["main"]
    copy = tmp_path / f"hf/hub/models--me--demo/snapshots/{head}"
    clip = next((Path(ve.__file__).parent / "demo/clips").glob("left*"))
    commands = {
        "predict": [str(clip), "--json"],
        "inspect": ["--json"],
        "check": ["--json"],
        "check --compare hf://me/demo": [],
        "card": [],
        "deploy cpp": [str(tmp_path / "cpp")],
        "deploy triton": [str(tmp_path / "triton")],
    }
    for command, rest in commands.items():
        name, *options = command.split(" --")
        words = [word for option in options for word in f"--{option}".split(" ")]
        done = cli(*name.split(), "hf://me/demo", *rest, *words)
        assert f"hf://me/demo is hf://me/demo@{head} now, which always names these files" in done.stderr
        if name != "deploy cpp" and name != "deploy triton":
            own = cli(*name.split(), demo, *rest, *words)
            assert own.stdout.replace(str(copy), str(demo)) == done.stdout.replace(str(copy), str(demo)), command
    assert (tmp_path / "cpp/bundle/model.onnx").read_bytes() == (demo / "model.onnx").read_bytes()
    from_folder = tree(deploy_triton(demo, tmp_path / "own", TritonOptions(name="demo")).path)
    assert tree(tmp_path / "triton")["demo/1/model.onnx"] == from_folder["demo/1/model.onnx"]


def test_commands_that_change_a_bundle_say_how_to_get_one(hub: Hub, demo_export: Exported, cli: Cli) -> None:
    head = published(hub, demo_export.bundle).refs["main"]
    read_bundle("hf://me/demo")
    for command in ("build", "check --save", "bench --save"):
        said = error_of(cli(*command.split(), "hf://me/demo", code=3))
        assert said.startswith(f"hf://me/demo@{head} is on the hub and ")
        assert said.endswith(f"make one of your own: vivit pull hf://me/demo@{head} -o DIR")


def test_what_a_command_says_of_a_wrong_address(cli: Cli) -> None:
    said = error_of(cli("predict", "hf://me", "video.mp4", code=2))
    form = "hf://OWNER/NAME or hf://OWNER/NAME@REVISION"
    assert said == f"Invalid value for 'BUNDLE': 'hf://me' is not an address of the hub; write {form}"


def test_a_config_may_name_an_address(hub: Hub, demo_export: Exported, cli: Cli) -> None:
    """It is not a path beside the file."""
    published(hub, demo_export.bundle)
    Path("vivit.toml").write_text('[inspect]\nbundle = "hf://me/demo"\n')
    assert '\nbundle = "hf://me/demo"' in cli("inspect", "--config", "vivit.toml", "--show-config").stdout
    assert "fp16" in cli("inspect", "--config", "vivit.toml").stdout


def test_a_bundle_is_not_exported(hub: Hub, demo_export: Exported, cli: Cli) -> None:
    """Neither from a folder nor from the hub; an address names a model there as its id does."""
    need("torch")
    published(hub, demo_export.bundle)
    for model, leaves in ((demo_export.bundle, None), ("me/demo", "hf"), ("hf://me/demo", None)):
        said = error_of(cli("export", model, code=3, leaves=leaves))
        assert " is a bundle, not a checkpoint; run it as it is, or repeat its export with: vivit-export --" in said
    said = error_of(cli("export", "hf://me/demo@v2", code=2))
    assert said == "hf://me/demo@v2 names a revision, which has an option of its own: me/demo with --revision v2"


def test_the_whole_way_as_two_programs(demo_export: Exported, tmp_path: Path) -> None:
    """Push and predict with what the environment says, as a user has it; without any of the patches of the others."""
    folder, clip = demo_export.bundle, next((Path(ve.__file__).parent / "demo/clips").glob("left*"))
    with running_hub() as hub:
        environment = {**os.environ, **hub.variables(str(tmp_path / "hf")), "OMP_NUM_THREADS": "1"}

        def run(*words: str) -> str:
            command = [str(Path(sys.executable).with_name("vivit")), *words]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        address = json.loads(run("push", str(folder), "me/demo", "--private", "--json"))["address"]
        assert json.loads(run("predict", address, str(clip), "--json"))["top"][0]["label"] == "left"
        assert any(method == "PUT" for method, _ in hub.requests)  # the graph, over LFS
        hub.requests.clear()
        run("predict", address, str(clip))
        assert not any("/resolve/" in path for method, path in hub.requests if method == "GET")  # all from the cache
