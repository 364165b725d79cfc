"""The benchmark's source, a process of its own: pushes noise with spikes and notes when it pushed what.

At the end it writes the LSL clock just before every push, by the number of the chunk, to a file.
"""

import argparse
import json
import time

import numpy as np
import pylsl

RING_S = 2.0
AWAY_S = 2.0


def noise(channel_count: int, samples: int) -> np.ndarray:
    """Microvolts: a common mode, own noise, and now and then a spike."""
    random = np.random.default_rng(0)
    data = random.standard_normal((samples, channel_count), np.float32) * 8
    data += random.standard_normal((samples, 1), np.float32) * 40
    for channel in range(channel_count):
        data[random.integers(0, samples, max(1, samples // 2000)), channel] -= 120
    return data


def counting(channel_count: int, rate: float, chunk: int) -> np.ndarray:
    """Numbers that tell which sample and channel they are; after two seconds they begin anew."""
    samples = max(chunk, int(RING_S * rate) // chunk * chunk)
    numbers = np.arange(samples)[:, None] * channel_count + np.arange(channel_count)
    return (numbers % 2**24).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--channels", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--chunk", type=int, required=True, help="samples")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--blocking", action="store_true")
    parser.add_argument("--pattern", choices=("noise", "noise-away", "counting"), default="noise")
    parser.add_argument("--pushed", required=True, help="file for the times")
    options = parser.parse_args()
    chunk, rate = options.chunk, options.rate
    count = int(options.seconds * rate / chunk)
    if options.pattern == "counting":
        ring = counting(options.channels, rate, chunk)
    else:
        ring = noise(options.channels, max(chunk, int(RING_S * rate) // chunk * chunk))
    info = pylsl.StreamInfo(options.name, "Ephys", options.channels, rate, pylsl.cf_float32, options.name)
    flags = pylsl.transp_sync_blocking if options.blocking else pylsl.transp_default
    outlet = pylsl.StreamOutlet(info, max_buffered=30, transport_flags=flags)
    outlet.wait_for_consumers(120)
    pushed = np.zeros(count)
    start = pylsl.local_clock()
    print(json.dumps({"start_time": start}), flush=True)
    away = range(count // 2, count // 2 + int(AWAY_S * rate / chunk)) if options.pattern == "noise-away" else range(0)
    for number in range(count):
        if number in away:
            outlet = None
            continue
        if outlet is None:
            outlet = pylsl.StreamOutlet(info, max_buffered=30, transport_flags=flags)
        last = (number + 1) * chunk - 1
        due = start + last / rate
        while (left := due - pylsl.local_clock()) > 0:
            time.sleep(left)
        first = number * chunk % len(ring)
        pushed[number] = pylsl.local_clock()
        outlet.push_chunk(ring[first : first + chunk], due)
    np.savez(options.pushed, pushed=pushed, start=start, chunk=chunk, rate=rate)
    time.sleep(1.0)  # the last chunks are still on their way


if __name__ == "__main__":
    main()
