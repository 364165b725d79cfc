"""A fit process that does what its request's settings say, without numerics."""

import json
import os
import signal
import sys
from pathlib import Path

folder = Path(sys.argv[1])
settings = json.loads((folder / "job.json").read_bytes())["request"]["settings"]

print("a line of some library", flush=True)
print("x" * 100_000, flush=True)
if (folder / "checkpoint.safetensors").exists():
    print(json.dumps({"type": "resumed", "progress": 0.25}), flush=True)
for step in (0.25, 0.5):
    print(json.dumps({"type": "progress", "progress": step, "loss": 1 - step}), flush=True)
if settings.get("dies") and not (folder / "checkpoint.safetensors").exists():
    (folder / "checkpoint.safetensors").write_bytes(b"checkpoint")
    os.kill(os.getpid(), signal.SIGKILL)
if settings.get("stubborn"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(json.dumps({"type": "progress", "progress": 0.75}), flush=True)
if settings.get("waits"):
    os.read(0, 1)  # until standard input is closed, or the process is ended
if settings.get("refuses"):
    print(json.dumps({"type": "failed", "detail": settings["refuses"]}), flush=True)
    sys.exit(1)
if settings.get("breaks"):
    sys.exit("line 1\nno more memory")
(folder / "weights.safetensors").write_bytes(b"weights")
metrics = settings.get("metrics", {"accuracy": 0.61})
(folder / "result.json").write_text(json.dumps({"kind": "maxrate", "metrics": metrics, "training": {"seed": 0}}))
