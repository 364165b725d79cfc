"""Whether this machine gives a server what it needs: a clock, real time, a place for its files, a GPU, its kernels."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pylsl
from llvmlite import binding

from neuroloop.compiled import is_compiled
from neuroloop.config import BroadbandSettings, parse_session
from neuroloop.doctor.finding import Finding
from neuroloop.server_config import ServerSettings
from neuroloop.session.priority import Level, run_at

WATCHED_S = 0.25
DRIFT = 1e-3  # of one clock against another, where NTP slews by 5e-4 at most
STEP_S = 0.01
COARSE_S = 1e-4
FIRST_YEAR = 2024
SLOW_SOURCES = ("acpi_pm", "hpet", "jiffies", "refined-jiffies")
SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
LEAST_FREE, LITTLE_FREE = 1e9, 20e9  # bytes; 256 channels at 30 kHz in int16 are 55e9 an hour
FEATURES = {"x86-64-v3": ("avx2", "bmi2", "fma"), "x86-64-v4": ("avx512f", "avx512bw", "avx512dq", "avx512vl")}


def check_clock(
    read_lsl: Callable[[], float] = pylsl.local_clock,
    read_monotonic: Callable[[], float] = time.monotonic,
    read_wall: Callable[[], float] = time.time,
    source: Path = SOURCE,
) -> Finding:
    """Whether the LSL clock and the date run on alike, without steps, and in steps that are short enough."""
    before = read_lsl(), read_monotonic(), read_wall()
    now, finest, end = before[0], float("inf"), time.monotonic() + WATCHED_S
    while time.monotonic() < end:
        last, now = now, read_lsl()
        if now < last:
            return Finding("clock", "fault", f"the LSL clock went back by {last - now:g} s", STEADY)
        if now > last:
            finest = min(finest, now - last)
    after = read_lsl(), read_monotonic(), read_wall()
    lsl, monotonic, wall = (end - start for start, end in zip(before, after, strict=True))
    if abs(lsl - monotonic) > DRIFT * monotonic + STEP_S:
        found = f"the LSL clock ran {lsl:.4f} s while the system's ran {monotonic:.4f} s"
        return Finding("clock", "fault", found, STEADY)
    if time.gmtime(read_wall()).tm_year < FIRST_YEAR:
        return Finding("clock", "fault", f"the date is {time.strftime('%F', time.gmtime(read_wall()))}", DATE)
    if abs(wall - monotonic) > DRIFT * monotonic + STEP_S:
        return Finding("clock", "warning", f"the date moved {wall - monotonic:+.3f} s in {monotonic:.2f} s", DATE)
    if finest > COARSE_S:
        return Finding("clock", "warning", f"the LSL clock has steps of {1e3 * finest:.2f} ms", STEADY)
    name = source.read_text().strip() if source.is_file() else "unknown"
    if name in SLOW_SOURCES:
        return Finding("clock", "warning", f"steady, but slow to read: the clock source is {name}", STEADY)
    return Finding("clock", "ok", f"steady, {1e6 * finest:.2f} µs fine; clock source {name}")


STEADY = "Use the clock source tsc (or kvm-clock, arch_sys_counter): see /sys/devices/system/clocksource/clocksource0"
DATE = "Set the date, and let chrony or systemd-timesyncd keep it: recordings and tokens carry it"


def check_real_time(run: Callable[[Level], bool] = run_at) -> Finding:
    """Whether the loop may run before everything else."""
    allowed: list[bool] = []
    thread = threading.Thread(target=lambda: allowed.append(run(Level.LOOP)), name="doctor-real-time")
    thread.start()
    thread.join()
    if allowed == [True]:
        return Finding("real time", "ok", "threads of a session may run in real time (SCHED_RR)")
    return Finding(
        "real time",
        "warning",
        "not allowed: other programs delay the loop, by some ms in 1 of 100 bins on a busy machine",
        "Run it with RLIMIT_RTPRIO of 2 or more: `--ulimit rtprio=2` of a container, LimitRTPRIO=2 of a systemd unit, "
        "`USER - rtprio 2` in /etc/security/limits.d; or with CAP_SYS_NICE",
    )


def check_folders(settings: ServerSettings) -> list[Finding]:
    """Whether what a server keeps can be written: models, tokens, recordings; and how much room there is."""
    return [
        check_folder("folder", settings.folder),
        check_folder("registry", settings.folder / "registry"),
        check_folder("recordings", settings.folder / "recordings"),
    ]


def check_folder(check: str, folder: Path) -> Finding:
    """Of a folder that is there, or would be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"0")
    except OSError as error:
        return Finding(
            check,
            "fault",
            f"{folder} cannot be written by user {os.geteuid()}: {error.strerror}",
            f"Make it, owned by that user (`install -d -o {os.geteuid()} {folder}`), on a disk or a volume that is not "
            "read-only; or name another `folder` in the configuration",
        )
    free = shutil.disk_usage(there).free
    found = f"{folder} can be written; {free / 1e9:.0f} GB are free"
    if free < LITTLE_FREE:
        advice = "Make room, or put it on a larger disk: 256 channels at 30 kHz in int16 take 55 GB an hour"
        return Finding(check, "fault" if free < LEAST_FREE else "warning", found, advice)
    return Finding(check, "ok", found)


def check_gpu(settings: ServerSettings) -> Finding:
    """Whether a GPU computes what the CPU does; a fault only where a session cannot do without."""
    from neuroloop.gpu.check import disagreement
    from neuroloop.gpu.choice import missing_cuda

    needed = [session.name for session in settings.sessions if session.device == "cuda"]
    missing = missing_cuda()
    if missing is None:
        session = parse_session({"name": "doctor", "stream": {"name": "none"}, "classes": ["a", "b"]})
        missing = disagreement(session, BroadbandSettings(), 30_000.0, tuple(str(n) for n in range(32)))
        if missing is None:
            return Finding("gpu", "ok", "a CUDA GPU agrees with the CPU")
        missing = f"a CUDA GPU, which does not agree with the CPU: {missing}"
    if not needed:
        return Finding("gpu", "ok", f"none to use ({missing}); no session needs one")
    return Finding(
        "gpu",
        "fault",
        f"{', '.join(needed)} needs a CUDA GPU; found {missing}",
        "See whether nvidia-smi lists one; in a container, run the image built with DEVICE=cuda with `--gpus all`; or "
        "set device to auto",
    )


def check_kernels() -> Finding:
    """Whether what sessions run is compiled, for a processor such as this one."""
    from neuroloop.signal.tiles import load_tile

    target = os.environ.get("NUMBA_CPU_NAME", "this processor")
    features = binding.get_host_cpu_features()
    lacking = [name for name in FEATURES.get(target, ()) if not features.get(name, False)]
    if lacking:
        return Finding(
            "kernels",
            "fault",
            f"compiled for {target}, but this processor has no {', '.join(lacking)}",
            "Build the image with --build-arg KERNEL_CPU=generic",
        )
    if not is_compiled(load_tile):
        return Finding(
            "kernels", "warning", "not compiled: the first session does it, within a minute", "Run `neuroloop compile`"
        )
    return Finding("kernels", "ok", f"compiled for {target}")
