"""Pickles of state dicts pass in every format that torch writes; all else is refused from its instructions."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from vivit_export.errors import CheckpointError
from vivit_export.export.checkpoint.pickles import require_only_tensors

STATE = OrderedDict(
    a=torch.zeros(2, 3),
    b=torch.zeros(4, dtype=torch.bfloat16),
    c=torch.nn.Parameter(torch.zeros(2)),
    d=torch.zeros((), dtype=torch.int64),
)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("archived", [True, False])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_what_torch_saves_of_tensors_passes(tmp_path: Path, archived: bool, protocol: int, kind: type) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(kind(STATE), path, pickle_protocol=protocol, _use_new_zipfile_serialization=archived)
    require_only_tensors(path)


def rewritten(compression: int = zipfile.ZIP_STORED, content: bytes | None = None, twice: bool = False) -> bytes:
    made, changed = io.BytesIO(), io.BytesIO()
    torch.save(STATE, made)
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(changed, "w", compression) as target:
        for name in source.namelist():
            is_content = name.endswith("data.pkl")
            target.writestr(name, content if is_content and content is not None else source.read(name))
        if twice:
            target.writestr("other/data.pkl", b"")
    return changed.getvalue()


def sparse(*shape: int) -> torch.Tensor:
    indices = torch.zeros((2, 0), dtype=torch.int64)
    return torch.sparse_coo_tensor(indices, torch.zeros(0), shape, check_invariants=True)


def saved(value: Any, **options: Any) -> bytes:
    made = io.BytesIO()
    torch.save(value, made, **options)
    return made.getvalue()


REFUSED = {
    "a bare pickle": pickle.dumps(print),
    "nothing": b"",
    "text": b"hello, world\n" * 100,
    "an archive without a state dict": rewritten(content=b""),
    "half an archive": rewritten()[:-100],
    "a compressed archive": rewritten(zipfile.ZIP_DEFLATED),
    "a bomb": rewritten(zipfile.ZIP_DEFLATED, b"\x80\x02" + b"0" * (20 << 20)),
    "instructions of 9 MB": rewritten(content=b"\x80\x02" + b"0" * (9 << 20)),
    "two state dicts": rewritten(twice=True),
    "a call of bytearray": rewritten(content=b"\x80\x02c__builtin__\nbytearray\n\x8a\x01\x7f\x85R."),
    "a name from the stack": rewritten(content=b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R."),
    "a name that is computed": rewritten(content=b"\x80\x04\x8c\x02os\x94h\x00h\x00\x93."),
    "a registered name": rewritten(content=b"\x80\x02\x82\x01."),
    "an instance": rewritten(content=b"\x80\x02(S'x'\nios\nsystem\n."),
    "a function of torch": rewritten(content=b"\x80\x02ctorch\nload\n)R."),
    "a sparse tensor": saved({"a": sparse(4, 4)}),
    "the old format": saved({"a": print}, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_all_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin (holds more than tensors|is not a state dict as)"):
        require_only_tensors(path)


def test_what_would_be_called_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(rewritten(content=b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00x\x85R."))
    with pytest.raises(CheckpointError, match="which may be code, so it is not read: it names os system; convert"):
        require_only_tensors(path)
