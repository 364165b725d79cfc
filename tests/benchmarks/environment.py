"""Environments of the peers: one virtual environment each under `build/peers`, apart from ours.

Each is built once, and again when what it installs changes. A peer that will not install is told as such, with pip's
last words; everything that pip said is in `build/peers/NAME.log`.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.workers import ROOT

FOLDER = ROOT / "build" / "peers"
CONSTRAINTS = ROOT / "constraints.txt"  # the build of PyTorch that ours has
CREATE = (sys.executable, "-m", "venv", "--clear")

EZMSG = "ezmsg"
INFERNO = "inferno"
OPENRETINA = "openretina"
MINERVA = "minerva"
GSNN = "gsnn"

# Arguments of pip, one call each. inferno-ai names no PyTorch among its requirements, although it imports it.
# openretina requires 170 packages, among them mlflow, jupyter, wandb, and a torchvision that does not load beside this
# PyTorch; the second call has what its LNP model imports in truth, the __init__ files on the way included. minerva
# requires as much; `peer_minerva` imports the two files that it needs past the __init__ files on the way, and makes its
# networks with ours, which pydantic is for. GSNN is no package; `peer_gsnn` runs where we do.
REQUIREMENTS: dict[str, tuple[tuple[str, ...], ...]] = {
    EZMSG: (("ezmsg-sigproc~=3.11", "ezmsg-learn~=1.16", "ezmsg-event~=0.16.2", "ezmsg-lsl~=1.17"),),
    INFERNO: (("inferno-ai~=0.0.5", "torch", "numpy"),),
    OPENRETINA: (
        ("--no-deps", "openretina~=1.1"),
        (
            *("torch", "lightning", "einops", "jaxtyping", "hydra-core", "omegaconf", "h5py", "matplotlib", "scipy"),
            *("pandas", "requests", "tqdm", "tenacity", "huggingface_hub", "opencv-python-headless", "seaborn"),
            *("IPython", "moviepy", "imageio"),
        ),
    ),
    MINERVA: (("--no-deps", "minerva~=0.3.11b0"), ("torch", "lightning", "numpy", "pydantic")),
    GSNN: (),
}


@dataclass(frozen=True)
class Environment:
    """python: the interpreter; None where there is none, and then why."""

    python: str | None
    why: str = ""


def ensure(name: str, folder: Path = FOLDER) -> Environment:
    """The environment of a peer, built if it is not there yet or out of date; ours, where it needs nothing."""
    if not REQUIREMENTS[name]:
        return Environment(sys.executable)
    home, python = folder / name, folder / name / "bin" / "python"
    done = home / "installed"
    wanted = f"{sys.version}\n{CONSTRAINTS.read_text()}\n{REQUIREMENTS[name]}"
    if done.exists() and done.read_text() == wanted:
        return Environment(str(python))
    print(f"installing {name} in {home.relative_to(folder.parent)}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    install = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-c", str(CONSTRAINTS)]
    calls = [[*CREATE, str(home)]]
    calls += [[*install, *arguments] for arguments in REQUIREMENTS[name]]
    with (folder / f"{name}.log").open("w") as log:
        for call in calls:
            code = subprocess.run(call, stdout=log, stderr=subprocess.STDOUT).returncode
            if code:
                return Environment(None, last_error(folder / f"{name}.log"))
    done.write_text(wanted)
    return Environment(str(python))


def last_error(log: Path) -> str:
    """The last line that says an error, or the last line."""
    lines = [line.strip() for line in log.read_text().splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return ([*lines, *errors] or ["nothing was said"])[-1]
