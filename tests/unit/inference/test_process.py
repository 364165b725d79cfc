import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from neuroloop.errors import Conflict, ModelError, NotFound, Unavailable
from neuroloop.inference.process import Inference, Loaded
from neuroloop.models import decoder_files
from neuroloop.models.maxrate import MaxRate

RATES = np.array([[9.0, 1.0, 1.0], [1.0, 9.0, 1.0], [np.nan, 1.0, 9.0]])


@pytest.fixture(scope="module")
def decoder() -> MaxRate:
    decoder = MaxRate(["left", "right"], 3)
    decoder.learn_batch(np.array([[9.0, 1.0, 2.0], [1.0, 9.0, 2.0]] * 5), [0, 1] * 5)
    return decoder


@pytest.fixture(scope="module")
def weights(decoder: MaxRate) -> bytes:
    return decoder_files.write(decoder_files.of(decoder, 3))


def run(use: Callable[[Inference], Awaitable[None]]) -> None:
    async def main() -> None:
        inference = Inference()
        try:
            await use(inference)
        finally:
            await inference.close()

    asyncio.run(main())


def worker_of(pid: int) -> int:
    """The process that answers, among those that this one started."""
    rows = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    found = [row.split(None, 2) for row in rows.splitlines()[1:] if "spawn_main" in row]
    [worker] = [int(row[0]) for row in found if int(row[1]) == pid]
    return worker


async def until_refused(inference: Inference, loaded: Loaded) -> None:
    """Ask until the death of the process is noticed; the first requests may still be answered."""
    while True:
        await inference.infer(loaded, RATES)


def test_a_loaded_model_answers_as_the_decoder_itself(decoder: MaxRate, weights: bytes) -> None:
    async def use(inference: Inference) -> None:
        a = await inference.load("a", 1, "maxrate", weights)
        answers = await inference.infer(a, RATES)
        own = [decoder.predict(rates) for rates in RATES]
        assert answers["scores"].tobytes() == np.array([one.values for one in own]).tobytes()
        assert answers["probability"].tobytes() == np.array([one.probability for one in own]).tobytes()
        assert answers["label"].tolist()[:2] == ["left", "right"]
        assert answers["index"].tolist() == [-1 if one.index is None else one.index for one in own]
        assert os.getpriority(os.PRIO_PROCESS, worker_of(os.getpid())) > os.getpriority(os.PRIO_PROCESS, 0)
        await inference.unload("a")
        with pytest.raises(Conflict, match="has been unloaded"):
            await inference.infer(a, RATES)

    run(use)


def test_what_cannot_be_answered_is_an_error_and_the_next_request_is_answered(weights: bytes) -> None:
    async def use(inference: Inference) -> None:
        with pytest.raises(ModelError, match="safetensors"):
            await inference.load("broken", 1, "maxrate", weights[:50])
        assert not inference.is_loaded("broken", 1)
        with pytest.raises(NotFound, match="broken is not loaded"):
            await inference.unload("broken")
        a = await inference.load("a", 1, "maxrate", weights)
        with pytest.raises(ModelError, match="3"):
            await inference.infer(a, np.ones((1, 4)))
        assert (await inference.infer(a, RATES[:0]))["scores"].shape == (0, 2)

    run(use)


def test_a_process_that_dies_is_started_again_with_its_models(weights: bytes) -> None:
    async def use(inference: Inference) -> None:
        a = await inference.load("a", 1, "maxrate", weights)
        os.kill(worker_of(os.getpid()), signal.SIGKILL)
        with pytest.raises(Unavailable, match="has ended"):
            await until_refused(inference, a)
        assert (await inference.infer(a, RATES))["label"].tolist()[0] == "left"

    run(use)


def test_the_process_ends_with_the_one_that_started_it(weights: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(weights)
    program = """
import asyncio, pathlib, sys
from neuroloop.inference.process import Inference
async def main():
    inference = Inference()
    await inference.load("a", 1, "maxrate", pathlib.Path(sys.argv[1]).read_bytes())
    print("ready", flush=True)
    await asyncio.Event().wait()
if __name__ == "__main__":
    asyncio.run(main())
"""
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "weights")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        worker = worker_of(process.pid)
        process.kill()
        process.wait()
        while Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text().split()[2]:
            pass
