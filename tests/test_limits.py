"""Limits are stated once; C++ repeats them."""

from __future__ import annotations

import re
from pathlib import Path

import vivit_export
from vivit_export import limits, records

HEADER = Path(vivit_export.__file__).parent / "deploy/cpp/project/include/vivit/detail/limits.hpp"
_CONSTANT = re.compile(
    r"inline constexpr (?:int|double|std::int64_t) (\w+) = (?:std::int64_t\((\d+)\) << (\d+)|(\S+));"
)


def test_cpp_has_the_same_limits() -> None:
    found = {
        name.upper(): int(base) << int(shift) if base else float(value)
        for name, base, shift, value in _CONSTANT.findall(HEADER.read_text(encoding="utf-8"))
    }
    of_json = {"MOST_LEVELS": records.MOST_LEVELS, "MOST_CONTAINERS": records.MOST_CONTAINERS}
    ours = {**vars(limits), **of_json, "DEFAULT_MOST_PIXELS": limits.MOST_PIXELS}
    assert len(found) == 21
    assert found == {name: ours[name] for name in found}
