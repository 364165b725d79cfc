"""The command, as a user types it."""

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys

import pytest
from tests.commands import neuroloop

from neuroloop.configs import example


def started(*arguments):
    """The command as a process of its own."""
    return subprocess.run([sys.executable, "-m", "neuroloop", *arguments], capture_output=True, text=True, timeout=120)


def children(pid):
    """Processes in the groups that a process started, by what they run."""
    found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in found.splitlines()[1:]]
    parents, result = {pid}, []
    for _ in range(4):
        fresh = [row for row in rows if int(row[1]) in parents and row not in result]
        result += fresh
        parents |= {int(row[0]) for row in fresh}
    return [(int(row[0]), row[2]) for row in result]


def test_the_schema_is_json_schema_of_all_settings():
    schema = json.loads(neuroloop("config", "schema").stdout)
    assert schema["title"] == "ServerSettings"
    assert {"sessions", "host", "port"} <= schema["properties"].keys()


def test_the_messages_of_a_stream_are_described_without_a_server():
    messages, asyncapi = (json.loads(neuroloop("schema", name).stdout) for name in ("messages", "asyncapi"))
    assert messages["discriminator"]["mapping"]["prediction"] == "#/$defs/Prediction"
    assert asyncapi["channels"]["stream"]["address"] == "/v1/sessions/{session}/stream"


@pytest.mark.parametrize("name", ["demo", "headset", "array", "counts"])
def test_every_example_passes_the_check(name):
    checked = neuroloop("config", "check", str(example(name)))
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert "valid" in checked.stdout


def test_a_wrong_configuration_is_one_clear_error_without_a_traceback(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("sessions: [{name: s, stream: {name: x}, classes: [a, b], bin: 20}]")
    for command in (["config", "check"], ["serve"]):
        refused = started(*command, str(path))
        assert refused.returncode == 1
        assert refused.stderr.strip() == "neuroloop: sessions.0.bin: unknown key"


def test_tokens_are_made_listed_and_revoked_in_the_folder_of_a_configuration(tmp_path):
    config = tmp_path / "server.yaml"
    config.write_text(f"folder: {tmp_path / 'data'}")
    here = ["--config", str(config)]
    made = neuroloop("token", "create", "ann", "--role", "operator", *here)
    assert made.stdout.startswith("nl_")
    assert neuroloop("token", "list", *here).stdout.split("\t")[:2] == ["ann", "operator"]
    again = neuroloop("token", "create", "ann", "--role", "admin", *here)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr.startswith("neuroloop: a token named 'ann' exists already")
    assert neuroloop("token", "revoke", "ann", *here).exit_code == 0
    assert neuroloop("token", "list", *here).stdout == ""


def test_a_configuration_is_shown_with_its_defaults():
    shown = neuroloop("config", "show", str(example("counts"))).stdout
    assert "half_life_s: 30.0" in shown


def test_streams_lists_what_is_on_the_network(unique_name):
    import pylsl

    info = pylsl.StreamInfo(unique_name, "EEG", 3, 250, pylsl.cf_float32, unique_name)
    outlet = pylsl.StreamOutlet(info)
    listed = json.loads(neuroloop("streams", "--timeout", "2", "--json").stdout)
    (found,) = [stream for stream in listed if stream["name"] == unique_name]
    assert (found["channel_count"], found["nominal_srate"], found["format"]) == (3, 250.0, "float32")
    assert unique_name in neuroloop("streams", "--timeout", "2", env={"COLUMNS": "200"}).stdout
    assert outlet is not None


@pytest.mark.slow
def test_the_demo_decodes_and_its_summary_is_one_line_of_json():
    run = started("demo", "--seconds", "6", "--json", "--port", "0")
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    summary = json.loads(line)
    assert set(summary) == {"bins", "missed_bins", "gaps", "trials", "accuracy", "chance", "latency_ms"}
    assert set(summary["accuracy"]) == {"maxrate", "poisson", "maxrate_without_lrr", "ideal"}
    assert set(summary["latency_ms"]) == {"p50", "p99", "max"}
    assert (summary["missed_bins"], summary["gaps"], summary["chance"]) == (0, 0, 0.125)
    assert summary["bins"] > 200
    assert summary["trials"] >= 6


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_ctrl_c_ends_every_process_that_the_demo_started(number):
    screen, terminal = pty.openpty()  # the live table is drawn on terminals only
    demo = subprocess.Popen(
        [sys.executable, "-m", "neuroloop", "demo", "--port", "0"],
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"COLUMNS": "160", "TERM": "xterm"},
    )
    drawn = b""
    try:
        while b"connected" not in drawn:
            assert select.select([screen], [], [], 60)[0], drawn
            drawn += os.read(screen, 65536)
        begun = children(demo.pid)
        assert len(begun) >= 4  # server, two sessions, source
        demo.send_signal(number)
        while demo.poll() is None:
            if select.select([screen], [], [], 0.1)[0]:
                drawn += os.read(screen, 65536)
    finally:
        demo.terminate()  # what it started ends with it
        demo.wait()
        os.close(terminal)
        os.close(screen)
    assert demo.returncode == 0
    assert b"latency ms: p50" in drawn
    left = {pid for pid, _ in begun} & {int(pid) for pid in os.listdir("/proc") if pid.isdigit()}
    assert left == set()


def test_a_port_in_use_is_one_clear_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = started("demo", "--seconds", "1", "--json", "--port", str(taken.getsockname()[1]))
    assert refused.returncode == 1
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert "in use" in line


def test_a_dataset_that_is_not_there_is_one_clear_line():
    refused = started("demo", "--dataset", "nowhere.edf", "--port", "0")
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == ["neuroloop: dataset: nowhere.edf: no such file"]
