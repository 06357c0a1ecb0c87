"""The kinds of TensorRT: one frozen record each, and the only place that states facts about them.

Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from vivit_export.choices import NamedRecord
from vivit_export.errors import UsageError, option
from vivit_export.packages import require_version
from vivit_export.precision import Precision

_RTX_SMS = (75, 80, 86, 89, 120, 121)
_RTX_DEFAULT_SMS = (86, 89, 120)
# Datacenter GPUs that TensorRT for RTX leaves to full TensorRT: H100 and H200, B200, B300.
_FULL_TENSORRT_ONLY = (90, 100, 103)


class Flavour(NamedRecord):
    """A compiler of engines; equal to its name, which is how the bundle and the command line write it.

    Attributes:
        product: its name, for people.
        module: its Python package.
        extra: extra of our package that installs it.
        lowest: the first version that has every name and signature that we use (TensorRT, checked against the
            bindings), or that compiles every precision without a GPU (TensorRT for RTX: 1.4 fails at int8 and fp8).
        times_kernels: whether it chooses kernels by timing them, so that a timing cache saves time.
        known_sms: compute capabilities that it compiles for ahead of time, on any machine; empty: it compiles for
            this machine's GPU (tensorrt_rtx.ComputeCapability, 1.7.1: no datacenter GPU except SM 80).
        default_sms: those that it compiles for by default (support matrix 1.0 to 1.5: Turing is opt-in).
    """

    TENSORRT = "tensorrt", "TensorRT", "tensorrt", "gpu", "10.3", True
    TENSORRT_RTX = "tensorrt-rtx", "TensorRT for RTX", "tensorrt_rtx", "rtx", "1.5", False, _RTX_SMS, _RTX_DEFAULT_SMS

    if not TYPE_CHECKING:  # a type checker would take it for the signature of ``Flavour("tensorrt")``

        def __new__(cls, name, product, module, extra, lowest, times_kernels, known_sms=(), default_sms=()):
            """Make a member that is equal to its name."""
            member = str.__new__(cls, name)
            member._value_ = name
            member.product, member.module, member.extra, member.lowest = product, module, extra, lowest
            member.times_kernels = times_kernels
            member.known_sms, member.default_sms = known_sms, default_sms
            return member

    product: str
    module: str
    extra: str
    lowest: str
    times_kernels: bool
    known_sms: tuple[int, ...]
    default_sms: tuple[int, ...]

    @property
    def ahead_of_time(self) -> bool:
        """Whether it compiles for GPUs that this machine does not have."""
        return bool(self.known_sms)

    def require_version(self, installed: str) -> None:
        """Refuse a version of the package that is older than what was checked.

        Raises:
            EnvironmentFault: it is.
        """
        require_version(self.product, installed, self.lowest, "no older one was checked", self.extra)

    def check_sms(self, sms: Iterable[int], precision: Precision | None = None) -> tuple[int, ...]:
        """Return the compute capabilities to build for: those given, ascending, or the default.

        Args:
            sms: compute capabilities such as 89; empty: the default ones that have the arithmetic.
            precision: the arithmetic that they must have; None: any.

        Raises:
            UsageError: it cannot build for one of them, or not in this precision.
        """
        given = sorted(set(sms))
        if not self.ahead_of_time:
            if given:
                raise UsageError(
                    f"{option('sms', _joined(given))} cannot be honored by {option('targets', self)}, which builds for "
                    f"the GPU present; drop {option('sms')}, or use {option('targets', 'tensorrt-rtx')}"
                )
            return ()
        self._require_known(given)
        oldest = precision.oldest_sm if precision else 0
        too_old = [sm for sm in given if sm < oldest]
        if too_old:
            raise UsageError(
                f"{option('sms', _joined(too_old))} has no {precision} arithmetic, which needs {oldest} or newer; "
                "build another engine for it in another precision"
            )
        return tuple(given or (sm for sm in self.default_sms if sm >= oldest))

    def _require_known(self, sms: Iterable[int]) -> None:
        for sm in sms:
            if sm in _FULL_TENSORRT_ONLY:
                raise UsageError(
                    f"{option('sms', sm)}: {self.product} does not support H100, H200 and B200; "
                    f"use {option('targets', 'tensorrt')} on that machine"
                )
            if sm not in self.known_sms:
                raise UsageError(
                    f"{option('sms', sm)} is unknown to {self.product}; it supports {_joined(self.known_sms)}"
                )


def _joined(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
