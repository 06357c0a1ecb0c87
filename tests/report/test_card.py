"""The model card: its front matter, its facts, and text of others that stays text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from command_line import runner
from headless_bundle import CHECKS, ENGINE, headless
from hypothesis import example, given
from hypothesis import strategies as st
from made_bundle import make_bundle
from markdown_it import MarkdownIt

import vivit_export as ve
from vivit_export.cli.card import card as command
from vivit_export.errors import UsageError
from vivit_export.report.card import card


def front(text: str) -> list[str]:
    assert text.startswith("---\n")
    return text.split("---\n")[1].splitlines()


def test_front_matter_of_a_checkpoint_of_the_hub(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "out")
    lines = front(ve.card(bundle.path, license_id="apache-2.0"))
    assert lines[:4] == [
        'license: "apache-2.0"',
        "library_name: vivit-export",
        "pipeline_tag: video-classification",
        'base_model: "google/vivit-b-16x2-kinetics400"',
    ]
    assert '- "vivit-export"' in lines


@pytest.mark.parametrize("name", ["demo", 'a/b"\nlicense: mit', "a/b\n", "a/b: c", "../b", "a/b/c", "a/ñ"])
def test_front_matter_holds_no_other_name(name: str) -> None:
    found = headless()
    found = replace(found, manifest=replace(found.manifest, model=replace(found.manifest.model, id=name)))
    lines = front(card(found))
    assert not any(line.startswith(("base_model", "license")) for line in lines)


def test_what_was_not_measured_is_said() -> None:
    text = card(headless())
    for sentence in (
        "Drift was not measured.",
        "Accuracy on labelled clips was not measured.",
        "Latency was not measured.",
    ):
        assert sentence in text
    assert "Signature: none." in text


def test_drift_and_engines_are_told() -> None:
    text = card(headless(checks=CHECKS, engines={"rtx": ENGINE}))
    assert "0.9998700" in text and "`not run: needs 2.0 GiB`" in text
    assert f"`{ENGINE.compiler}`" in text and all(sentence in text for sentence in ENGINE.proof)


@given(st.text(max_size=40), st.text(max_size=40))
@example("`<b>", "[x](http://a.example)")
@example("a`|`<img src=x>", "![x](y)|`")
@example("\\`<i>", "\\|<i>")
def test_a_markdown_reader_sees_no_markup_in_text_of_others(name: str, label: str) -> None:
    """markdown-it follows CommonMark, with GitHub's tables; everything that is not ours must be code."""
    found = headless()
    contract = replace(found.contract, labels=(label, *found.contract.labels[1:])) if found.contract.labels else None
    manifest = replace(
        found.manifest, model=replace(found.manifest.model, id=name), contract=contract or found.contract
    )
    body = card(replace(found, manifest=manifest)).partition("---\n\n")[2]
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
    kinds = {token.type for token in tokens} | {child.type for token in tokens for child in token.children or ()}
    assert not kinds & {"link_open", "image", "html_inline", "html_block", "em_open", "strong_open"}, kinds
    rows = [tokens[i + 1 :] for i, token in enumerate(tokens) if token.type == "tr_open"]
    cells = [[t.type for t in row[: [t.type for t in row].index("tr_close")]].count("td_open") for row in rows]
    assert all(count in (0, 2, 3) for count in cells), cells  # as many as the head has


def test_yaml_reads_the_front_matter(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "out")
    told = yaml.safe_load(card(bundle, license_id="apache-2.0").split("---\n")[1])
    assert told["license"] == "apache-2.0" and told["base_model"] == bundle.manifest.model.id
    assert told["pipeline_tag"] == "video-classification" and str(bundle.precision) in told["tags"]


def test_names_with_bars_do_not_add_cells() -> None:
    found = headless()
    found = replace(found, manifest=replace(found.manifest, model=replace(found.manifest.model, id="a|b")))
    assert "| model | `a\\|b` |" in card(found).splitlines()


@pytest.mark.parametrize("name", ["", "MIT License", 'mit"\nbase_model: x', "mit\n"])
def test_a_license_is_a_plain_name(name: str) -> None:
    with pytest.raises(UsageError, match="give one like apache"):
        card(headless(), license_id=name)


def test_the_command_writes_outside_of_the_bundle_only(tmp_path: Path) -> None:
    bundle, target = make_bundle(tmp_path / "out"), tmp_path / "README.md"
    inside = runner().invoke(command, [str(bundle.path), "-o", str(bundle.path / "README.md")])
    assert inside.exit_code != 0 and not (bundle.path / "README.md").exists()
    assert runner().invoke(command, [str(bundle.path), "-o", str(target)]).exit_code == 0
    assert target.read_text(encoding="utf-8") == card(bundle)
    assert runner().invoke(command, [str(bundle.path), "-o", str(target)]).exit_code != 0
    assert json.loads(runner().invoke(command, [str(bundle.path), "--json"]).stdout)["card"] == card(bundle)
    assert runner().invoke(command, [str(bundle.path)]).stdout.rstrip() == card(bundle).rstrip()
