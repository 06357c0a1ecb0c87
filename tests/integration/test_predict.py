"""``vivit predict``: forms of output, what is ignored or unreadable, what is never replaced, and Ctrl-C."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from bundles import Bundles
from command_line import Cli, error_of
from console import BIN
from safetensors.numpy import load_file
from stand_in_engine import damaged
from unprivileged import run_python
from videos import make_picture_video, moving_picture, repeat_video

from vivit_export.bundle import read_bundle, write_manifest
from vivit_export.demo import clips_path

pytestmark = pytest.mark.needs_onnxruntime
LEFT, UP = clips_path() / "left_320x240_25fps.mp4", clips_path() / "up_240x426_30fps.mp4"
QUICK = ("--engine", "onnxruntime-cpu")


@pytest.fixture(scope="module")
def bundle(bundles: Bundles) -> Path:
    return bundles.demo().path


def test_an_engine_that_computes_wrongly_is_refused_unless_it_is_wanted(
    cli: Cli, bundles: Bundles, tmp_path: Path
) -> None:
    folder = bundles.copy(tmp_path / "wrong", check=True, num_clips=3)
    (folder / "model.onnx").write_bytes(damaged((folder / "model.onnx").read_bytes()))
    write_manifest(folder, read_bundle(folder, verify=False).manifest.content)
    sentence = error_of(cli("predict", folder, LEFT, *QUICK, code=5))
    assert "computes wrongly" in sentence and " is above 0.0001" in sentence
    assert sentence.endswith("(--no-self-test opens it anyway)")
    assert "self-test left out" in cli("predict", folder, LEFT, *QUICK, "--no-self-test", "-v").stderr


# --- forms -------------------------------------------------------------------------------------


def test_each_form_can_be_asked_for(cli: Cli, bundle: Path) -> None:
    table = cli("predict", bundle, LEFT, UP, "--format", "table", "--top-k", "1", "-q", *QUICK).stdout.splitlines()
    assert table[::2] == [str(LEFT), str(UP)]
    assert [line.split()[0] for line in table[1::2]] == ["left", "up"]
    (line,) = cli("predict", bundle, LEFT, "--format", "jsonl", "-q", *QUICK).stdout.splitlines()
    assert json.loads(line)["top"][0]["label"] == "left"


def test_without_a_form_one_video_is_a_table_and_several_are_json_lines(cli: Cli, bundle: Path) -> None:
    for videos, form in (((LEFT,), "table"), ((LEFT, UP), "jsonl")):
        plain = cli("predict", bundle, *videos, "-q", *QUICK).stdout
        assert plain == cli("predict", bundle, *videos, "--format", form, "-q", *QUICK).stdout
    as_json = cli("predict", bundle, LEFT, "--json", "-q", *QUICK).stdout
    assert as_json == cli("predict", bundle, LEFT, "--json", "--format", "jsonl", "-q", *QUICK).stdout


def test_csv_has_a_line_per_label(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    names = [f'motion "{i}", quick' for i in range(8)]
    (tmp_path / "names.json").write_text(json.dumps(names))
    options = ("--labels", tmp_path / "names.json", "--top-k", "2", "-q", *QUICK)
    found = list(csv.DictReader(cli("predict", bundle, LEFT, UP, "--format", "csv", *options).stdout.splitlines()))
    told = [json.loads(line) for line in cli("predict", bundle, LEFT, UP, *options).stdout.splitlines()]
    assert [(row["video"], row["rank"], row["label"], float(row["probability"])) for row in found] == [
        (video["video"], str(rank), entry["label"], entry["probability"])
        for video in told
        for rank, entry in enumerate(video["top"], 1)
    ]
    assert {row["start_seconds"] for row in found} == {""}


def test_csv_of_windows_has_their_times(cli: Cli, bundle: Path) -> None:
    options = ("--window", "0.8", "--hop", "0.4", "--top-k", "1", "--format", "csv", "-q", *QUICK)
    rows = list(csv.DictReader(cli("predict", bundle, LEFT, *options).stdout.splitlines()))
    assert [float(row["start_seconds"]) for row in rows[:3]] == pytest.approx([0, 0.4, 0.8])
    assert [float(row["end_seconds"]) for row in rows[:3]] == pytest.approx([0.8, 1.2, 1.6])


def test_csv_without_logits_names_the_videos(cli: Cli, bundles: Bundles, tmp_path: Path) -> None:
    bundle = bundles.demo(outputs=("embedding",)).path
    shown = cli("predict", bundle, LEFT, "--embedding", "e", "--format", "csv", "-q", *QUICK).stdout.splitlines()
    assert shown == ["video,start_seconds,end_seconds,rank,label,probability", f"{LEFT},,,,,"]


def test_a_table_of_windows_names_each_of_several_videos(cli: Cli, bundle: Path) -> None:
    options = ("--window", "0.8", "--format", "table", "--top-k", "1", "-q", *QUICK)
    lines = cli("predict", bundle, LEFT, UP, *options).stdout.splitlines()
    assert [line for line in lines if line.startswith("/")] == [str(LEFT), str(UP)]
    assert cli("predict", bundle, LEFT, *options).stdout.startswith("    0.00 s to")


def test_two_forms_are_refused(cli: Cli, bundle: Path) -> None:
    said = error_of(cli("predict", bundle, LEFT, "--json", "--format", "csv", code=2))
    assert said == "--json is --format jsonl; leave it out, or --format csv"


# --- what cannot be used -----------------------------------------------------------------------


def test_what_is_ignored_in_a_folder_is_said_but_is_no_error(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "a.mp4").symlink_to(LEFT)
    (folder / "b.heic").touch()
    (folder / "more").symlink_to(clips_path())
    result = cli("predict", bundle, folder, *QUICK)
    assert len(result.stdout.splitlines()) == 1
    assert (
        f"  ignored in {folder}: 1 file without the suffix of a video (b.heic), 1 linked folder (more)\n"
        in result.stderr
    )
    assert not cli("predict", bundle, folder, "-q", *QUICK).stderr


def test_a_missing_file_is_not_counted_as_predicted(cli: Cli, bundle: Path) -> None:
    said = cli("predict", bundle, "none.mp4", *QUICK, code=3).stderr.splitlines()
    assert said[-2].startswith("predict 0 of 1 video, ") and "videos/s" not in said[-2]
    assert said[-1] == "error: none.mp4 does not exist; give a video file"


def predict(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``vivit predict`` as somebody who may not read everything."""
    return run_python(BIN / "vivit", "predict", *arguments, *QUICK, cwd=cwd)


def test_an_unreadable_file_among_good_ones_is_that_files_fault(bundle: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed.mp4"
    closed.write_bytes(LEFT.read_bytes())
    closed.chmod(0)
    done = predict(bundle, LEFT, closed, UP, "-q", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert [json.loads(line)["video"] for line in done.stdout.splitlines()] == [str(LEFT), str(UP)]
    title, fault = done.stderr.splitlines()
    assert title == "error: 1 of 3 videos could not be used:"
    assert fault.startswith(f"  {closed} cannot be read") and "Permission denied" in fault


def test_a_folder_without_videos_among_good_ones_is_its_own_fault(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = predict(bundle, "empty", LEFT, "-q", cwd=tmp_path)
    assert done.returncode == 3
    assert [json.loads(line)["video"] for line in done.stdout.splitlines()] == [str(LEFT)]
    assert done.stderr.startswith("error: 1 of 2 videos could not be used:\n  empty holds no video; ")


# --- embeddings and stdout ---------------------------------------------------------------------


def test_embeddings_replace_nothing_without_force(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(LEFT.read_bytes())
    (tmp_path / "notes").write_text("mine")
    for path, options, said in (
        ("a.mp4", (), "--embedding {} is a file to read from; choose another name"),
        ("a.mp4", ("--force",), "--embedding {} is a file to read from; choose another name"),
        ("notes", (), "{} exists; pass --force to replace that file, or choose another name"),
    ):
        target = tmp_path / path
        result = cli("predict", bundle, tmp_path / "a.mp4", "--embedding", target, *options, *QUICK, code=3)
        assert error_of(result) == said.format(target)
        assert "predict" not in result.stderr.replace(error_of(result), "")  # noticed before the work
    said = error_of(cli("predict", bundle, LEFT, "--force", code=2))
    assert said == "--force replaces the file of --embedding FILE; give both"
    cli("predict", bundle, LEFT, "--embedding", tmp_path / "notes", "--force", "-q", *QUICK)
    assert load_file(tmp_path / "notes")["embedding"].shape == (1, 128)


def test_a_read_only_folder_is_noticed_before_the_work(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    done = predict(bundle, LEFT, "--embedding", "closed/e", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("error: closed/e cannot be written: ")
    assert "runs on" not in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["inspect", "BUNDLE"], ["deploy", "--help"]])
def test_a_full_disk_below_stdout_is_one_sentence(bundle: Path, tmp_path: Path, arguments: Sequence[str]) -> None:
    command = [str(BIN / "vivit"), *(str(bundle) if part == "BUNDLE" else part for part in arguments)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == "error: the output cannot be written: No space left on device"
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_predictions_onto_a_full_disk_are_one_sentence(bundle: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command: list[str | Path] = [BIN / "vivit", "predict", bundle, LEFT, UP, "-q", *QUICK]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    said = "error: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (3, said)


# --- Ctrl-C ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes of 720p, which take this machine 20 s or more to decode."""
    folder = tmp_path_factory.mktemp("long")
    pictures = (moving_picture(i, 1280, 720) for i in range(50))
    options = {"preset": "ultrafast", "bf": "0", "g": "50"}
    short = make_picture_video(folder / "short.mp4", pictures, codec_options=options)
    return repeat_video(short, folder / "long.mp4", 300)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("options", [(1,), (3,), (1, "--window", "2")])
def test_a_signal_ends_the_decoding_of_a_long_video(
    bundle: Path, long_video: Path, options: tuple[int | str, ...], number: signal.Signals
) -> None:
    """In a quarter of a second if nothing else runs; a busy machine may take longer to switch to us."""
    count, *window = options
    command: list[str | Path] = [
        BIN / "vivit",
        "predict",
        bundle,
        *[long_video] * int(count),
        *map(str, window),
        *("--decode", "full"),
        *QUICK,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "runs on" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(1)
        begun = time.monotonic()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - begun < 3
    assert process.returncode == 130
    assert stderr.endswith("error: interrupted; nothing was written\n")
