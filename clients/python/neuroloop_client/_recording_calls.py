"""The calls about recordings, written once for both clients."""

from __future__ import annotations

from urllib.parse import quote

from neuroloop_client._http import Call, session_call
from neuroloop_client._model_calls import FileT, ListT, MapT, ModelCalls, NoneT

STOP_S = 40.0


class RecordingCalls(ModelCalls[MapT, ListT, FileT, NoneT]):
    """Of running sessions, and as files that the server keeps."""

    def start_recording(self, session: str) -> MapT:
        """Record everything of a session from now on."""
        return self._map(session_call("POST", session, "/recording/start", timeout=STOP_S))

    def stop_recording(self, session: str) -> MapT:
        """Close the file of a session's recording; returns what is on the disk."""
        return self._map(session_call("POST", session, "/recording/stop", timeout=STOP_S))

    def annotate(self, session: str, text: str, time: float | None = None) -> MapT:
        """Write a remark into a session's recording, for an LSL time or for now."""
        return self._map(session_call("POST", session, "/recording/annotations", body={"text": text, "time": time}))

    def recordings(self) -> ListT:
        """Every recording, the newest first."""
        return self._list(Call("GET", "/v1/recordings"), "recordings")

    def recording(self, recording: str) -> MapT:
        """The streams of a recording, the session's configuration, and what it lacks."""
        return self._map(_recording_call("GET", recording, "/description"))

    def recording_bytes(self, recording: str, start: int = 0, stop: int | None = None) -> FileT:
        """Bytes of a recording's file, from `start` to before `stop`; by default all of them."""
        last = "" if stop is None else stop - 1
        return self._file(
            Call(
                "GET",
                f"/v1/recordings/{quote(recording, safe='')}",
                headers={"Range": f"bytes={start}-{last}"},
                timeout=300.0,
            )
        )

    def delete_recording(self, recording: str) -> NoneT:
        """Delete a recording that no session records into."""
        return self._nothing(_recording_call("DELETE", recording))


def _recording_call(method: str, recording: str, path: str = "") -> Call:
    return Call(method, f"/v1/recordings/{quote(recording, safe='')}{path}", timeout=60.0)
