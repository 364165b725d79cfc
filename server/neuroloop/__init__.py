"""neuroloop: a real-time closed-loop BCI server."""

__version__ = "0.1.0"
