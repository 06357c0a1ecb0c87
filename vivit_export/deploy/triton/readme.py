"""The ``README.md`` of a model in a repository: what is served, how to start the server, how to send requests."""

from __future__ import annotations

from pathlib import Path

from vivit_export.bundle import Bundle
from vivit_export.contract import Contract, Task, Tensor
from vivit_export.deploy.listing import as_markdown
from vivit_export.deploy.triton.config import CHECK, Engine
from vivit_export.deploy.wheel import wheel_name
from vivit_export.precision import Precision
from vivit_export.runtime.session.triton.protocol import CONTRACT, VIDEO_SUFFIX

TEMPLATE = Path(__file__).with_name("README.md")
FRONT = Path(__file__).with_name("README-front.md")
MATRIX = "https://docs.nvidia.com/deeplearning/frameworks/support-matrix/"
IMAGE = "nvcr.io/nvidia/tritonserver"
TAG = "25.11-py3"

_OWN_IMAGE = "vivit-triton"
_MEANINGS: dict[Task, str] = {
    "single_label_classification": "one label is right: take the softmax of the logits for probabilities",
    "multi_label_classification": "any number of labels may be right: the sigmoid of each logit is its probability",
    "regression": "the logits are the values of a regression",
}
_WHERE = "in the folder of the repository, the one above this"
_PORTS = "-p 8000:8000 -p 8001:8001 -p 8002:8002"  # HTTP, gRPC, metrics


def readme_text(name: str, bundle: Bundle, contract: Contract, engine: Engine, delay_us: int, ensemble: bool) -> str:
    """Fill in the README's facts about this repository."""
    note, tag = _image(engine, bundle.precision)
    image = f"{IMAGE}:{tag}"
    values = {
        "NAME": name,
        "MODEL": as_markdown(bundle.manifest.model.id),
        "ENGINE": f"{engine.title}, {bundle.precision}",
        "LARGEST": str(engine.batches[-1]),
        "DELAY": str(delay_us),
        "INPUT": f"{_tensor(contract.io.inputs[0])}; {_content(contract)}",
        "WARMED_UP": _warmed_up(engine.batches),
        "OUTPUTS": ", ".join(map(_tensor, contract.io.outputs)) + _meaning(contract),
        "IMAGE_NOTE": note,
        "START": f"{_build(name, image)}\n{_start(_OWN_IMAGE)}" if ensemble else _start(image),
        "CHECK": _check(name) if bundle.golden else "",
        "WHEEL": wheel_name(),
        "CONTRACT": CONTRACT,
        "VIEWS": _views(contract),
        "LOAD_ORDER": _load_order(name, contract),
    }
    text = TEMPLATE.read_text(encoding="utf-8") + (FRONT.read_text(encoding="utf-8") if ensemble else "")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def _image(engine: Engine, precision: Precision) -> tuple[str, str]:
    """Return a note on the image that is needed, and its tag."""
    if engine.backend == "tensorrt":
        version = engine.title.split()[1]
        return (
            f"An engine runs on the TensorRT version it was built with. Set `TAG` to the image with TensorRT {version} "
            f"([support matrix]({MATRIX})), {_WHERE}:",
            "${TAG:?}",
        )
    opset = engine.title.split(", ")[1]
    note = f"{_WHERE.capitalize()}, with any image for whose ONNX Runtime this is not too new ({opset})."
    if engine.backend == "onnxruntime":
        if precision.cpu_kernels:
            return f"{note} Without a GPU leave `--gpus all` out, and Triton uses the CPU:", TAG
        return f"{note} The server needs a GPU: ONNX Runtime does not compute in {precision} on a CPU:", TAG
    return f"{note} The TensorRT provider compiles its engine while the model is loaded:", TAG


def _build(name: str, image: str) -> str:
    """Return commands that build an image with the runtime for the models that read videos, without torch."""
    return (
        f"docker build -t {_OWN_IMAGE} -f - {name} <<END\n"
        f"FROM {image}\n"
        "ENV PIP_BREAK_SYSTEM_PACKAGES=1\n"  # the image is the environment
        f"COPY {wheel_name()} /tmp/\n"
        f"RUN pip install --no-cache-dir /tmp/{wheel_name()}\n"
        "END"
    )


def _check(name: str) -> str:
    """Return how to compare the started server with the eager model, with nothing but Python."""
    return (
        "\nIs what it answers right on this GPU? Ask it for a golden clip, in each of these batches:\n\n"
        f"```\npython3 {name}/{CHECK}  # exits with 5 if an answer is beyond the gate, with 7 if there is none\n```\n\n"
        f"In the container it is `/models/{name}/{CHECK}`, for a startup probe. The server's address may follow: "
        "`http://HOST:PORT`.\n\n"
    )


def _warmed_up(batches: tuple[int, ...]) -> str:
    """Return the sizes that `model_warmup` has, and what that means for the others."""
    *others, largest = map(str, batches)
    sizes = f"{', '.join(others)} and {largest}" if others else largest
    rest = "" if len(batches) == batches[-1] else ". The first batch of another size may take longer"
    return f"{sizes}{rest}"


def _views(contract: Contract) -> str:
    temporal, spatial = contract.clip.views
    return "" if temporal * spatial == 1 else f", logits averaged over {temporal}x{spatial} views"


def _load_order(name: str, contract: Contract) -> str:
    """Return what to do with explicit model control, if Triton does not know which models belong together."""
    if contract.clip.views == (1, 1):
        return ""  # an ensemble: Triton loads all of it
    return (
        f"\nWith `--model-control-mode=explicit`, load `{name}` and then `{name}{VIDEO_SUFFIX}`. Triton does not know\n"
        "that one calls the other: the second is ready without the first, and answers videos with an error until you\n"
        "load it.\n"
    )


def _start(image: str) -> str:
    return (
        f'docker run --rm --gpus all --shm-size 1g {_PORTS} -v "$PWD":/models:ro \\\n'
        f"  {image} tritonserver --model-repository=/models --disable-auto-complete-config"
    )


def _tensor(tensor: Tensor) -> str:
    return f"{tensor.dtype} `{tensor.name}` ({', '.join(map(str, tensor.shape))})"


def _meaning(contract: Contract) -> str:
    return f"; {_MEANINGS[contract.task]}" if contract.labels else ""


def _content(contract: Contract) -> str:
    clip, mode = contract.clip, contract.io.mode
    what = {"crops": "RGB frames, resized and cropped", "frames": "RGB frames of the camera", "pixels": "pixel values"}
    return f"{what[mode]}, {clip.num_frames} of each video by sampling {clip.sampling}"
