"""Publish a bundle on a hub of models, in one commit, and get one from there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vivit_export import bundle as bundles
from vivit_export.arguments import text
from vivit_export.bundle import GOLDEN, MANIFEST, SIGNATURE, Bundle, read_bundle
from vivit_export.bundle.parsing import parse_manifest
from vivit_export.bundle.reading import fetch
from vivit_export.bundle.signatures.envelope import parse_envelope
from vivit_export.bundle.signatures.verify import read_signature
from vivit_export.bundle.writing import is_signed
from vivit_export.deploy.listing import copy_bundle
from vivit_export.errors import BundleError, OutputError, UsageError, counted, option
from vivit_export.files import HUB_SCHEME, as_path, regular_bytes
from vivit_export.hub import (
    HubAddress,
    download_if_there,
    hub_faults,
    is_hub_address,
    is_repo,
    is_revision,
    parse_hub_address,
)
from vivit_export.limits import MOST_JSON_BYTES, MOST_MANIFEST_BYTES
from vivit_export.progress import Progress, default_progress
from vivit_export.records import shown
from vivit_export.report.card import card

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

CARD = "README.md"
_OURS = re.compile(r"\A---\n(?:(?!---\n).*\n)*?library_name: vivit-export\n")
_MAIN = "main"
_ATTRIBUTES = ".gitattributes"  # the hub's
_MOST_IN_MEMORY = 10 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Pushed:
    """A bundle on the hub.

    Attributes:
        address: of the commit that holds it.
        url: page of the commit, or of the pull request.
        changed: False: all of it was there already, so that there is no new commit.
        removed: files of the bundle that was there before.
    """

    address: HubAddress
    url: str
    changed: bool
    removed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Pushed {self.address}{'' if self.changed else ', which was there already'}>"


def push(
    bundle: Bundle | str | Path,
    repo: str,
    *,
    private: bool = False,
    branch: str = _MAIN,
    pull_request: bool = False,
    message: str | None = None,
    license_id: str | None = None,
    with_card: bool = True,
    progress: Progress | None = None,
) -> Pushed:
    """Publish a bundle as the content of a repository, in one commit.

    The repository is created if there is none. What an earlier bundle there had and this one has not is removed. Other
    files stay as they are, and none of them is ever replaced.

    Args:
        bundle: a bundle or its folder; all its files are verified first, and what is sent is what was verified.
        repo: ``OWNER/NAME``, or ``hf://OWNER/NAME``. Log in first (``HF_TOKEN``, or ``hf auth login``).
        private: create the repository for its owner only; one that exists stays as it is.
        branch: where to commit; it must exist, unless the repository is new and it is ``main``.
        pull_request: propose the commit instead.
        message: of the commit.
        license_id: see `vivit_export.card`.
        with_card: also write the model card as ``README.md``, unless one is there that this package did not write.
        progress: receives the stages, and notes.

    Raises:
        BundleError: the bundle is damaged, or was changed meanwhile.
        UsageError: the repository, the branch or the license has no such name.
        OutputError: the hub refuses or cannot be reached, a file of others is in the way, or the repository was changed
            meanwhile; no commit was made.
        MissingDependencyError: the extra ``hub`` is not installed.
    """
    progress = progress if progress is not None else default_progress()
    address = _target(repo, branch)
    with progress.stage("verify the bundle"):
        found = read_bundle(bundle.path if isinstance(bundle, Bundle) else bundle)
        signature = _signature(found)
        text = card(found, license_id=license_id, place=f"{HUB_SCHEME}{address.repo}")
    with progress.stage(f"look at {HUB_SCHEME}{address.repo}"), hub_faults(address, OutputError):
        there = _Repository.of(address, private=private)
    own = {MANIFEST, *found.manifest.files, *((SIGNATURE,) if signature else ())}
    there.require_free(own)
    written = text.encode() if with_card and there.takes_our_card and CARD not in own else None
    if with_card and not there.takes_our_card:
        progress.note(f"{CARD} of {address.repo} was not written by vivit-export, so it is left as it is")
    if GOLDEN in found.manifest.files:
        progress.note(f"{GOLDEN} holds frames of the clips that the bundle was checked on; they are published too")
    sent = f"send {counted(len(own), 'files')}, {found.size_bytes / 1e6:.1f} MB"
    with progress.stage(sent), hub_faults(address, OutputError):
        operations = list(_additions(found, {SIGNATURE: signature, CARD: written}))
        return there.commit(operations, own, message or f"Bundle of {found.manifest.model.id}", pull_request)


def pull(address: str, target: str | Path, *, force: bool = False, progress: Progress | None = None) -> Bundle:
    """Download a bundle from the hub into a folder of its own, which may be changed; its signature comes along.

    Args:
        address: ``hf://OWNER/NAME[@REVISION]``.
        target: the folder to write.
        force: replace a bundle there.
        progress: receives the stages.

    Returns:
        The bundle, read back from disk with its hashes verified.

    Raises:
        BundleError: the hub does not have it or cannot be reached, or it is damaged.
        UsageError: the address is none.
        OutputError: the folder exists or cannot be written.
        MissingDependencyError: the extra ``hub`` is not installed.
    """
    progress = progress if progress is not None else default_progress()
    place = as_path(target, "target")
    asked = parse_hub_address(text("address", address))
    bundles.check_target(place, force)
    source = read_bundle(fetch(asked, progress))
    with progress.stage("write the bundle"), bundles.writing(place, force=force, note=progress.note) as work:
        copy_bundle(source, work)
        if is_signed(source.path):
            shutil.copyfile(source.path / SIGNATURE, work / SIGNATURE)
    return replace(source, path=place)


@dataclass(frozen=True, slots=True)
class _Repository:
    """What is in a repository before the commit.

    Attributes:
        address: with the branch.
        head: commit of the branch.
        names: all files.
        bundle: those of the bundle there.
        takes_our_card: whether it has no ``README.md``, or one that this package wrote.
    """

    address: HubAddress
    head: str
    names: frozenset[str]
    bundle: frozenset[str]
    takes_our_card: bool

    @classmethod
    def of(cls, address: HubAddress, *, private: bool) -> _Repository:
        from huggingface_hub.errors import RepositoryNotFoundError

        api = _client()
        try:
            info = api.model_info(address.repo, revision=address.revision)
        except RepositoryNotFoundError:
            api.create_repo(address.repo, private=private, exist_ok=True)
            info = api.model_info(address.repo, revision=address.revision)
        names = frozenset(file.rfilename for file in info.siblings or ())
        state = address.at(str(info.sha))
        return cls(address, str(info.sha), names, _bundle_in(state, names), CARD not in names or _is_ours(state))

    def require_free(self, own: set[str]) -> None:
        """Refuse to replace files of others."""
        others = sorted((own & self.names) - self.bundle - {_ATTRIBUTES})
        if others:
            raise OutputError(
                f"the repository has {shown(others[0])}, which is part of no bundle there and would be lost; "
                "choose another repository"
            )

    def commit(self, additions: list[CommitOperationAdd], own: set[str], message: str, pull_request: bool) -> Pushed:
        """Add files, and remove those of the earlier bundle that are not among them; fails if anything changed."""
        from huggingface_hub import CommitOperationDelete

        removed = sorted(self.bundle - own)
        done = _client().create_commit(
            self.address.repo,
            [*additions, *map(CommitOperationDelete, removed)],
            commit_message=message,
            revision=self.address.revision,
            create_pr=pull_request,
            parent_commit=self.head,
        )
        state = self.address.at(done.oid)
        return Pushed(state, done.pr_url or done.commit_url, done.oid != self.head, tuple(removed))


def _client() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name="vivit-export")


def _bundle_in(address: HubAddress, names: frozenset[str]) -> frozenset[str]:
    """Return the files of the bundle in a repository; none if it holds none that can be read."""
    path = download_if_there(address, MANIFEST, MOST_MANIFEST_BYTES) if MANIFEST in names else None
    if path is None:
        return frozenset()
    try:
        listed = parse_manifest(regular_bytes(path, MOST_MANIFEST_BYTES), path).files
    except BundleError:
        return frozenset()
    return names & {MANIFEST, SIGNATURE, *listed}


def _is_ours(state: HubAddress) -> bool:
    path = download_if_there(state, CARD, MOST_JSON_BYTES)
    return path is not None and _OURS.match(path.read_text(encoding="utf-8", errors="replace")) is not None


def _target(repo: str, branch: str) -> HubAddress:
    address = parse_hub_address(repo) if is_hub_address(repo) else HubAddress(text("repo", repo))
    if not is_repo(address.repo) or address.revision is not None:
        raise UsageError(f"{option('repo', shown(repo))} is not a repository to write to; write OWNER/NAME")
    if not is_revision(text("branch", branch)):
        raise UsageError(f"{option('branch', shown(branch))} is not the name of a branch")
    return address.at(branch)


def _signature(found: Bundle) -> bytes | None:
    """Return the bytes of a bundle's signature, if it has one; no hash vouches for them, so they must be nothing else.

    Raises:
        SignatureError: they are something else, such as what a link leads to.
    """
    data = read_signature(found.path)
    if data is not None:
        parse_envelope(data, found.path / SIGNATURE)
    return data


def _additions(found: Bundle, more: Mapping[str, bytes | None]) -> Iterator[CommitOperationAdd]:
    """Yield what to send: the files that the bundle lists, as they were verified, and others, if there are any."""
    from huggingface_hub import CommitOperationAdd

    expected = {MANIFEST: found.manifest_sha256, **{name: file.sha256 for name, file in found.manifest.files.items()}}
    for name, sha256 in sorted(expected.items()):
        path = found.path / name
        in_memory = path.stat().st_size <= _MOST_IN_MEMORY
        addition = CommitOperationAdd(name, path.read_bytes() if in_memory else path)
        if addition.upload_info.sha256.hex() != sha256:
            raise BundleError(f"{path} changed since it was verified; push a bundle that nobody writes to")
        yield addition
    yield from (CommitOperationAdd(name, content) for name, content in more.items() if content is not None)
