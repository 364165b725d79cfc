import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest

from neuroloop.config import LslSettings, SessionSettings
from neuroloop.errors import Conflict, ModelError, NeuroloopError, Unavailable
from neuroloop.server_config import SupervisionSettings
from neuroloop.session.launching import LocalLauncher, LocalSession
from neuroloop.session.supervisor import IN_FLIGHT_LIMIT, Failure, Restart, SessionProcess

FAKE = (sys.executable, str(Path(__file__).with_name("fake_session.py")))
STUBBORN = "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(2, b'up'); signal.pause()"


class Supervised:
    """A session process and what it has reported."""

    def __init__(self, program: Sequence[str] = FAKE, name: str = "demo", restarts: int | None = None) -> None:
        settings = {"name": name, "stream": {"name": "x"}, "classes": ["left", "right"], "bin_ms": 5}
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.failures: list[Failure] = []
        self.restarts: list[Restart] = []
        self.process = SessionProcess(
            SessionSettings.model_validate(settings),
            LslSettings(),
            self.receive,
            self.failures.append,
            LocalLauncher(program),
            supervision=None if restarts is None else SupervisionSettings(restarts=restarts, hang_s=1.0, backoff_s=0),
            on_restart=self.note_restart,
        )

    def note_restart(self, restart: Restart) -> int:
        self.restarts.append(restart)
        return 70

    def receive(self, topic: str, packed: bytes) -> None:
        self.messages.append((topic, msgpack.unpackb(packed)))


def supervise(
    use: Callable[[Supervised], Awaitable[Any]],
    program: Sequence[str] = FAKE,
    name: str = "demo",
    restarts: int | None = None,
) -> Any:
    async def run() -> Any:
        supervised = Supervised(program, name, restarts)
        await supervised.process.start()
        try:
            if program is FAKE:
                await asyncio.wait_for(supervised.process.ready.wait(), 10)
            return await asyncio.wait_for(use(supervised), 20)
        finally:
            await supervised.process.stop()

    return asyncio.run(run())


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_a_question_that_was_lost_while_it_started_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroloop.session.supervisor.ASK_AGAIN_S", 0.5)

    async def use(supervised: Supervised) -> Any:
        return await supervised.process.command("status")

    assert supervise(use, name="deaf")["state"] == "running"


def test_a_command_gives_the_result_or_the_error_that_the_session_names() -> None:
    async def use(supervised: Supervised) -> dict[str, Any]:
        with pytest.raises(ModelError, match="'up' is no class"):
            await supervised.process.command("label", label="up")
        with pytest.raises(Conflict, match="running already"):
            await supervised.process.command("start")
        result: dict[str, Any] = await supervised.process.command("label", label="left", start=1.5)
        return result

    assert supervise(use)["start"] == 1.5


def test_results_arrive_in_order_and_without_a_hole() -> None:
    async def use(supervised: Supervised) -> list[int]:
        await until(lambda: len(supervised.messages) > 100)
        return [message["seq"] for topic, message in supervised.messages if topic == "predictions"]

    seqs = supervise(use)
    assert seqs == list(range(seqs[0], seqs[-1] + 1))


def test_many_commands_at_once_are_each_answered_or_refused() -> None:
    async def use(supervised: Supervised) -> list[Any]:
        calls = (supervised.process.command("status") for _ in range(IN_FLIGHT_LIMIT + 10))
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = supervise(use)
    refused = [answer for answer in answers if isinstance(answer, Unavailable)]
    assert len(refused) == 10
    assert all(answer["state"] == "running" for answer in answers if answer not in refused)


def test_a_command_that_is_not_answered_in_time_is_unavailable_and_the_next_one_works() -> None:
    async def use(supervised: Supervised) -> Any:
        with pytest.raises(Unavailable, match=r"no answer to 'label' within 0\.05 s"):
            await supervised.process.command("label", label="hang", timeout=0.05)
        return await supervised.process.command("status")

    assert supervise(use)["state"] == "running"


def test_a_process_that_dies_is_reported_with_its_last_words_and_refuses_commands() -> None:
    async def use(supervised: Supervised) -> Supervised:
        calls = (supervised.process.command("label", label=label) for label in ("hang", "die"))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [Unavailable, Unavailable]
        with pytest.raises(Unavailable, match="exit code 3: fatal: no more samples"):
            await supervised.process.command("status")
        return supervised

    supervised = supervise(use)
    [failure] = supervised.failures
    assert failure.exit_code == 3
    assert failure.stderr == ["the loop has failed", "fatal: no more samples"]


def test_a_process_that_dies_is_replaced_until_the_limit_is_reached_and_then_it_has_failed() -> None:
    async def use(supervised: Supervised) -> Supervised:
        process = supervised.process
        with pytest.raises(Unavailable):
            await process.command("label", label="die")
        await until(lambda: process.losses == 1 and process.state == "ready")
        assert (await process.command("status"))["state"] == "running"
        with pytest.raises(Unavailable):
            await process.command("label", label="die")
        await until(lambda: supervised.failures)
        assert process.state == "failed"
        return supervised

    supervised = supervise(use, restarts=1)
    (restart,) = supervised.restarts
    assert (restart.cause, restart.exit_code) == ("exit", 3)
    assert restart.stderr[-1] == "fatal: no more samples"
    assert "not started again, after 1 restarts within 60 s" in supervised.failures[0].detail


def test_a_process_that_hangs_is_ended_and_replaced() -> None:
    async def use(supervised: Supervised) -> Supervised:
        await until(lambda: any(topic == "predictions" for topic, _ in supervised.messages))
        launched = supervised.process._launched
        assert isinstance(launched, LocalSession)
        os.kill(launched.pid, signal.SIGSTOP)
        await until(lambda: supervised.restarts and supervised.process.state == "ready")
        return supervised

    supervised = supervise(use, restarts=1)
    (restart,) = supervised.restarts
    assert restart.cause == "hang"
    assert "said nothing for" in restart.detail


def test_a_program_that_is_not_there_is_a_failure_and_no_exception() -> None:
    async def use(supervised: Supervised) -> Supervised:
        with pytest.raises(Unavailable, match="can't be started"):
            await supervised.process.command("status")
        return supervised

    supervised = supervise(use, ("/nonexistent/program",))
    assert len(supervised.failures) == 1


def test_stopping_is_no_failure_and_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def use(supervised: Supervised) -> Supervised:
        assert len(list(tmp_path.iterdir())) == 1
        return supervised

    supervised = supervise(use)
    assert supervised.failures == []
    assert supervised.process.state == "ended"
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_will_not_end_is_killed() -> None:
    async def use(supervised: Supervised) -> int:
        launched = supervised.process._launched
        assert isinstance(launched, LocalSession)
        child, log = launched.process, launched.log
        await until(lambda: log.lines == ["up"])
        await supervised.process.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(child.pid, 0)
        return child.returncode or 0

    assert supervise(use, (sys.executable, "-c", STUBBORN)) == -signal.SIGKILL


def test_a_process_that_is_stopped_while_it_starts_is_not_waited_for() -> None:
    async def use(supervised: Supervised) -> float:
        began = asyncio.get_running_loop().time()
        await supervised.process.stop(grace=5.0)
        return asyncio.get_running_loop().time() - began

    assert supervise(use, (sys.executable, "-c", "input(); input()")) < 2.0


def test_a_process_that_is_stopped_before_it_was_started_never_starts() -> None:
    async def run() -> Supervised:
        supervised = Supervised()
        await asyncio.gather(supervised.process.stop(), supervised.process.start())
        return supervised

    supervised = asyncio.run(run())
    assert (supervised.process.state, supervised.process._launched) == ("ended", None)
    assert supervised.failures == []


def test_before_the_process_answers_commands_are_refused_as_starting() -> None:
    async def use(supervised: Supervised) -> NeuroloopError:
        with pytest.raises(Conflict, match="is starting") as refusal:
            await supervised.process.command("status")
        return refusal.value

    assert "demo" in str(supervise(use, (sys.executable, "-c", "input(); input()")))
