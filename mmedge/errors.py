"""The exception tree: one class per kind of mistake, each with an exit code and a hint (a command to run)."""

from __future__ import annotations


class MMEdgeError(Exception):
    """A mistake that a person can mend. `hint` says how; `exit_code` is what the command line returns."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(MMEdgeError):
    """A flag or an argument makes no sense."""


class SceneError(MMEdgeError):
    """A scene cannot be opened, or it does not offer what the model needs."""


class BandError(SceneError):
    """A band is missing, unnamed or ambiguous."""


class GeoreferenceError(SceneError):
    """A raster has no CRS, or its grid cannot be used."""


class UnitError(SceneError):
    """Values are not in the unit that they claim to be in."""


class ReadError(SceneError):
    """Pixels of a file that did open cannot be read."""


class OutputError(MMEdgeError):
    """An output exists already, or cannot be written."""


class BundleError(MMEdgeError):
    """A model bundle is missing, damaged or does not fit the request."""


class MachineError(MMEdgeError):
    """This machine cannot do it: a missing extra, no GPU, a foreign engine."""

    exit_code = 3


class MissingExtraError(MachineError):
    """An optional dependency is not installed."""
