"""The Python client of neuroloop: sessions, labels and live predictions.

with Client() as server:
    for prediction in server.predictions("demo"):
        print(prediction["label"], prediction["confidence"])
"""

from neuroloop_client._http import NeuroloopClientError
from neuroloop_client.aio import AsyncClient
from neuroloop_client.clock import Clock
from neuroloop_client.live import AsyncLiveStream, LiveStream
from neuroloop_client.streams import AsyncStream, Stream
from neuroloop_client.sync import Client

__all__ = [
    "AsyncClient",
    "AsyncLiveStream",
    "AsyncStream",
    "Client",
    "Clock",
    "LiveStream",
    "NeuroloopClientError",
    "Stream",
]
