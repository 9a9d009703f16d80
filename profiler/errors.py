"""The one family of errors: each class is a condition, each message says what failed, the value, and the way out.

Messages start in lower case and fit one line. `ui/cli` is the one place that turns them into exit codes;
nothing else catches `CoprofError` to print it.
"""


class CoprofError(Exception):
    """Base of every error that a user can mend; never raised itself."""


class NoPermission(CoprofError):
    """A capability or right is missing."""


class KernelFeatureMissing(CoprofError):
    """The running kernel lacks something that was asked for (BTF, BPF, a tracepoint, a member)."""


class BadInput(CoprofError):
    """An argument, a configuration key or a file from the user cannot be used as given."""


class CorruptData(CoprofError):
    """A segment or a saved window is damaged; it counts as absent."""


class StoreUnavailable(CoprofError):
    """The store cannot be read or written (missing, not writable, full, of a newer format)."""
