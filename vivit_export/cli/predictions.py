"""What ``vivit predict`` does with files, and with live video."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivit_export.cli.show import PredictionPrinter
from vivit_export.cli.spans import SpanPrinter
from vivit_export.errors import UsageError, option
from vivit_export.signals import uninterrupted

if TYPE_CHECKING:
    from vivit_export.bundle import Bundle
    from vivit_export.choices import CpuPrecision, Decode
    from vivit_export.cli.live import LiveChoice
    from vivit_export.contract import Contract
    from vivit_export.progress import Silent
    from vivit_export.runtime.clips.windows import WindowRule
    from vivit_export.runtime.embedding_file import EmbeddingFile
    from vivit_export.runtime.listing import ListedVideos
    from vivit_export.runtime.session.session import Session
    from vivit_export.runtime.session.triton.videos import VideoModel


@dataclass(frozen=True, slots=True)
class Work:
    """What is predicted, and where it goes.

    Attributes:
        bundle: or a served model.
        contract: of the model, as the options change it.
        windows: predict windows instead of whole videos.
        engine: as for `open_session`.
        device: likewise.
        cpu_precision: likewise.
        show: prints results.
        embedding: file for embeddings.
        force: replace that.
        self_test: as for `open_session`.
        progress: receives remarks.
    """

    bundle: Bundle | str
    contract: Contract
    windows: WindowRule | None
    engine: str | None
    device: str | None
    cpu_precision: CpuPrecision | None
    show: PredictionPrinter | SpanPrinter
    embedding: Path | None
    force: bool
    self_test: bool
    progress: Silent

    def finish(self) -> None:
        """Print what is left."""
        if isinstance(self.show, SpanPrinter):
            self.show.finish()

    def embeddings(self, stack: ExitStack, source: str | None = None) -> EmbeddingFile | None:
        """Open the file for embeddings, if there is to be one."""
        from vivit_export.runtime.embedding_file import EmbeddingFile

        if self.embedding is None:
            return None
        return stack.enter_context(
            EmbeddingFile(self.embedding, force=self.force, source=source, note=self.progress.note)
        )


def predict_files(work: Work, found: ListedVideos, decode: Decode, readers: int | None) -> None:
    """Predict files, and print each result as it is there.

    Raises:
        ClipError: videos could not be used; the others are predicted.
    """
    from vivit_export.runtime import predict as run

    faults = list(found.faults)
    with ExitStack() as stack:
        file = work.embeddings(stack)
        running = run.predict_bundle(
            work.bundle,
            found.files,
            contract=work.contract,
            windows=work.windows,
            engine=work.engine,
            device=work.device,
            cpu_precision=work.cpu_precision,
            decode=decode,
            readers=readers,
            self_test=work.self_test,
            progress=work.progress,
        )
        for result in stack.enter_context(closing(running)):
            if isinstance(result, run.VideoFault):
                faults.append(result)
                continue
            if file is not None:
                file.add(result.prediction, str(result.path), result.span_seconds)
            work.show(result)
        work.finish()
        if file is not None:
            file.save()
    if faults:
        raise run.error_of(faults, len(found.files) + len(found.faults))


def predict_live(work: Work, source: str, live: LiveChoice) -> None:
    """Print a line for each window as it is predicted, until the video ends or the user interrupts.

    Raises:
        UsageError: there is no window, or an option is out of range.
        ClipError: as for `vivit_export.runtime.stream.stream`.
        KeyboardInterrupt: interrupted; what was predicted is printed and written.
    """
    from vivit_export.runtime.clips.live.address import live_address
    from vivit_export.runtime.select import open_session
    from vivit_export.runtime.session.triton.videos import open_model
    from vivit_export.runtime.stream import stream

    if work.windows is None:
        raise UsageError(f"live video is predicted window by window; give {option('window', 'SECONDS')}")
    given: Any = live.given()
    rule, on = work.windows, (work.engine, work.device, work.cpu_precision)
    is_served = isinstance(work.bundle, str) and not any(on)
    with ExitStack() as stack:
        session: Session | VideoModel
        session = (
            open_model(str(work.bundle)) if is_served else open_session(work.bundle, *on, self_test=work.self_test)
        )
        stack.push(session)
        work.progress.note(f"runs on {session.details}")
        results = stream(
            session,
            source,
            window=rule.length,
            hop=rule.hop,
            unit=rule.unit,
            contract=work.contract,
            note=work.progress.note,
            **given,
        )
        file = work.embeddings(stack, live_address(source).name)
        stack.enter_context(closing(results))
        try:
            for result in results:
                if file is not None:
                    file.add(result.prediction, result.source, result.span_seconds)
                work.show(result)
        except KeyboardInterrupt:
            kept = f", and {work.embedding} holds {file.count} embeddings" if file is not None and file.count else ""
            raise KeyboardInterrupt(f"windows until then are predicted{kept}") from None
        finally:  # also when it is lost or interrupted, which is how live video ends
            with uninterrupted():
                work.finish()
                if file is not None:
                    file.save()
