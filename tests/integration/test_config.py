"""Options from a file and from the environment, and what the commands say about them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from command_line import Cli

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DRY = ("export", "demo", "--target", "onnx", "--dry-run", "--json")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "settings" / "vivit.toml"


def write(config: Path, text: str) -> Path:
    config.parent.mkdir(exist_ok=True)
    config.write_text(text)
    return config


def precision_of(cli: Cli, *more: str | Path) -> str:
    return str(json.loads(cli(*DRY, *more).stdout)["precision"])


def test_what_is_typed_comes_before_the_environment_the_file_and_the_default(
    cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert precision_of(cli) == "fp32"
    write(config, '[export]\nprecision = "int8"\n[check]\nengine = "openvino"\n')
    assert precision_of(cli, "--config", config) == "int8"
    monkeypatch.setenv("VIVIT_EXPORT_PRECISION", "bf16")
    assert precision_of(cli, "--config", config) == precision_of(cli) == "bf16"
    for typed in (("--precision", "fp16"), ("--fp16",)):
        assert precision_of(cli, "--config", config, *typed) == "fp16"


def test_all_kinds_of_values_are_taken(cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        config,
        '[export]\nmodel = "demo"\ntarget = ["onnx"]\nmax-batch = 4\ngate = "max=0.5"\ndry-run = true\njson = true\n'
        'no-rewrite = "layernorm"\n',
    )
    monkeypatch.setenv("VIVIT_EXPORT_OPT_BATCH", "2")
    facts = json.loads(cli("export", "--config", config).stdout)
    assert facts["batches"] == [1, 2, 4] and facts["engines"] == {}
    monkeypatch.setenv("VIVIT_EXPORT_NO_REWRITE", "layernorm nonsense")
    assert "nonsense" in cli("export", "--config", config, code=2).stderr  # several, split by spaces
    monkeypatch.setenv("VIVIT_EXPORT_DRY_RUN", "perhaps")
    assert "VIVIT_EXPORT_DRY_RUN='perhaps' must be 1 or 0" in cli("export", "demo", code=2).stderr


def test_relative_paths_begin_at_the_file(cli: Cli, config: Path, demo_bundle: Path) -> None:
    write(config, f'[inspect]\nbundle = "../{demo_bundle.relative_to(config.parent.parent)}"\n')
    assert "hashes verified" in cli("inspect", "--config", config).stdout
    shown = tomllib.loads(cli("inspect", "--config", config, "--show-config").stdout)
    assert shown["inspect"]["bundle"] == str(config.parent / ".." / demo_bundle.relative_to(config.parent.parent))
    write(config, '[predict]\nbundle = "triton://localhost:1/demo"\nvideos = ["rtsp://camera/1", "-", "/x/y.mp4"]\n')
    told = tomllib.loads(cli("predict", "--config", config, "--show-config").stdout)["predict"]
    assert told["bundle"] == "triton://localhost:1/demo" and told["videos"] == ["rtsp://camera/1", "-", "/x/y.mp4"]


def test_show_config_says_where_each_value_is_from_and_is_a_config(
    cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(config, "[export]\nmax-batch = 16\n")
    monkeypatch.setenv("VIVIT_EXPORT_GATE", "max=0.5")
    given = ("export", "demo", "--fp16", "--sm", "89", "--config", config, "--show-config")
    text = cli(*given).stdout
    assert f"max-batch = 16  # {config}\n" in text
    assert 'gate = "max=0.5"  # VIVIT_EXPORT_GATE\n' in text
    assert 'precision = "fp16"  # command line\n' in text and 'sm = "89"  # command line\n' in text
    assert 'output = "ranges.json"  # default\n' in cli("calibrate", "demo", "--show-config").stdout
    assert 'attention = "auto"  # default\n' in text and "# opset: not set\n" in text
    again = write(config, text)
    monkeypatch.delenv("VIVIT_EXPORT_GATE")
    first, second = tomllib.loads(text), tomllib.loads(cli("export", "--config", again, "--show-config").stdout)
    assert first == second
    facts = json.loads(cli(*given, "--json").stdout)["export"]
    assert facts["precision"] == {"value": "fp16", "source": "command line"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[export]\nprecison = 'fp16'\n", "[export] has no option 'precison'; did you mean precision?"),
        ("[export]\nfp16 = true\n", "[export] has no option 'fp16'"),
        ("precision = 'fp16'\n", "'precision' is not the table of a command; write the options of one below its name"),
        ("[exports]\n", "'exports' is not the table of a command"),
        ("[export]\nmax-batch = true\n", "max-batch = true must be text or a number"),
        ("[export]\nmax-batch = [4]\n", "max-batch takes one value, not a list"),
        ("[export]\nmax-batch = {a = 1}\n", "max-batch = {'a': 1} must be text or a number"),
        ("[export]\nforce = 1\n", "force = 1 must be true or false"),
        ("[export]\nforce = 'yes'\n", 'force = "yes" must be true or false'),
        ("[export]\ntarget = ['onnx', ['x']]\n", "target = ['x'] must be text or a number"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(cli: Cli, config: Path, content: str, said: str) -> None:
    stderr = cli("export", "demo", "--config", write(config, content), "--dry-run", code=2).stderr
    assert said in stderr and str(config) in stderr and stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[deploy]\ntriton = 'x'\n", "'deploy.triton' is not the table of a command"),
        ("[deploy]\nnme = 1\n", "'deploy.nme' is not the table of a command"),
        ("[deploy.trton]\nname = 'x'\n", "'deploy.trton' is not the table of a command"),
    ],
)
def test_what_no_command_reads_is_refused_whichever_command_runs(
    cli: Cli, config: Path, content: str, said: str
) -> None:
    write(config, content)
    for command in (("deploy", "triton", "a", "b"), ("export", "demo")):
        assert said in cli(*command, "--config", config, "--show-config", code=2).stderr


@pytest.mark.parametrize(
    ("content", "said"), [(b"[export\n", "is not a TOML file"), (b"\xff\xfe", "is not a TOML file")]
)
def test_what_is_no_toml_is_unusable_input(cli: Cli, config: Path, content: bytes, said: str) -> None:
    write(config, "").write_bytes(content)
    assert said in cli("export", "demo", "--config", config, code=3).stderr


def test_a_file_that_is_not_there_and_a_wrong_value_name_themselves(
    cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"{config} cannot be read: No such file" in cli("export", "demo", "--config", config, code=3).stderr
    write(config, '[export]\nprecision = "int9"\n')
    assert f"'int9' is not one of 'fp32', 'fp16', 'bf16', 'int8', 'fp8', 'auto'. (from {config})" in " ".join(
        cli("export", "demo", "--config", config, code=2).stderr.split()
    )
    monkeypatch.setenv("VIVIT_EXPORT_MAX_BATCH", "many")
    assert "(from VIVIT_EXPORT_MAX_BATCH)" in cli("export", "demo", code=2).stderr


def test_tables_of_commands_in_groups(cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(config, '[deploy.triton]\nname = "mine"\n')
    given = ("deploy", "triton", "a", "b", "--config", config, "--show-config", "--json")
    assert json.loads(cli(*given).stdout)["deploy.triton"]["name"]["value"] == "mine"
    monkeypatch.setenv("VIVIT_DEPLOY_TRITON_NAME", "other")
    assert json.loads(cli(*given).stdout)["deploy.triton"]["name"] == {
        "value": "other",
        "source": "VIVIT_DEPLOY_TRITON_NAME",
    }
