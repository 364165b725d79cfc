"""`python -m neuroloop_sources`."""

from neuroloop_sources.cli import app

app(prog_name="python -m neuroloop_sources")
