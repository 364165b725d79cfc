"""The one error that whoever starts a source can cause."""


class SourceError(Exception):
    """A source that cannot run; the text is one line that says what was expected, what came, and what to do."""
