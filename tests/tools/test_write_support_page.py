"""The support page is what its script writes, and every fact that others state has a source."""

from __future__ import annotations

import json
import re

from write_support_page import FACTS, PAGE, page


def test_the_page_is_what_the_script_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tools/write_support_page.py"


def test_what_others_state_has_a_source() -> None:
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    stated = [*facts["jetpack"], facts["jetpack_tensorrt_11"], facts["triton_onnxruntime"]]
    for fact in stated:
        assert re.fullmatch(r"https://\S+", fact["source"])
