"""The result of a check for continuous integration: a JUnit file, and annotations of GitHub.

JUnit has no standard; this keeps to what Jenkins and GitLab read: a suite of cases, each with ``failure`` or
``skipped`` if it did not pass. Annotations are GitHub's workflow commands, ``::error title=TITLE::MESSAGE``, with the
escapes of its own toolkit.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from vivit_export.bundle.certainty import certainty_of
from vivit_export.bundle.checks import DriftReport, Run
from vivit_export.errors import counted
from vivit_export.printing import one_line
from vivit_export.report.accuracy import accuracy_sentences
from vivit_export.report.clips import flips_sentence

_SUITE = "vivit check"
# The characters that XML 1.0 cannot hold even if they are escaped (its production 2).
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_text(report: DriftReport, bundle: str) -> str:
    """Return a JUnit file: a case for each run, and for each comparison of pixels.

    Args:
        report: what was measured.
        bundle: what to call the bundle.
    """
    suite = ElementTree.Element("testsuite", name=_SUITE)
    for run in report.runs:
        if not run.gated:
            continue
        case = _case(suite, bundle, f"{run.engine}, batch {run.batch}")
        if run.drift is None:
            ElementTree.SubElement(case, "skipped", message=_xml(run.note))
        elif beyond := report.gate.violations(run.drift):
            _fail(case, "; ".join(beyond))
    for parity in report.parity:
        case = _case(suite, bundle, f"pixels: {parity.ours} and {parity.reference}")
        if parity.gated and parity.differing:
            _fail(case, parity.sentence)
    if report.baseline:
        case = _case(suite, bundle, f"baseline: {report.baseline.source}")
        if report.baseline.regressions:
            _fail(case, report.baseline.sentence)
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", "0")
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    out = ElementTree.SubElement(suite, "system-out")
    out.text = _xml("\n".join(_facts(report)))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=False)


def github_text(report: DriftReport, bundle: str) -> str:
    """Return a command for each failure, and a notice of what was checked.

    Args:
        report: what was measured.
        bundle: what to call the bundle.
    """
    title = f"{_SUITE}: {bundle}"
    failures = [_command("error", title, sentence) for sentence in report.failures()]
    return "\n".join([*failures, _command("notice", title, ". ".join(_facts(report)))])


def _facts(report: DriftReport) -> list[str]:
    """Return what was checked, in sentences without a full stop."""
    gated = [run for run in report.runs if run.gated and run.drift is not None]
    certainty = certainty_of(report)
    return [
        f"{'Passed' if report.passed else 'FAILED'}: {counted(len(gated), 'runs')} against {report.reference} on "
        f"{counted(report.clips.count, 'clips')}: {report.source}",
        *(f"{run.engine}, batch {run.batch}: {_worst(run)}" for run in gated),
        *([flips_sentence(report.view, report.clips.count)] if report.view and report.view.flips else []),
        *accuracy_sentences(report),
        *([certainty.sentence] if certainty else []),
    ]


def _worst(run: Run) -> str:
    drift = run.drift
    assert drift is not None
    figures = {"top-1": drift.top1, "labels": drift.agreement, "max": drift.max, "cosine": drift.cosine}
    figures |= {"embedding cosine": drift.embedding_cosine}
    return ", ".join(f"{name} {value:.6g}" for name, value in figures.items() if value is not None)


def _case(suite: ElementTree.Element, bundle: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=_xml(bundle), name=_xml(name))


def _fail(case: ElementTree.Element, reason: str) -> None:
    ElementTree.SubElement(case, "failure", message=_xml(reason), type="drift").text = _xml(reason)


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)


def _command(kind: str, title: str, message: str) -> str:
    """Write a workflow command, whose message is one line."""
    message = _escaped(one_line(message))
    title = _escaped(one_line(title)).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={title}::{message}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
