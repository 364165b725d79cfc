"""Every error that a user can cause. The API maps each to one problem+json answer, the command to one line."""


class NeuroloopError(Exception):
    """An error whose text names the thing, what was expected, what came, and what to do."""


class ConfigError(NeuroloopError):
    """A configuration that cannot work."""


class StreamError(NeuroloopError):
    """A stream that is not there, or is not what the session was made for."""


class ModelError(NeuroloopError):
    """Weights, settings or input that a model cannot take."""


class NotFound(NeuroloopError):
    """A name that nothing here has."""


class Deleted(NotFound):
    """A name that something here had until it was deleted."""


class Conflict(NeuroloopError):
    """A call that the present state does not allow."""


class Unauthorized(NeuroloopError):
    """A request without a token that this server knows."""


class Forbidden(NeuroloopError):
    """A request that its token does not allow."""


class Unavailable(NeuroloopError):
    """A session process that does not answer."""


class RegistryError(NeuroloopError):
    """A model registry that is damaged, or can't keep what it should."""
