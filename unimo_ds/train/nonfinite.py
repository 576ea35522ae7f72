"""The error of a loss or gradient that is NaN or infinite; its exit code is 3."""


class NonFinite(RuntimeError):
    """A loss or gradient that is NaN or infinite."""
