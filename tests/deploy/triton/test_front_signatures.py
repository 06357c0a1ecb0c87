"""A server whose environment requires a signature does not answer for a model that is not signed so."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from attacked import make
from bundles import Bundles, need

need("cryptography", "tritonclient")
from made_keys import write_pair  # noqa: E402
from triton_repository import read_config  # noqa: E402
from triton_server import Served, TritonServer, running  # noqa: E402

from vivit_export.bundle.signatures.sign import sign_bundle  # noqa: E402
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton  # noqa: E402
from vivit_export.deploy.triton.front import FramesModel, ViewsModel  # noqa: E402
from vivit_export.errors import InputError, SignatureError  # noqa: E402
from vivit_export.runtime.predict import adapt_contract  # noqa: E402


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository ``models`` with a model of a signed bundle, once as an ensemble and once with views."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    make(tmp_path / "b")
    sign_bundle(tmp_path / "b", write_pair(tmp_path)[0])
    write_pair(tmp_path, "other")
    deploy_triton(tmp_path / "b", tmp_path / "models", TritonOptions(name="m", ensemble=True))
    return tmp_path


def initialize(place: Path, name: str = "m-frames", kind: type[FramesModel] = FramesModel) -> None:
    """Do what Triton does."""
    folder = place / "models" / name
    parameters = {key: {"string_value": value.string_value} for key, value in read_config(folder).parameters.items()}
    model = kind()
    model.initialize({"model_config": json.dumps({"parameters": parameters}), "model_repository": str(folder)})
    model.finalize()


def test_the_model_that_is_called_must_be_signed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    initialize(place)
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", str(place / "signer.pub"))
    initialize(place)
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", str(place / "other.pub"))
    with pytest.raises(SignatureError, match=r"m/source/model\.sig was not made with the key of .*other\.pub"):
        initialize(place)
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", "/nowhere.pub")
    with pytest.raises(InputError, match=r"/nowhere\.pub cannot be read"):
        initialize(place)


def test_another_graph_or_no_proof_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", str(place / "signer.pub"))
    model = place / "models/m/1/model.plan"
    content = model.read_bytes()
    model.write_bytes(content + b" ")
    with pytest.raises(SignatureError, match=r"m/1/model\.plan is not in the bundle that .*m/source/model\.sig signs"):
        initialize(place)
    model.write_bytes(content)
    initialize(place)
    shutil.rmtree(place / "models/m/source")
    with pytest.raises(SignatureError, match=r"models/m is not from a signed bundle: it has no source/model\.sig"):
        initialize(place)


def test_the_model_with_views_too(bundles: Bundles, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = bundles.copy(place / "demo")
    sign_bundle(signed, place / "signer.pem")
    views = adapt_contract(bundles.demo().contract, stride=4, short="repeat", views=(2, 3))
    deploy_triton(signed, place / "models", TritonOptions(name="v", ensemble=True, contract=views))
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", str(place / "signer.pub"))
    initialize(place, "v-video", ViewsModel)
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", str(place / "other.pub"))
    with pytest.raises(SignatureError, match=r"v/source/model\.sig was not made with the key of"):
        initialize(place, "v-video", ViewsModel)


def test_a_real_server_starts_only_with_what_is_signed(served: Served, bundles: Bundles, tmp_path: Path) -> None:
    signed = bundles.copy(tmp_path / "b", check=True, num_clips=3)
    sign_bundle(signed, write_pair(tmp_path)[0])
    write_pair(tmp_path, "other")
    deploy_triton(signed, tmp_path / "models", TritonOptions(name="demo", ensemble=True))

    def server(name: str) -> TritonServer:
        variables = {"VIVIT_REQUIRE_SIGNATURE": str(tmp_path / f"{name}.pub")}
        (tmp_path / name).mkdir()
        return TritonServer(
            served.installed, served.backends, [tmp_path / "models"], tmp_path / name, variables=variables
        )

    with running(server("signer")) as started:
        assert '"state":"READY"' in started.get("v2/models/demo-video/ready") or started.is_running
    refused = server("other")
    with pytest.raises(AssertionError, match=r"tritonserver ended with 1"):
        refused.start()
    said = f"source/model.sig was not made with the key of {tmp_path / 'other.pub'}, or was altered since"
    assert said in refused.log.read_text(errors="replace")
