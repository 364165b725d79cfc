import hashlib
import os

import pytest

from neuroloop.errors import RegistryError
from neuroloop.registry.blobs import Blobs

DATA = b"weights" * 1000
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "blobs")


def test_a_blob_is_found_by_the_digest_of_its_content(blobs, tmp_path):
    assert blobs.write(DATA) == DIGEST
    assert blobs.read(DIGEST) == DATA
    assert blobs.path(DIGEST) == tmp_path / "blobs" / "sha256" / DIGEST[7:9] / DIGEST[7:]
    assert list(blobs.files()) == [(DIGEST, blobs.path(DIGEST))]


@pytest.mark.parametrize("damage", [b"", DATA[:-1], DATA[:-1] + b"S"])
def test_a_damaged_blob_is_never_an_answer_and_is_mended_by_writing_it_again(blobs, damage):
    blobs.write(DATA)
    blobs.path(DIGEST).write_bytes(damage)
    assert blobs.fault(DIGEST) == "damaged"
    with pytest.raises(RegistryError, match=r"its file holds sha256:.*; restore"):
        blobs.read(DIGEST)
    blobs.write(DATA)
    assert blobs.fault(DIGEST) is None
    assert blobs.read(DIGEST) == DATA


def test_a_missing_blob_says_what_to_restore(blobs):
    assert blobs.fault(DIGEST) == "missing"
    with pytest.raises(RegistryError, match=f"missing; restore .*{DIGEST[7:]}"):
        blobs.read(DIGEST)


def test_a_blob_is_on_the_disk_before_it_has_its_name(blobs, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        blobs.write(DATA)
    assert list(blobs.files()) == []
