"""Errors a user can act on. Each message says what is wrong, where, why, and how to fix it."""


class RecsysError(Exception):
    """Base of every error that is the user's to mend; a pipeline prints it without a traceback."""


class ConfigError(RecsysError, ValueError):
    """A configuration value is of the wrong type, unknown, or impossible."""


class DataError(RecsysError, ValueError):
    """Input rows or files cannot be used: missing column, wrong type, unreadable file, bad value."""


class StageError(RecsysError, RuntimeError):
    """A stage folder cannot be read or written: unfinished, locked, made by another configuration, disk full."""


class CheckpointError(RecsysError, RuntimeError):
    """A checkpoint does not belong to this model or plan, or is incomplete."""


class ParityError(RecsysError, RuntimeError):
    """An exported model does not reproduce the trained one within the stated tolerance."""
