"""A process of its own on a registry: `registry_program.py upload|race FOLDER URL SEED SECONDS`, URL "-" for SQLite.

upload: add versions without end, and print each as it is acknowledged. race: everything at once with whoever else
does, for some seconds; every answer must be a result or a refusal, anything else ends it with a traceback.
"""

import random
import sys
import time
from pathlib import Path

from tests.unit.registry.conftest import weights_of

from neuroloop.errors import Conflict, NotFound
from neuroloop.registry.registry import Registry
from neuroloop.registry.verify import collect


def upload(registry, seed):
    for n in range(1_000_000):
        version = registry.add_version("reach", weights_of(seed * 1_000_000 + n))
        print(version.version, version.digest, flush=True)


def race(registry, seed, seconds):
    chance = random.Random(seed)
    done, refused = 0, 0
    calls = [
        lambda: registry.add_version(name, weights_of(chance.randrange(3))),
        lambda: registry.set_alias(name, "champion", chance.choice(registry.model(name).versions or [1])),
        lambda: registry.delete_alias(name, "champion"),
        lambda: registry.delete_version(name, chance.choice(registry.model(name).versions or [1])),
        lambda: registry.delete_model(name),
        lambda: registry.versions(name),
        lambda: collect(registry, min_age_s=0),
    ]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        name = chance.choice(["reach", "grasp"])
        try:
            chance.choices(calls, weights=[6, 3, 1, 3, 0.3, 3, 0.5])[0]()
            done += 1
        except (Conflict, NotFound):
            refused += 1
    print(done, refused)


if __name__ == "__main__":
    what, folder, url, seed, seconds = sys.argv[1:]
    opened = Registry(Path(folder), None if url == "-" else url)
    if what == "upload":
        upload(opened, int(seed))
    race(opened, int(seed), float(seconds))
