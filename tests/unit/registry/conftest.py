"""Registries on SQLite and on a real PostgreSQL server, and weights to put into them."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from neuroloop.models import decoder_files
from neuroloop.registry.registry import Registry

# Debian keeps the server's programs out of the path.
POSTGRESQL = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def weights_of(number=0, **change):
    """A MaxRate of two classes and three features that differs by number, as a file; no compiler is needed."""
    about = {
        "kind": "maxrate",
        "classes": ["left", "right"],
        "features": 3,
        "channels": ["a", "b", "c"],
        "values": {"missing": 0, "signed": False, "trial_count": 0, "sharpness": 0.0},
    }
    tensors = {
        "sums": np.full((2, 3), float(number)),
        "weights": np.ones(2),
        "counts": np.ones(2, np.int64),
        "trial_logits": np.zeros((2, 0), np.float32),
        "trial_labels": np.zeros(0, np.int64),
    }
    about |= {key: value for key, value in change.items() if key in decoder_files.About.model_fields}
    tensors |= {key: value for key, value in change.items() if key not in decoder_files.About.model_fields}
    if not about["kind"]:
        return safetensors.numpy.save(tensors)
    return decoder_files.write(decoder_files.DecoderFile(decoder_files.About.model_construct(**about), tensors))


@pytest.fixture(scope="session")
def postgresql():
    """The address of a PostgreSQL server of the tests' own, on a socket in a folder; it never runs as root."""
    if POSTGRESQL is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="nl-pg-"))  # short: a socket's path has 107 characters
    user = {}
    if os.getuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    data = folder / "data"

    def run(program, *arguments):
        done = subprocess.run(
            [POSTGRESQL / program, *arguments], cwd=folder, capture_output=True, text=True, check=False, **user
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("initdb", "-D", data, "-U", "lab", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    run("pg_ctl", "start", "-w", "-D", data, "-l", folder / "log", "-o", options)
    yield f"postgresql://lab@/{{}}?host={folder}"
    run("pg_ctl", "stop", "-w", "-D", data, "-m", "immediate")
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def registry_url(request):
    """The address of an empty database; None for SQLite in the registry's folder."""
    if request.param == "sqlite":
        return None
    import psycopg

    address = request.getfixturevalue("postgresql")
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(address.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return address.format(name)


@pytest.fixture
def registry(tmp_path, registry_url):
    registry = Registry(tmp_path / "registry", registry_url)
    yield registry
    registry.close()


@pytest.fixture
def make_weights():
    return weights_of
