"""Addresses of bundles on a hub of models, ``hf://OWNER/NAME[@REVISION]``, and the files there.

The form is that of ``huggingface_hub`` (its ``HfFileSystem``), which also says where the hub is (``HF_ENDPOINT``), who
asks (``HF_TOKEN``), where files are kept (``HF_HOME``) and whether the network may be used (``HF_HUB_OFFLINE``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vivit_export.errors import BundleError, InputError, OutputError, UsageError
from vivit_export.files import HUB_SCHEME, refusals
from vivit_export.packages import naming_the_extra
from vivit_export.printing import one_line
from vivit_export.records import shown

_FORM = f"{HUB_SCHEME}OWNER/NAME or {HUB_SCHEME}OWNER/NAME@REVISION"
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_REPO = re.compile(f"{_PART}/{_PART}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,254}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A repository on the hub, and which state of it.

    Attributes:
        repo: ``OWNER/NAME``.
        revision: branch, tag or commit; None: the newest commit of the main branch.
    """

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{HUB_SCHEME}{self.repo}" + (f"@{self.revision}" if self.revision else "")

    @property
    def is_pinned(self) -> bool:
        """Whether it names a commit, which is always the same files."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def at(self, revision: str) -> HubAddress:
        """Return the address of another state of the same repository."""
        return replace(self, revision=revision)


def is_repo(text: str) -> bool:
    """Return whether a text can be ``OWNER/NAME``."""
    return _REPO.fullmatch(text) is not None and "--" not in text and ".." not in text


def is_revision(text: str) -> bool:
    """Return whether a text can name a branch, a tag or a commit."""
    return _REVISION.fullmatch(text) is not None and ".." not in text


def is_hub_address(value: object) -> bool:
    """Return whether a value is meant as an address of the hub, even if it is none."""
    return isinstance(value, str) and value.startswith(HUB_SCHEME)


def parse_hub_address(text: str) -> HubAddress:
    """Parse ``hf://OWNER/NAME[@REVISION]``.

    Raises:
        UsageError: the text is none.
    """
    repo, mark, revision = text.removeprefix(HUB_SCHEME).partition("@")
    if not text.startswith(HUB_SCHEME) or not is_repo(repo) or (mark and not is_revision(revision)):
        raise UsageError(f"{shown(text)} is not an address of the hub; write {_FORM}")
    return HubAddress(repo, revision or None)


def cached_address(folder: Path) -> HubAddress | None:
    """Return of which commit a folder is the copy in the hub's cache; None for any other folder."""
    kept = folder.absolute().parts[-3:]
    if len(kept) < 3 or kept[1] != "snapshots" or not kept[0].startswith("models--") or not _COMMIT.fullmatch(kept[2]):
        return None
    repo = kept[0].removeprefix("models--").replace("--", "/")
    return HubAddress(repo, kept[2]) if is_repo(repo) else None


def require_not_cached(folder: Path) -> None:
    """Refuse to change a folder of the hub's cache, which holds what was downloaded.

    Raises:
        OutputError: it is one.
    """
    address = cached_address(folder)
    if address is not None:
        raise OutputError(
            f"{address} is on the hub and {folder} its copy in the cache, which is not changed; make one of your own: "
            f"vivit pull {address} -o DIR"
        )


def download(address: HubAddress, name: str, most_bytes: int) -> Path:
    """Download one file into the hub's cache, unless it is there, and return its path in a folder of one commit.

    Args:
        address: the repository. Without a network, what a branch or tag was when it was last asked for.
        name: path of the file in the repository.
        most_bytes: a larger one is refused before it is downloaded.

    Raises:
        BundleError: the repository, the revision or the file does not exist, or is not for this user; the file is
            larger; or the hub cannot be reached, and the file is not in the cache.
        OutputError: the cache cannot be written.
        MissingDependencyError: the extra ``hub`` is not installed.
    """
    with hub_faults(address, BundleError, name):
        from huggingface_hub import hf_hub_download

        found = hf_hub_download(address.repo, name, revision=address.revision, dry_run=True)
        if found.file_size is not None and found.file_size > most_bytes:
            raise BundleError(
                f"{address} holds a {name} of {found.file_size} bytes, where {most_bytes} are expected at most; it was "
                "not downloaded"
            )
        return Path(hf_hub_download(address.repo, name, revision=address.revision))  # which also notes what a branch is


def download_if_there(address: HubAddress, name: str, most_bytes: int) -> Path | None:
    """Do what `download` does for a file that the repository need not have; None: it has none.

    Raises:
        BundleError, OutputError, MissingDependencyError: see there.
    """
    with naming_the_extra():
        from huggingface_hub.errors import EntryNotFoundError

    try:
        return download(address, name, most_bytes)
    except BundleError as e:
        if isinstance(e.__cause__, EntryNotFoundError):  # also of a cache without a network
            return None
        raise


@contextmanager
def hub_faults(address: HubAddress, kind: type[InputError], name: str | None = None) -> Iterator[None]:
    """Turn what the client of the hub raises into one sentence.

    Args:
        address: what is asked for.
        kind: the error to raise.
        name: the file that is asked for, if it is one.

    Raises:
        InputError: of that kind.
        OutputError: the cache cannot be written.
        MissingDependencyError: the extra ``hub`` is not installed.
    """
    with naming_the_extra():
        from huggingface_hub import constants, errors, get_token

    try:
        with _without_bars():
            yield
    except InputError:
        raise
    except errors.GatedRepoError as e:
        raise kind(f"{address} asks its users to agree to terms first; do so on its page, and set HF_TOKEN") from e
    except errors.RevisionNotFoundError as e:
        raise kind(f"{address.at('')} has no revision {address.revision}; check the spelling") from e
    except errors.RemoteEntryNotFoundError as e:
        raise kind(f"{address} has no {name}, so it holds no complete bundle; check the address") from e
    except errors.RepositoryNotFoundError as e:
        why = "HF_TOKEN may be of somebody else" if get_token() else "if it is private, set HF_TOKEN"
        raise kind(f"the hub shows no {address.repo}; check the spelling ({why})") from e
    except Exception as e:  # the client raises many kinds without a network; all mean the same to the user
        status = e.response.status_code if isinstance(e, errors.HfHubHTTPError) else None
        if status in (401, 403):
            raise kind(f"the hub refuses {address} with status {status}; set HF_TOKEN to a token that allows it") from e
        if status in (409, 412):
            raise kind(f"{address} was changed meanwhile; run again") from e
        if status is None and isinstance(e, ValueError):  # a name that a repository cannot have
            raise kind(f"{address} is refused by the hub's client: {one_line(str(e))}") from e
        if isinstance(e, OSError) and e.errno is not None:
            with refusals(Path(constants.HF_HUB_CACHE), any_reason=True):
                raise
        _LOG.debug("the hub failed", exc_info=e)
        said = f"the hub answers with status {status}" if status else f"the hub cannot be reached ({type(e).__name__})"
        missing = f", and {name} is not in the local cache" if name else ""
        raise kind(f"{said} for {address}{missing}; try again later") from e


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep the client from drawing bars, which it does without a terminal too, and beside those of our own."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
