"""Fuzz one target of ``targets.py``, guided by coverage, with Atheris (libFuzzer for Python).

    python fuzz/python_fuzzer.py TARGET [CORPUS...] [-max_total_time=SECONDS] [further options of libFuzzer]

It ends at the first find and leaves the input that shows it; see ``run_fuzzers.py``.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["vivit_export"]):
    import targets

from mutation import mutated


def main() -> None:
    """Fuzz until the time is over."""
    name = sys.argv.pop(1)
    chooses = int(name == "everything")  # bytes at the beginning that are not part of the document

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        made = mutated(data[chooses:], seed, most - chooses) if seed % 3 else None
        return bytes(atheris.Mutate(data, most)) if made is None else data[:chooses] + made

    is_json = chooses or name in targets.JSON_TARGETS
    mutator = {"custom_mutator": mutate} if is_json else {}
    atheris.Setup(sys.argv, lambda data: targets.check(name, data) and 0, **mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
