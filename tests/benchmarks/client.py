"""The benchmark's client, a process of its own: receives predictions over WebSocket and notes when.

In the first seconds it labels, so that a trained decoder is measured. Writes time, arrival, sequence numbers and what
the server says at the end to a file.
"""

import argparse
import json

import numpy as np
from pylsl import local_clock

from neuroloop_client import Client

LABEL_EVERY = 25
LABELS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--received", required=True, help="file for the times")
    parser.add_argument("--idle", type=float, default=3.0, help="seconds without a prediction until the end")
    options = parser.parse_args()
    times, arrivals, numbers, process, stream_ms = [], [], [], [], []
    events: list[dict[str, object]] = []
    with Client(options.url) as client, client.stream(options.session, ("predictions", "events")) as stream:
        print("{}", flush=True)
        message = stream.receive(120.0)
        while message is not None:
            now = local_clock()
            if message["type"] == "event":
                events.append(message)
            elif message["type"] == "lagged":
                events.append({"event": "lagged", "detail": str(message["missed"])})
            elif message["type"] == "prediction":
                times.append(message["time"])
                arrivals.append(now)
                numbers.append(message["seq"])
                process.append(message["latency_ms"]["process"] or 0.0)
                stream_ms.append(message["latency_ms"]["stream"] or 0.0)
                if len(numbers) % LABEL_EVERY == 0 and len(numbers) <= LABELS * LABEL_EVERY:
                    stream.send_label("ab"[len(numbers) // LABEL_EVERY % 2])
            try:
                message = stream.receive(options.idle)
            except TimeoutError:
                break
        status = client.status(options.session)
    told = [event for event in events if event["event"] in ("overload", "overrun", "gap", "lagged")]
    np.savez(
        options.received,
        times=times,
        arrivals=arrivals,
        numbers=numbers,
        process=process,
        stream=stream_ms,
        status=json.dumps(status),
        events=json.dumps(told),
    )


if __name__ == "__main__":
    main()
