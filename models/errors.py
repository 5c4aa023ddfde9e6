"""The exception tree of the whole project.

::

    AmalgamError
    |-- InvalidInputError        (also a ValueError)
    |   |-- SettingsError
    |   `-- InvalidTreesError
    |-- DecodeError
    |-- IncompatibleSummaryError
    |-- QuarantinedError
    |-- StateError
    |   |-- StateHeldError
    |   `-- NoRoomError
    |-- SupersededError
    `-- UnavailableError
"""

from typing import ClassVar


class AmalgamError(Exception):
    """Anything this project raises on purpose; an operator reads its message."""

    retriable: ClassVar[bool] = False


class InvalidInputError(AmalgamError, ValueError):
    """A value from outside is not what was expected; correct the input and try again."""


class SettingsError(InvalidInputError):
    """A settings or mapping file or variable is wrong; the message names file, key and rule."""


class InvalidTreesError(InvalidInputError):
    """Decision trees from outside break a rule; they are refused with ``reason``.

    Parameters
    ----------
    reason
        One of `models.trees.REASONS`, fit for a metric label.
    detail
        What was expected and what came.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class DecodeError(AmalgamError):
    """A record cannot be decoded; it goes to dead letters or quarantine with ``reason``.

    Parameters
    ----------
    reason
        One of a closed set of short names, fit for a metric label.
    detail
        What was expected and what came, without any value of the record.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class IncompatibleSummaryError(AmalgamError):
    """Two things that must mean the same (schema, basis, unit) differ; align the versions."""


class QuarantinedError(AmalgamError):
    """A member's message is refused; its reason, hash and offset are in the quarantine topic."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class StateError(AmalgamError):
    """Stored state cannot be used (other version, damaged); move it away and let it be rebuilt."""


class StateHeldError(StateError):
    """Another process has the state open; nothing is wrong with it, stop that process first."""


class NoRoomError(StateError):
    """The disk takes no more; what was stored before is whole."""


class SupersededError(AmalgamError):
    """Another process does this one's work from now on; do not start it again here."""


class UnavailableError(AmalgamError):
    """A broker or peer cannot be reached for now; the caller retries until its deadline."""

    retriable: ClassVar[bool] = True
