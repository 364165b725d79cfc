"""The Python client of neuroloop: sessions, labels and live predictions.

with Client() as server, server.stream("demo") as results:
    for prediction in results:
        print(prediction["label"], prediction["confidence"])
"""

from neuroloop_client._http import NeuroloopClientError
from neuroloop_client.aio import AsyncClient, AsyncStream
from neuroloop_client.sync import Client, Stream

__all__ = ["AsyncClient", "AsyncStream", "Client", "NeuroloopClientError", "Stream"]
