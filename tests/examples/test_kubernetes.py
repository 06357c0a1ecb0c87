"""The Kubernetes example: valid by Kubernetes' own schemas, its parts fit together, its facts are ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundles import need
from triton_server import Served

from vivit_export.deploy.triton.readme import IMAGE, TAG

need("kubernetes_validate")
import kubernetes_validate  # noqa: E402

FOLDER = Path(__file__).parents[2] / "examples/kubernetes"
OBJECTS: dict[str, dict[str, Any]] = {
    found["kind"]: found for found in yaml.safe_load_all((FOLDER / "triton.yaml").read_text())
}


@pytest.mark.parametrize("kind", ["Deployment", "Service", "HorizontalPodAutoscaler"])
@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_it_is_valid(kind: str, version: str) -> None:
    kubernetes_validate.validate(OBJECTS[kind], version, strict=True)


def test_the_schemas_would_find_a_mistake() -> None:
    broken = {**OBJECTS["Service"], "spec": {**OBJECTS["Service"]["spec"], "port": 8000}}
    with pytest.raises(kubernetes_validate.ValidationError, match="'port' was unexpected"):
        kubernetes_validate.validate(broken, "1.30", strict=True)


def test_the_parts_fit_together() -> None:
    deployment, service, scaler = (OBJECTS[kind] for kind in ("Deployment", "Service", "HorizontalPodAutoscaler"))
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == {"http": 8000, "grpc": 8001}
    assert ports == {"http": 8000, "grpc": 8001, "metrics": 8002}
    assert deployment["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    probes = [container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")]
    assert set(probes) <= set(ports)
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in deployment["spec"]["template"]["spec"]["volumes"]}


def test_a_pod_has_the_time_to_answer_what_is_under_way() -> None:
    pod = OBJECTS["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    (timeout,) = (int(arg.partition("=")[2]) for arg in container["args"] if arg.startswith("--exit-timeout-secs"))
    assert pod["terminationGracePeriodSeconds"] > wait + timeout


def test_the_image_is_the_one_of_the_readmes() -> None:
    dockerfile = (FOLDER / "Dockerfile").read_text()
    assert f"ARG TAG={TAG}\nFROM {IMAGE}:${{TAG}}\n" in dockerfile


def test_the_server_has_the_flags_and_the_metric(served: Served) -> None:
    """The probes' paths, the metric that scales, and every option, as the real server has them."""
    (container,) = OBJECTS["Deployment"]["spec"]["template"]["spec"]["containers"]
    for kind in ("startup", "readiness", "liveness"):
        served.server.get(container[f"{kind}Probe"]["httpGet"]["path"].lstrip("/"))
    (metric,) = OBJECTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert re.search(
        rf'^{name}{{model="demo".*}} \d', served.server.get("metrics", served.server.metrics), re.MULTILINE
    )
    options = served.help()
    for argument in container["args"]:
        assert argument.partition("=")[0] in options
