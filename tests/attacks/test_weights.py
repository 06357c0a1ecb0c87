"""Hostile checkpoints, loaded as an export does: code, bombs, headers that lie. One sentence, and nothing is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attacked import within_limits
from checkpoints import Checkpoints

from vivit_export.errors import CheckpointError
from vivit_export.export.checkpoint.load import load_checkpoint

Attack = Callable[[Path], object]


@pytest.fixture(scope="module", autouse=True)
def loaded_once(checkpoints: Checkpoints) -> None:
    """The first load imports a lot, which is not an attack's."""
    load_checkpoint(str(checkpoints.folder()))


@pytest.fixture
def folder(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    return checkpoints.copy(tmp_path / "checkpoint")


def refuse(folder: Path, seconds: float = 2.0, **options: Any) -> str:
    with within_limits(seconds), pytest.raises(CheckpointError) as refused:
        load_checkpoint(str(folder), **options)
    assert len(str(refused.value)) < 1000 and "\n" not in str(refused.value)
    return str(refused.value)


# --- pickles ------------------------------------------------------------------------------------


class Evil:
    """Runs code when it is unpickled; the file ``ran`` shows it."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __reduce__(self) -> tuple[Any, ...]:
        mark = Path("ran")
        return {
            "os.system": (os.system, (f"touch {mark}",)),
            "eval": (eval, (f"open({str(mark)!r}, 'w')",)),
            "exec": (exec, (f"open({str(mark)!r}, 'w')",)),
            "os.mkdir": (os.mkdir, (str(mark),)),
            "a socket": (socket.create_connection, (("127.0.0.1", 9),)),
            "torch.load": (torch.load, ("ran",)),
            "getattr": (getattr, ("ran", "upper")),
        }[self.what]


def archived(content: bytes) -> bytes:
    """A checkpoint of torch's own format around a pickle."""
    made = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, made)
    source, changed = zipfile.ZipFile(io.BytesIO(made.getvalue())), io.BytesIO()
    with zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            target.writestr(name, content if name.endswith("data.pkl") else source.read(name))
    return changed.getvalue()


def sparse(*shape: int) -> torch.Tensor:
    indices = torch.zeros((2, 0), dtype=torch.int64)
    return torch.sparse_coo_tensor(indices, torch.zeros(0), shape, check_invariants=True)


def saved(value: object) -> bytes:
    made = io.BytesIO()
    torch.save(value, made)
    return made.getvalue()


def laughs() -> bytes:
    """Ten lists of ten lists of ten lists … of which each is stored once."""
    levels = (b"]q" + bytes([i + 1]) + b"(" + 10 * (b"h" + bytes([i])) + b"e" for i in range(100))
    return b"\x80\x02]q\x00" + b"".join(levels) + b"."


EVIL = ("os.system", "eval", "exec", "os.mkdir", "a socket", "torch.load", "getattr")
PICKLES: dict[str, Callable[[], bytes]] = {
    **{f"{what}, bare": lambda what=what: pickle.dumps(Evil(what)) for what in EVIL},  # type: ignore[misc]
    **{f"{what}, archived": lambda what=what: archived(pickle.dumps(Evil(what), 2)) for what in EVIL},  # type: ignore[misc]
    **{f"{what}, in a weight": lambda what=what: saved({"w": Evil(what)}) for what in EVIL},  # type: ignore[misc]
    "a tensor of 10^10 numbers in 2 bytes": lambda: saved({"w": torch.zeros(1, dtype=torch.half).expand(10**10)}),
    "a sparse tensor of 10^12": lambda: saved({"w": sparse(10**6, 10**6)}),
    "a tensor of no memory": lambda: saved({"w": torch.empty(10**9, device="meta")}),
    "lists of lists": lambda: archived(laughs()),
    "50,000 tuples in each other": lambda: archived(b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b"."),
    "2^63 bytes to come": lambda: archived(b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f."),
    "a number of 2^31 bytes": lambda: archived(b"\x80\x02\x8b\xff\xff\xff\x7f."),
    "17 GB of zeros": lambda: archived(b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x04\x85R."),
    "not only tensors": lambda: saved({"epoch": 3, "model": {}}),
    "a tensor alone": lambda: saved(torch.zeros(2)),
    "30,000 weights": lambda: saved(dict.fromkeys(map(str, range(30_000)), torch.zeros(1))),
    "half an archive": lambda: saved({"w": torch.zeros(100)})[:-200],
    "nothing": bytes,
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_hostile_pickle_runs_nothing_even_if_pickles_are_allowed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(PICKLES[name]())
    monkeypatch.chdir(folder)
    assert "as a pickle" in refuse(folder)
    refuse(folder, allow_pickle=True, seconds=4)
    assert not Path("ran").exists()


def test_code_beside_the_weights_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``trust_remote_code`` would run, also if a config asks for it."""
    code = "open('ran', 'w')\nclass Model: pass\nConfig = Processor = Model\n"
    for name in ("evil.py", "modeling_vivit.py", "configuration_vivit.py", "__init__.py", "setup.py", "conftest.py"):
        (folder / name).write_text(code)
    classes = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoImageProcessor": "evil.Processor"}
    for name in ("config.json", "preprocessor_config.json"):
        fields = json.loads((folder / name).read_text())
        fields |= {"auto_map": classes, "trust_remote_code": True, "custom_pipelines": {"x": {"impl": "evil.Model"}}}
        (folder / name).write_text(json.dumps(fields))
    monkeypatch.chdir(folder)
    load_checkpoint(str(folder))
    assert not Path("ran").exists()


# --- configs that do not belong to the weights ---------------------------------------------------

CONFIGS: dict[str, dict[str, Any]] = {
    "a network of 600 GB": {"hidden_size": 65536, "num_attention_heads": 16, "num_hidden_layers": 12},
    "Linears of 500 GB": {"intermediate_size": 2**31},
    "65,536 layers": {"num_hidden_layers": 65536},
    "3,000 layers": {"num_hidden_layers": 3000},
    "17 million tokens": {"num_frames": 1024, "image_size": 128, "tubelet_size": [1, 1, 1], "hidden_size": 4096},
    "65,000 labels": {"id2label": {str(i): "x" for i in range(65_000)}},
    "an activation with a name of code": {"hidden_act": "__import__('os').system"},
    "a flag that is text": {"qkv_bias": "no"},
    "a share that is text": {"hidden_dropout_prob": "x"},
    "a range that is a list": {"initializer_range": [1]},
}


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS)
def test_a_config_of_another_network_is_refused_before_memory_is_spent_on_it(
    folder: Path, fields: dict[str, Any]
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    refuse(folder)


def test_a_kernel_from_elsewhere_is_not_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers takes the name of a repository for an implementation of attention."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection"))
    path = folder / "config.json"
    fields = {"attn_implementation": "evil/kernel", "_attn_implementation": "evil/kernel"}
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    assert load_checkpoint(str(folder)).network.config._attn_implementation == "sdpa"


# --- safetensors ---------------------------------------------------------------------------------

HEAD = "classifier.weight"


def header(change: Callable[[dict[str, Any]], object], more: bytes = b"") -> Attack:
    """Change the header of the weights, and append to their data."""

    def attack(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        fields = json.loads(data[8 : 8 + size])
        change(fields)
        text = json.dumps(fields).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :] + more)

    return attack


def raw(make: Callable[[bytes], bytes]) -> Attack:
    def attack(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(make(path.read_bytes()))

    return attack


def told(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def instead(make: Callable[[Path], object]) -> Attack:
    def attack(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        make(folder / "model.safetensors")

    return attack


MANY = {str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(25_000)}
WEIGHTS: dict[str, Attack] = {
    "overlapping offsets": header(lambda h: h.update(extra=dict(h[HEAD]))),
    "offsets beyond the end": header(lambda h: h[HEAD].update(data_offsets=[0, 2**50])),
    "negative offsets": header(lambda h: h[HEAD].update(data_offsets=[-8, 0])),
    "offsets in reverse": header(lambda h: h[HEAD]["data_offsets"].reverse()),
    "an unknown type": header(lambda h: h[HEAD].update(dtype="F99")),
    "a shape of 2^124": header(lambda h: h[HEAD].update(shape=[2**62, 2**62])),
    "a shape that is transposed": header(lambda h: h[HEAD]["shape"].reverse()),
    "data that no tensor claims": header(lambda h: None, bytes(64)),
    "metadata that are a number": header(lambda h: h.update(__metadata__={"a": 7})),
    "25,000 names for one tensor": header(lambda h: h.update(__metadata__=dict.fromkeys(MANY, HEAD))),
    "a name of 5 MB": header(lambda h: h.update({"x" * 5_000_000: h.pop(HEAD)})),
    "a header of 2^63 bytes": raw(lambda data: struct.pack("<Q", 2**63 - 1) + data[8:]),
    "a header of 99 MB": raw(lambda data: struct.pack("<Q", 99 << 20) + data[8:]),
    "100,000 levels": raw(lambda _: told(b"[" * 100_000)),
    "25,000 tensors": raw(lambda _: told(json.dumps(MANY).encode())),
    "no header": raw(lambda _: told(b"")),
    "nothing": raw(lambda _: b""),
    "half of it": raw(lambda data: data[: len(data) // 2]),
    "NaN": raw(lambda data: data[:-4] + struct.pack("<f", float("nan"))),
    "a pickle under its name": raw(lambda _: pickle.dumps(Evil("os.system"))),
    "a link to another file": instead(lambda path: path.symlink_to("/etc/passwd")),
    "a link to a device": instead(lambda path: path.symlink_to("/dev/zero")),
    "a link in a circle": instead(lambda path: path.symlink_to(path.name)),
    "a pipe": instead(os.mkfifo),
    "a folder": instead(Path.mkdir),
}


@pytest.mark.parametrize("attack", WEIGHTS.values(), ids=WEIGHTS)
def test_hostile_weights_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, attack: Attack) -> None:
    attack(folder)
    monkeypatch.chdir(folder)
    assert "root:" not in refuse(folder)
    assert not Path("ran").exists()


SHARDS: dict[str, tuple[str, Attack]] = {
    "above": ("../b.safetensors", lambda folder: (folder.parent / "b.safetensors").write_bytes(b"")),
    "in /etc": ("/etc/passwd", lambda _: None),
    "a link out": ("b.safetensors", lambda folder: (folder / "b.safetensors").symlink_to("/etc/passwd")),
    "a pipe": ("b.safetensors", lambda folder: os.mkfifo(folder / "b.safetensors")),
    "a folder": ("b.safetensors", lambda folder: (folder / "b.safetensors").mkdir()),
    "a name with NUL": ("b\0.safetensors", lambda _: None),
    "a name of 5,000 characters": ("b" * 5000 + ".safetensors", lambda _: None),
    "a pickle": ("b.bin", lambda folder: (folder / "b.bin").write_bytes(pickle.dumps(Evil("os.system")))),
}


@pytest.mark.parametrize(("name", "make"), SHARDS.values(), ids=SHARDS)
def test_a_hostile_shard_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Attack) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    make(folder)
    index = {"weight_map": {"x": "a.safetensors", "y": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    monkeypatch.chdir(folder)
    assert "root:" not in refuse(folder)
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.write_bytes(b" " * (17 << 20) + b"{}")])
def test_a_file_that_never_ends_or_is_huge_is_not_read(folder: Path, name: str, make: Attack) -> None:
    if "index" in name:
        (folder / "model.safetensors").unlink()
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    refuse(folder)
