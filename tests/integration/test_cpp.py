"""The C++ library: deployed, built, installed and found as a user would, then compared with the Python runtime.

Everything compiles once for all tests; ``probe`` does many requests in one process (tests/cpp/probe.cpp).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bundles import Bundles, add_plan, random_crops
from capabilities import fetched, missing

import vivit_export
from vivit_export import demo
from vivit_export.bundle import read_bundle, sha256_of
from vivit_export.contract import Clip, Preprocess
from vivit_export.deploy.cpp.deploy import PROJECT, deploy_cpp
from vivit_export.errors import VivitExportError
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.clips.sampling import clip_indices, view_indices
from vivit_export.runtime.clips.video import read_sampled
from vivit_export.runtime.clips.views import average_views, read_views
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession
from vivit_export.runtime.session.session import Prediction

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests/cpp"
GPU_ENGINES = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")
Request = dict[str, Any]

pytestmark = pytest.mark.needs_onnxruntime


def run(*command: str | Path, **options: Any) -> str:
    """Run a program that must succeed; return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@dataclass(frozen=True)
class Cpp:
    """What was built.

    Attributes:
        home: holds the builds.
        bundle: the demo in fp32, as it was deployed.
        video: all frames of a demo clip, as .npy; .rgb beside it, and noise as .y4m.
        vivit_run: the example program.
        probe: the test program.
    """

    home: Path
    bundle: Path
    video: Path
    vivit_run: Path
    probe: Path

    def ask(self, requests: list[Request], loops: str = "portable") -> list[Any]:
        """Let the probe answer requests in one process, with the loops for any processor or for this one."""
        file = self.home / "requests.json"
        file.write_text(json.dumps([{"loops": loops, **request} for request in requests]))
        answers = [json.loads(line) for line in run(self.probe, file).splitlines()]
        assert len(answers) == len(requests)
        return answers


@dataclass(frozen=True)
class Libav:
    """What was built with FFmpeg's libraries.

    Attributes:
        vivit_run: the example program.
        frames: the test program, tests/cpp/libav.
        env: with which they find the libraries.
    """

    vivit_run: Path
    frames: Path
    env: dict[str, str]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What CMake must be told on a machine on which nothing was installed for this."""
    if lacking := [tool for tool in ("cmake", "g++", "make") if shutil.which(tool) is None]:
        missing("cpp", f"{', '.join(lacking)} is not installed")
    usr = fetched("fetch_cpp_libraries.py", "cpp") / "usr"
    return [f"-DCMAKE_PREFIX_PATH={usr}", f"-DONNXRUNTIME_ROOT={onnxruntime_root(tmp_path_factory, usr)}"]


def onnxruntime_root(tmp_path_factory: pytest.TempPathFactory, usr: Path) -> Path:
    """A folder like an unpacked release of ONNX Runtime: Debian's headers and the wheel's own library."""
    root = tmp_path_factory.mktemp("onnxruntime")
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    (library,) = Path(spec.origin).parent.glob("capi/libonnxruntime.so.1*")
    (root / "lib").mkdir()
    (root / "lib/libonnxruntime.so.1").symlink_to(library)
    (root / "lib/libonnxruntime.so").symlink_to("libonnxruntime.so.1")
    (root / "include").symlink_to(usr / "include/onnxruntime")
    return root


@pytest.fixture(scope="module")
def cpp(options: list[str], bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Cpp:
    """The project deployed, built and installed; the test programs built against the installed package."""
    home = tmp_path_factory.mktemp("cpp")
    deploy_cpp(bundles.demo(), home / "project")
    make_engines(bundles, home / "engines")
    flags = [*options, f"-DCMAKE_INSTALL_PREFIX={home / 'prefix'}"]
    run("cmake", "-S", home / "project", "-B", home / "headers", *flags, "-DVIVIT_EXAMPLE=OFF")
    run("cmake", "--install", home / "headers")
    found = [options[0] + f";{home / 'prefix'}", options[1]]
    run("cmake", "-S", TESTS, "-B", home / "tests", *found, f"-DVIVIT_TEST_BUNDLES={home / 'engines'}")
    run("cmake", "-S", TESTS / "consumer", "-B", home / "consumer", *found)
    run("cmake", "-S", home / "project", "-B", home / "build", *options, "-DCMAKE_CXX_FLAGS=-Werror")
    builds = [subprocess.Popen(["cmake", "--build", home / name]) for name in ("build", "consumer")]
    run("cmake", "--build", home / "tests", "-j", str(os.cpu_count() or 1))
    assert [build.wait() for build in builds] == [0, 0]
    video = make_video(home / "video")
    return Cpp(home, home / "project/bundle", video, home / "build/vivit-run", home / "tests/probe")


def make_video(folder: Path) -> Path:
    """A demo clip as files that need no decoder."""
    folder.mkdir()
    frames = read_sampled(demo.clips_path() / "up_240x426_30fps.mp4", lambda count: np.arange(count))
    np.save(folder / "up.npy", frames)
    frames.tofile(folder / "up.rgb")
    write_y4m(folder / "up.y4m", frames.shape[2], frames.shape[1], "420jpeg", seed=1, count=20)
    return folder / "up.npy"


def make_engines(bundles: Bundles, folder: Path) -> None:
    """Bundles with made-up engines for the double in tests/cpp/fake."""
    folder.mkdir()
    for flavour, version in (("tensorrt", "11.4.0.106"), ("tensorrt-rtx", "1.7.1.116")):
        bundle = bundles.copy(folder / flavour)
        common = {"flavour": flavour, "version": version}
        add_plan(bundle, "first", b"plan", **common)
        add_plan(bundle, "second", b"plan", **common, sms=[100], profiles=[{"min": 2, "opt": 2, "max": 4}])
        add_plan(bundle, "stale", b"plan", **common, onnx_sha256="0" * 64)


# --- the project -------------------------------------------------------------------------------


def test_the_tensorrt_session_passes_its_tests_under_the_sanitizers(cpp: Cpp) -> None:
    run("ctest", "--output-on-failure", cwd=cpp.home / "tests")


def test_ten_lines_find_the_package_and_use_it(cpp: Cpp) -> None:
    assert run(cpp.home / "consumer/consumer", cpp.bundle, cpp.video) == "up\n"


def test_a_component_that_was_not_installed_is_told(cpp: Cpp, options: list[str], tmp_path: Path) -> None:
    text = (TESTS / "consumer/CMakeLists.txt").read_text().replace("COMPONENTS onnxruntime", "COMPONENTS tensorrt")
    (tmp_path / "CMakeLists.txt").write_text(text)
    prefix = options[0] + f";{cpp.home / 'prefix'}"
    command = ["cmake", "-S", tmp_path, "-B", tmp_path / "build", prefix, options[1]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "vivit was installed without its component tensorrt" in done.stderr


def test_tensorrt_is_found_where_its_root_says(cpp: Cpp, options: list[str], tmp_path: Path) -> None:
    root, build, prefix = tmp_path / "TensorRT", tmp_path / "build", tmp_path / "prefix"
    command = ["cmake", "-S", cpp.home / "project", "-B", build, *options, "-DVIVIT_EXAMPLE=OFF", "-DVIVIT_TENSORRT=ON"]
    command += [f"-DCMAKE_MODULE_PATH={TESTS / 'fake/cmake'}", f"-DCMAKE_INSTALL_PREFIX={prefix}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "unpack TensorRT and pass its folder as -DTENSORRT_ROOT" in re.sub(r"\s+", " ", done.stderr)
    (root / "lib").mkdir(parents=True)
    (root / "include").symlink_to(TESTS / "fake")
    run("g++", "-shared", "-x", "c++", "/dev/null", "-o", root / "lib/libnvinfer.so")
    run(*command, f"-DTENSORRT_ROOT={root}")
    run("cmake", "--install", build)
    source = tmp_path / "consumer"
    source.mkdir()
    text = (TESTS / "consumer/CMakeLists.txt").read_text().replace("onnxruntime", "tensorrt")
    (source / "CMakeLists.txt").write_text(text.replace("main.cpp", "tensorrt.cpp"))
    # Not the whole library, which the TensorRT tests compile: that the headers are found, and the library is linked.
    (source / "tensorrt.cpp").write_text(
        "#include <NvInfer.h>\n#include <vivit/errors.hpp>\nint main() { return VIVIT_WITH_TENSORRT - 1; }\n"
    )
    found = [options[0] + f";{prefix}", f"-DTENSORRT_ROOT={root}", command[-2]]
    run("cmake", "-S", source, "-B", tmp_path / "b", *found)
    run("cmake", "--build", tmp_path / "b")


def test_the_reader_of_other_videos_compiles(options: list[str]) -> None:
    usr = Path(options[0].partition("=")[2])
    (headers,) = {path.parent.parent for path in usr.glob("include/**/libavformat/avformat.h")}
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-DVIVIT_WITH_LIBAV"]
    includes = [f"-I{PROJECT / 'include'}", "-isystem", str(usr / "include"), "-isystem", str(headers)]
    run("g++", *flags, *includes, PROJECT / "examples/vivit_run.cpp")


@pytest.fixture(scope="module")
def libav(options: list[str], cpp: Cpp) -> Libav:
    """The reader of other videos, built against FFmpeg's libraries as a user's pkg-config finds them."""
    if shutil.which("pkg-config") is None:
        missing("libav", "pkg-config is not installed")
    home, lib = cpp.home / "libav", Path(options[0].partition("=")[2]).parent / "ffmpeg/lib"
    env = {**os.environ, "PKG_CONFIG_PATH": str(lib / "pkgconfig"), "LD_LIBRARY_PATH": str(lib)}
    project = ["cmake", "-S", cpp.home / "project", *options, "-DVIVIT_LIBAV=ON", "-DCMAKE_CXX_FLAGS=-Werror"]
    run(*project, "-B", home / "headers", "-DVIVIT_EXAMPLE=OFF", f"-DCMAKE_INSTALL_PREFIX={home / 'prefix'}", env=env)
    run("cmake", "--install", home / "headers", env=env)
    run(*project, "-B", home / "build", env=env)
    run("cmake", "-S", TESTS / "libav", "-B", home / "frames", options[0] + f";{home / 'prefix'}", env=env)
    builds = [subprocess.Popen(["cmake", "--build", home / name]) for name in ("build", "frames")]
    assert [build.wait() for build in builds] == [0, 0]
    return Libav(home / "build/vivit-run", home / "frames/frames", env)


def test_every_frame_of_other_videos_is_pythons_bit_for_bit(libav: Libav, tmp_path: Path) -> None:
    videos = sorted(demo.clips_path().glob("*.mp4"))
    said = run(libav.frames, tmp_path / "rgb", *videos, env=libav.env).splitlines()
    expected = [read_sampled(video, np.arange) for video in videos]
    assert said == ["{} {} {}".format(len(frames), *frames.shape[2:0:-1]) for frames in expected]
    assert (tmp_path / "rgb").read_bytes() == b"".join(frames.tobytes() for frames in expected)


def test_what_is_no_other_video_is_refused_as_in_python(libav: Libav, tmp_path: Path) -> None:
    whole = (demo.clips_path() / "up_240x426_30fps.mp4").read_bytes()
    paths = []
    for name, data in {"text": b"no video at all\n", "noise": b"\0noise", "cut.mp4": whole[:3000]}.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    said = run(libav.frames, tmp_path / "rgb", *paths, tmp_path / "none", tmp_path, env=libav.env).splitlines()
    for path, sentence in zip([*paths, tmp_path / "none", tmp_path], said, strict=True):
        with pytest.raises(VivitExportError) as refused:
            read_sampled(path, np.arange)
        assert sentence == str(refused.value)


def test_a_video_whose_end_is_missing_is_refused_as_in_python(libav: Libav, tmp_path: Path) -> None:
    import av

    source = demo.clips_path() / "up_240x426_30fps.mp4"
    with av.open(source) as container:
        starts = sorted(packet.pos for packet in container.demux(video=0) if packet.size)
    paths = [tmp_path / "between.mp4", tmp_path / "inside.mp4"]  # of two packets, of one
    for path, end in zip(paths, (starts[20], starts[20] + 5), strict=True):
        path.write_bytes(source.read_bytes()[:end])
    said = run(libav.frames, tmp_path / "rgb", *paths, env=libav.env).splitlines()
    for path, sentence, part in zip(paths, said, ("its header states 1.5 s", "its last data"), strict=True):
        with pytest.raises(VivitExportError, match=part) as refused:
            read_sampled(path, np.arange)
        assert sentence == str(refused.value)


def test_other_videos_are_recognised_where_libav_is(cpp: Cpp, libav: Libav) -> None:
    video = demo.clips_path() / "up_240x426_30fps.mp4"
    found = run(libav.vivit_run, cpp.bundle, video, "--repeat", "1", env=libav.env).splitlines()
    expected = run(cpp.vivit_run, cpp.bundle, cpp.video, "--repeat", "1").splitlines()
    assert found[0].startswith(f"{video}: 45 frames of 240x426, on ")
    assert found[1:6] == expected[1:6]


def test_the_version_is_the_distributions() -> None:
    assert f"project(vivit VERSION {vivit_export.__version__} " in (PROJECT / "CMakeLists.txt").read_text()


# --- bundles -----------------------------------------------------------------------------------

Damage = Callable[[Path, dict[str, Any]], None]


def edit(*path: str, value: Any) -> Damage:
    """Change one value of the manifest."""

    def damage(_folder: Path, manifest: dict[str, Any]) -> None:
        *parents, last = path
        for key in parents:
            manifest = manifest[key]
        manifest[last] = value

    return damage


def drop(*path: str) -> Damage:
    """Remove one value of the manifest."""

    def damage(_folder: Path, manifest: dict[str, Any]) -> None:
        *parents, last = path
        for key in parents:
            manifest = manifest[key]
        del manifest[last]

    return damage


def flip_a_byte(folder: Path, _manifest: dict[str, Any]) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[1000] ^= 1
    (folder / "model.onnx").write_bytes(data)


def cut(folder: Path, _manifest: dict[str, Any]) -> None:
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-1])


def lose(folder: Path, _manifest: dict[str, Any]) -> None:
    (folder / "model.onnx").unlink()


def link_out(folder: Path, _manifest: dict[str, Any]) -> None:
    (folder / "model.onnx").rename(folder.parent / f"{folder.name}.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / f"{folder.name}.onnx")


ENTRY = {"sha256": "0" * 64, "size": 1}
DAMAGES: dict[str, Damage] = {
    "a flipped byte": flip_a_byte,
    "a cut file": cut,
    "a lost file": lose,
    "a link out": link_out,
    "another format": edit("format", value="vivit-bundle/2"),
    "a format of another type": edit("format", value=1),
    "no contract": drop("contract"),
    "no labels": drop("contract", "labels"),
    "a model that is not listed": drop("files", "model.onnx"),
    "an engine that is not listed": edit("engines", "x", value={}),
    "a path above": edit("files", "../x", value=ENTRY),
    "an absolute path": edit("files", "/etc/passwd", value=ENTRY),
    "a backslash": edit("files", "a\\b", value=ENTRY),
    "a size that is none": edit("files", "model.onnx", "size", value="1"),
    "an entry that is none": edit("files", "model.onnx", value=[]),
    "labels that do not match the head": edit("contract", "labels", value=["a", "b"]),
    "an unknown field": edit("contract", "clip", "frames", value=3),
    "a field that is missing": drop("contract", "clip", "height"),
    "a number that is a string": edit("contract", "clip", "height", value="64"),
    "a number that is a boolean": edit("contract", "clip", "stride", value=True),
    "an unknown rule": edit("contract", "clip", "sampling", value="random"),
    "a list that is too long": edit("contract", "clip", "views", value=[1, 2, 3]),
    "a list of something else": edit("contract", "clip", "views", value=[1, "a"]),
    "a size that is an object": edit("contract", "preprocess", "size", value={"height": 3}),
    "a stride of another rule": edit("contract", "clip", "stride", value=2),
    "views of another rule": edit("contract", "clip", "views", value=[4, 3]),
    "two views": edit("contract", "clip", "views", value=[1, 2]),
    "a clip that the tubelet does not divide": edit("contract", "clip", "num_frames", value=7),
    "a filter that is none": edit("contract", "preprocess", "resample", value=6),
    "a size of zero": edit("contract", "preprocess", "shortest_edge", value=0),
    "two sizes": edit("contract", "preprocess", "size", value=[64, 64]),
    "a deviation of zero": edit("contract", "preprocess", "std", value=[0.5, 0, 0.5]),
    "an offset without a scale": edit("contract", "preprocess", "do_rescale", value=False),
    "a crop of another size": edit("contract", "preprocess", "crop_size", value=[32, 64]),
    "two inputs": edit("contract", "io", "inputs", value=[]),
    "a frame size of another mode": edit("contract", "io", "frame_size", value=[10, 20]),
}


def test_a_damaged_bundle_is_refused_with_pythons_own_sentence(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    folders = [bundles.copy(tmp_path / str(i)) for i in range(len(DAMAGES))]
    for folder, damage in zip(folders, DAMAGES.values(), strict=True):
        manifest = json.loads((folder / "bundle.json").read_text())
        damage(folder, manifest)
        (folder / "bundle.json").write_text(json.dumps(manifest))
    folders += [tmp_path / "nowhere", tmp_path]
    answers = cpp.ask([{"do": "bundle", "bundle": str(folder)} for folder in folders], "avx2")
    for name, folder, answer in zip([*DAMAGES, "nowhere", "no bundle"], folders, answers, strict=True):
        with pytest.raises(VivitExportError) as e:
            read_bundle(folder)
        assert answer == {"error": str(e.value), "code": e.value.exit_code}, name


def test_a_manifest_that_is_no_json_is_refused(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    for i, text in enumerate(("{", "[" * 100_000, '{"a": "\xff"}', "[]")):
        folder = bundles.copy(tmp_path / str(i))
        (folder / "bundle.json").write_bytes(text.encode("latin-1"))
    requests = [{"do": "bundle", "bundle": str(tmp_path / str(i))} for i in range(4)]
    answers = cpp.ask(requests, "avx2")
    assert all("bundle.json cannot be read as JSON (" in answer["error"] for answer in answers[:3])
    assert "has format None; this version reads 'vivit-bundle/1'" in answers[3]["error"]


# --- preprocessing -----------------------------------------------------------------------------

POOL_BYTES = 9 << 20
EXACT = {"threads": 2, "position": 0.5, "count": 2}


def random_case(rng: np.random.Generator, i: int) -> tuple[Request, Clip, Preprocess]:
    """One way from frames of some size to a crop: all filters, both orders, padding, odd sizes."""
    # The area is limited, so that 500 cases take seconds; one side may still be large.
    height = int(np.exp(rng.uniform(np.log(16), np.log(1700))))
    width = int(np.exp(rng.uniform(np.log(16), np.log(min(1700, 400_000 / height)))))
    side = int(rng.integers(8, 200)), int(rng.integers(8, 200))
    fields = Preprocess(
        shortest_edge=int(rng.integers(8, 260)),
        resample=(2, 2, 2, 1, 3, 4, 5, 0)[i % 8],
        crop_size=side,
        resize_order=("pillow-13", "horizontal-first")[i // 8 % 2],
        mean=tuple(rng.uniform(0, 1, 3)),
        std=tuple(rng.uniform(0.1, 1, 3)),
        rescale_factor=float(rng.uniform(0.001, 0.02)),
        offset=bool(rng.integers(2)),
        do_normalize=bool(rng.integers(2)),
    )
    if i % 5 == 1:
        fields = replace(fields, shortest_edge=None, size=(int(rng.integers(8, 300)), int(rng.integers(8, 300))))
    if i % 17 == 2:
        fields = replace(fields, do_resize=False, shortest_edge=None, size=None)
    if i % 19 == 3:
        fields = replace(fields, do_rescale=False, offset=False)
    if i % 23 == 4:
        fields = replace(fields, do_center_crop=False, do_resize=True, shortest_edge=None, size=side)
    clip = Clip(2, *side, (1, 1, 1))
    request = {
        "do": "preprocess",
        "clip": asdict(clip),
        "preprocess": asdict(fields),
        "height": height,
        "width": width,
        "count": 2,
        "threads": 1 + i % 3,
        "position": (0.5, 0.5, 0.0, 1.0, float(rng.uniform()))[i % 5],
        "offset": int(rng.integers(0, POOL_BYTES - 2 * height * width * 3)),
    }
    return request, clip, fields


@pytest.mark.parametrize(("loops", "count"), [("portable", 600), ("avx2", 600)])
def test_the_preprocessor_gives_pythons_bits(cpp: Cpp, tmp_path: Path, loops: str, count: int) -> None:
    rng = np.random.default_rng(count)
    # Long runs beside noise: extremes are what the clipping of bicubic and Lanczos is for.
    pool = rng.integers(0, 256, POOL_BYTES, dtype=np.uint8)
    pool[: POOL_BYTES // 2] = np.repeat(rng.choice(np.array([0, 255], np.uint8), POOL_BYTES // 16), 8)
    pool.tofile(tmp_path / "pool")
    files = {"pool": str(tmp_path / "pool"), "crops": str(tmp_path / "crops"), "pixels": str(tmp_path / "pixels")}
    cases = [random_case(rng, i) for i in range(count)]
    answers = cpp.ask([{**request, **files} for request, _, _ in cases], loops)
    crops, pixels = np.fromfile(tmp_path / "crops", np.uint8), np.fromfile(tmp_path / "pixels", np.float32)
    at = vertical_first = 0
    for (request, clip, fields), answer in zip(cases, answers, strict=True):
        shape = (2, request["height"], request["width"], 3)
        frames = pool[request["offset"] :][: np.prod(shape)].reshape(shape)
        reference = Preprocessor(clip, fields)
        expected = reference.crops(frames, request["position"])
        size = expected.size
        assert answer == {"bytes": size}, request
        np.testing.assert_array_equal(crops[at : at + size].reshape(expected.shape), expected, err_msg=str(request))
        levels = reference.to_pixels(expected[None])
        np.testing.assert_array_equal(
            pixels[at : at + size].view(np.uint32), levels.reshape(-1).view(np.uint32), err_msg=str(request)
        )
        at += size
        vertical_first += reference.vertical_first(*reference.axes(*shape[1:3], request["position"]))
    assert at == len(crops) == len(pixels)
    assert vertical_first > count // 20


def test_frames_that_do_not_fit_are_refused_as_in_python(cpp: Cpp, tmp_path: Path) -> None:
    (tmp_path / "pool").write_bytes(bytes(100_000))
    clip = Clip(2, 32, 32, (1, 1, 1))
    fields = Preprocess(shortest_edge=32, do_center_crop=False)
    base = {
        "do": "preprocess",
        "clip": asdict(clip),
        "preprocess": asdict(fields),
        "offset": 0,
        "threads": 1,
        "position": 0.5,
        "pool": str(tmp_path / "pool"),
        "crops": str(tmp_path / "c"),
        "pixels": str(tmp_path / "p"),
    }
    sizes = [(2, 20, 30), (3, 20, 20)]
    answers = cpp.ask([{**base, "count": n, "height": h, "width": w} for n, h, w in sizes])
    for (n, h, w), answer in zip(sizes, answers, strict=True):
        with pytest.raises(VivitExportError) as e:
            Preprocessor(clip, fields).crops(np.zeros((n, h, w, 3), np.uint8))
        assert answer == {"error": str(e.value), "code": 3}


# --- sampling and videos -----------------------------------------------------------------------


def test_the_same_frames_are_sampled(cpp: Cpp) -> None:
    rules = [
        Clip(frames, 8, 8, (1, 8, 8), sampling, stride, short, (views, 1))  # type: ignore[arg-type]
        for frames in (1, 4, 7)
        for sampling, stride, views in (
            *(("uniform", 1, 1), ("center", 1, 1), ("head", 1, 1)),
            *(("stride", 1, 1), ("stride", 3, 1), ("stride", 2, 4)),
        )
        for short in ("refuse", "repeat", "loop")
    ]
    requests = [
        {"do": "sample", "clip": asdict(rule), "frames": n} for rule in rules for n in (0, 1, 3, 7, 16, 19, 300)
    ]
    rules_by_request = [rule for rule in rules for _ in range(7)]
    for request, rule, answer in zip(requests, rules_by_request, cpp.ask(requests), strict=True):
        try:
            expected: Any = {
                "clip": clip_indices(request["frames"], rule).tolist(),
                "views": view_indices(request["frames"], rule).reshape(-1).tolist(),
            }
        except VivitExportError as e:
            expected = {"error": str(e), "code": e.exit_code}
        assert answer == expected, request


def write_y4m(path: Path, width: int, height: int, space: str, seed: int, header: str = "", count: int = 3) -> None:
    """Frames of noise."""
    across, down = {"420": (2, 2), "422": (2, 1), "444": (1, 1), "mon": (0, 0)}[space[:3]]
    chroma = (width // across) * (height // down) if across else 0
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C{space}{header}\n".encode())
        for _ in range(count):
            file.write(b"FRAME Ip\n" + rng.integers(0, 256, width * height + 2 * chroma, dtype=np.uint8).tobytes())


def ask_video(cpp: Cpp, out: Path, requests: list[Request]) -> list[npt.NDArray[np.uint8]]:
    """The frames that the probe read, for each request."""
    out.unlink(missing_ok=True)
    answers = cpp.ask([{"do": "video", "out": str(out), **request} for request in requests], "avx2")
    data, frames = np.fromfile(out, np.uint8), []
    for request, answer in zip(requests, answers, strict=True):
        shape = (len(request["indices"]), answer["height"], answer["width"], 3)
        frames.append(data[: np.prod(shape)].reshape(shape))
        data = data[np.prod(shape) :]
    assert not data.size
    return frames


def test_frames_are_read_in_any_order(cpp: Cpp, tmp_path: Path) -> None:
    expected, indices = np.load(cpp.video), [3, 3, 0, 44, 20]
    size = list(expected.shape[1:3])
    requests = [
        {"path": str(cpp.video), "indices": indices},
        {"path": str(cpp.video.with_suffix(".rgb")), "indices": indices, "size": size},
    ]
    for frames in ask_video(cpp, tmp_path / "out", requests):
        np.testing.assert_array_equal(frames, expected[indices])


@pytest.mark.parametrize("header", ["", " XCOLORRANGE=FULL"])
@pytest.mark.parametrize("space", ["420jpeg", "420mpeg2", "420paldv", "422", "mono"])
def test_y4m_becomes_the_rgb_that_pyav_gives(cpp: Cpp, tmp_path: Path, space: str, header: str) -> None:
    path = tmp_path / "noise.y4m"
    write_y4m(path, 66, 50, space, 7, header)
    (frames,) = ask_video(cpp, tmp_path / "out", [{"path": str(path), "indices": [0, 1, 2]}])
    np.testing.assert_array_equal(frames, read_sampled(path, lambda count: np.arange(count)))


def test_what_is_no_video_is_refused(cpp: Cpp, tmp_path: Path) -> None:
    (tmp_path / "text.y4m").write_text("hello\n")
    (tmp_path / "text.npy").write_text("hello, this is no array\n")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "clip.avi").write_bytes(b"RIFF")
    (tmp_path / "bad.y4m").write_text("YUV4MPEG2 W0 H16\n")
    (tmp_path / "lost.y4m").write_text("YUV4MPEG2 W2 H2 C444\nFRAME\n123456789012FRUME\n")
    np.save(tmp_path / "float.npy", np.zeros((2, 8, 8, 3), np.float32))
    np.save(tmp_path / "gray.npy", np.zeros((2, 8, 8), np.uint8))
    np.save(tmp_path / "order.npy", np.asfortranarray(np.zeros((2, 8, 8, 3), np.uint8)))
    write_y4m(tmp_path / "deep.y4m", 16, 16, "420p10", 1)
    write_y4m(tmp_path / "cut.y4m", 16, 16, "420", 1)
    os.truncate(tmp_path / "cut.y4m", 1000)
    (tmp_path / "cut.npy").write_bytes(cpp.video.read_bytes()[:-1])
    cases: list[tuple[str, str]] = [
        ("text.y4m", "cannot be read as a video (no YUV4MPEG2 header)"),
        ("text.npy", "cannot be read as a video (no NumPy file)"),
        ("empty.npy", "cannot be read as a video (no NumPy file)"),
        ("clip.avi", "is neither .npy nor .y4m"),
        ("bad.y4m", "its header states a size of W0"),
        ("lost.y4m", "a frame does not begin where it should"),
        ("float.npy", "holds an array of type '<f4' and shape (2, 8, 8, 3); frames must be a uint8 array"),
        ("gray.npy", "shape (2, 8, 8); frames must be"),
        ("order.npy", "in C order"),
        ("deep.y4m", "has the pixel format 420p10"),
        ("cut.y4m", "is cut short"),
        ("cut.npy", "is cut short"),
        ("nothing.npy", "does not exist; give a video file"),
        (".", "is a folder; give one video file"),
    ]
    requests = [{"do": "video", "path": str(tmp_path / name), "out": "", "indices": [0]} for name, _ in cases]
    requests.append({**requests[0], "path": str(cpp.video.with_suffix(".rgb")), "size": [426, 241]})
    cases.append(("up.rgb", "bytes, which are not whole rgb24 frames of 241x426 (width x height, 307998 bytes each)"))
    for (name, part), answer in zip(cases, cpp.ask(requests, "avx2"), strict=True):
        assert part in answer["error"], name
        assert answer["code"] == 3


# --- sessions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_logits_are_pythons(cpp: Cpp, bundles: Bundles, tmp_path: Path, precision: str) -> None:
    bundle = bundles.demo(precision=precision)
    deploy_cpp(bundle, tmp_path / "app")
    clips = random_crops(bundle, 35)  # more than one call takes
    clips.tofile(tmp_path / "clips")
    folders = [str(tmp_path / "app/bundle"), str(bundle.path)]
    requests = [{"do": "infer", "bundle": folder, "clips": str(tmp_path / "clips")} for folder in folders]
    deployed, portable = cpp.ask(requests, "avx2")
    with vivit_export.open_session(bundle, prefer="onnxruntime-cpu") as session:
        require_close(deployed, session.run(clips))
        assert deployed["details"] == session.details
    # A bundle that was not deployed has no graph for the CPU: the portable one runs.
    require_close(portable, OnnxRuntimeSession(bundle.model).run(clips))
    assert portable["details"] == re.sub(r"CPU, .*", f"CPU, {precision}", deployed["details"])
    assert portable["passed_over"] == dict.fromkeys(GPU_ENGINES, "onnxruntime-cpu was asked for")


def require_close(answer: Any, expected: dict[str, npt.NDArray[np.float32]]) -> None:
    """Compare every output to 1e-6."""
    for name, values in expected.items():
        np.testing.assert_allclose(np.reshape(answer[name], values.shape), values, rtol=0, atol=1e-6)


def test_a_cpu_graph_that_is_not_listed_is_refused(cpp: Cpp, tmp_path: Path) -> None:
    values = ["model.cpu.onnx", {"file": "other.onnx", "details": ""}, {"file": 3, "details": ""}]
    for i, value in enumerate(values):
        shutil.copytree(cpp.bundle, tmp_path / str(i))
        manifest = json.loads((tmp_path / str(i) / "bundle.json").read_text())
        (tmp_path / str(i) / "bundle.json").write_text(json.dumps({**manifest, "cpu_graph": value}))
    answers = cpp.ask([{"do": "bundle", "bundle": str(tmp_path / str(i))} for i in range(3)], "avx2")
    assert "bundle.json has no file and details in cpu_graph" in answers[0]["error"]
    assert "bundle.json does not list other.onnx; deploy the bundle again" in answers[1]["error"]
    assert "bundle.json has no file and details in cpu_graph" in answers[2]["error"]


def test_every_input_mode_gives_pythons_logits(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    pixels = bundles.demo(input_mode="pixels")
    frames = bundles.demo(input_mode="frames", frame_size=(96, 128))
    crops = random_crops(pixels, 3)
    whole = np.random.default_rng(1).integers(0, 256, (3, *frames.contract.io.inputs[0].shape[1:]), dtype=np.uint8)
    crops.tofile(tmp_path / "crops")
    whole.tofile(tmp_path / "whole")
    answers = cpp.ask(
        [
            {"do": "infer_pixels", "bundle": str(pixels.path), "clips": str(tmp_path / "crops")},
            {"do": "infer", "bundle": str(frames.path), "clips": str(tmp_path / "whole")},
            {"do": "predict", "bundle": str(frames.path), "path": str(cpp.video)},
            {"do": "infer_pixels", "bundle": str(cpp.bundle), "clips": str(tmp_path / "crops")},
        ],
        "avx2",
    )
    values = Preprocessor.from_bundle(pixels.path).to_pixels(crops)
    expected = OnnxRuntimeSession(pixels.model).run(values)["logits"]
    assert answers[0]["from_pixels"] == answers[0]["from_crops"]
    np.testing.assert_allclose(np.reshape(answers[0]["from_crops"], expected.shape), expected, rtol=0, atol=1e-6)
    expected = OnnxRuntimeSession(frames.model).run(whole)["logits"]
    np.testing.assert_allclose(np.reshape(answers[1]["logits"], expected.shape), expected, rtol=0, atol=1e-6)
    assert (
        "this bundle resizes in the graph and takes uint8 frames (8, 96, 128, 3), got uint8 (8, 426, 240, 3)"
        in (answers[2]["error"])
    )
    assert answers[3] == {
        "error": "clips must be uint8, got float32; only a bundle of input mode pixels takes that",
        "code": 3,
    }


def test_a_video_is_recognised_as_in_python(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    by_view = {(1, 1): bundles.demo().path, (4, 3): bundles.copy(tmp_path / "views")}
    manifest = json.loads((by_view[4, 3] / "bundle.json").read_text())
    manifest["contract"]["clip"].update(sampling="stride", stride=2, views=[4, 3])
    (by_view[4, 3] / "bundle.json").write_text(json.dumps(manifest))
    # The codec of the .y4m is what both sides read bit for bit.
    path = cpp.video.with_suffix(".y4m")
    answers = cpp.ask(
        [{"do": "predict", "bundle": str(folder), "path": str(path)} for folder in by_view.values()], "avx2"
    )
    for folder, answer in zip(by_view.values(), answers, strict=True):
        bundle = read_bundle(folder)
        logits = OnnxRuntimeSession(bundle.model).run(read_views(path, bundle.contract))["logits"]
        np.testing.assert_allclose(answer["logits"], average_views(logits), rtol=0, atol=1e-6)
        best = Prediction(average_views(logits), None, bundle.contract.labels).top(3)
        assert [label for label, _ in answer["top"]] == [label for label, _ in best]
        np.testing.assert_allclose([c for _, c in answer["top"]], [c for _, c in best], rtol=0, atol=1e-6)
    assert answers[0]["one"] == answers[0]["logits"]


def test_eight_threads_share_a_session(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    random_crops(bundles.demo(), 3).tofile(tmp_path / "clips")
    (answer,) = cpp.ask([{"do": "share", "bundle": str(cpp.bundle), "clips": str(tmp_path / "clips")}], "avx2")
    assert answer == {"different": 0}


def test_nothing_falls_back_silently(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    broken = bundles.copy(tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"no graph")
    rehash(broken)
    other = bundles.copy(tmp_path / "other")
    shutil.copy(bundles.demo(input_mode="pixels").model, other)
    rehash(other)
    asked = {
        "onnxruntime": "onnxruntime-cpu",
        "": "onnxruntime-cpu",
        "cpu": "engine 'cpu' is unknown; use one of tensorrt, ",
        "tensorrt": "built without it; configure with -DVIVIT_TENSORRT=ON -DTENSORRT_ROOT=FOLDER",
        "onnxruntime-cuda": "onnxruntime-cuda was asked for and is not available: this ONNX Runtime has no CUDA",
    }
    devices = {
        "gpu": "device='gpu' is unknown",
        "cuda:x": "is unknown",
        "cuda": "it runs on cpu, and cuda was asked for",
    }
    requests = [{"engine": name} for name in asked] + [{"device": name} for name in devices]
    folders = [cpp.bundle] * len(requests) + [broken, other]
    requests += [{"engine": "onnxruntime-cpu"}] * 2
    expected = [
        *asked.values(),
        *devices.values(),
        "ONNX Runtime cannot load model.onnx: ",
        "does not have frames as the",
    ]
    codes = [0, 0, 2, 7, 7, 2, 2, 7, 7, 3]
    answers = cpp.ask([{"do": "open", "bundle": str(f), **r} for f, r in zip(folders, requests, strict=True)])
    for answer, part, code in zip(answers, expected, codes, strict=True):
        assert part in answer.get("error", answer.get("engine")), part
        assert answer.get("code", 0) == code


def rehash(folder: Path) -> None:
    """Make the manifest agree with a model that was exchanged."""
    manifest = json.loads((folder / "bundle.json").read_text())
    entry = {"sha256": sha256_of(folder / "model.onnx"), "size": (folder / "model.onnx").stat().st_size}
    manifest["files"]["model.onnx"] = entry
    (folder / "bundle.json").write_text(json.dumps(manifest))


# --- vivit-run ---------------------------------------------------------------------------------


def vivit_run(cpp: Cpp, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([cpp.vivit_run, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_example_shows_labels_and_latency(cpp: Cpp) -> None:
    lines = run(cpp.vivit_run, cpp.bundle, cpp.video, "--repeat", "3", "--top", "2").splitlines()
    assert re.fullmatch(r".*up\.npy: 45 frames of 240x426, on ONNX Runtime [\d.]+, CPU, fp32, 3 Multi.*", lines[0])
    assert [line.split()[-1] for line in lines[1:3]] == ["up", "grow"]
    assert re.fullmatch(r" [\d.]+ %  up", lines[1])
    for line, stage in zip(lines[3:], ("preprocess", "inference"), strict=True):
        assert re.fullmatch(rf"{stage} +p50 [\d.]+ ms, p95 [\d.]+ ms, p99 [\d.]+ ms", line)
    raw = run(cpp.vivit_run, cpp.bundle, cpp.video.with_suffix(".rgb"), "--size", "240x426", "--top", "1").splitlines()
    assert raw[1] == lines[1]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "usage: vivit-run BUNDLE CLIP"),
        (["BUNDLE", "VIDEO", "--frames", "3"], 2, "--frames is not understood; usage: vivit-run BUNDLE CLIP"),
        (["BUNDLE", "VIDEO", "--top", "0"], 2, "--top must be a number from 1 on, got 0"),
        (
            ["BUNDLE", "VIDEO", "--engine", "tensorrt"],
            7,
            "this program was built without it; configure with -DVIVIT_TEN",
        ),
        (["BUNDLE", "nothing.npy"], 3, "nothing.npy does not exist; give a video file"),
        (["nowhere", "VIDEO"], 3, "nowhere is not a folder; make a bundle with: vivit-export MODEL -o nowhere"),
        (["BUNDLE", "VIDEO", "--size", "7x7"], 3, "are not whole rgb24 frames of 7x7"),
        (["BUNDLE", "VIDEO", "--size", "big"], 2, "--size must be WxH, got big"),
    ],
)
def test_the_example_fails_with_a_sentence_and_a_code(cpp: Cpp, arguments: list[str], code: int, sentence: str) -> None:
    places = {"BUNDLE": str(cpp.bundle), "VIDEO": str(cpp.video)}
    done = vivit_run(cpp, *(places.get(word, word) for word in arguments))
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_the_example_refuses_a_tampered_bundle(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    flip_a_byte(bundles.copy(tmp_path / "bundle"), {})
    done = vivit_run(cpp, tmp_path / "bundle", cpp.video)
    assert done.returncode == 3
    path = tmp_path / "bundle/model.onnx"
    assert done.stderr == f"error: {path} is not the file that bundle.json describes: it was altered or cut short\n"
