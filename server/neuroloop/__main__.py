"""`python -m neuroloop` is the command `neuroloop`."""

from neuroloop.cli import app

if __name__ == "__main__":
    app()
