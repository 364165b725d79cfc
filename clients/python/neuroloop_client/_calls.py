"""Every call of the REST interface, written once for both clients.

A client says what it makes of an answer: a map, a list of maps, a file, nothing; the asynchronous one gives
awaitables of them.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from neuroloop_client._http import Activation, Call, Map, WeightFormat, label_body, session_call, upload_form
from neuroloop_client._model_calls import FileT, ListT, MapT, NoneT
from neuroloop_client._recording_calls import RecordingCalls


class Calls(RecordingCalls[MapT, ListT, FileT, NoneT]):
    """A neuroloop server. Every call raises NeuroloopClientError if the server refuses or does not answer."""

    def info(self) -> MapT:
        """Version, device, engine, and `clock`, the LSL time now."""
        return self._map(Call("GET", "/v1/info"))

    def check_ready(self) -> NoneT:
        """Raise NeuroloopClientError, with `reasons` in its problem, unless every autostarted session answers."""
        return self._nothing(Call("GET", "/readyz"))

    def streams(self, timeout: float = 1.0) -> ListT:
        """The LSL streams that the server sees within `timeout` seconds."""
        return self._list(Call("GET", "/v1/streams", {"timeout": timeout}, timeout=timeout + 15.0))

    def sessions(self) -> ListT:
        """Every session with its state and settings."""
        return self._list(Call("GET", "/v1/sessions"))

    def session(self, session: str) -> MapT:
        """One session with its state and settings."""
        return self._map(session_call("GET", session))

    def create(self, settings: Map) -> MapT:
        """A new session, from settings of the form that the configuration file has under `sessions`."""
        return self._map(Call("POST", "/v1/sessions", body=settings))

    def delete(self, session: str) -> NoneT:
        """End a session and its process."""
        return self._nothing(session_call("DELETE", session))

    def start(self, session: str) -> MapT:
        """Run the loop of a session."""
        return self._map(session_call("POST", session, "/start"))

    def stop(self, session: str) -> MapT:
        """Stop the loop of a session; its models and weights stay."""
        return self._map(session_call("POST", session, "/stop"))

    def status(self, session: str) -> MapT:
        """Stream health, bins, missed bins, gaps, latency by stage, models."""
        return self._map(session_call("GET", session, "/status"))

    def events(self, session: str, limit: int = 50) -> ListT:
        """The last events, oldest first."""
        return self._list(session_call("GET", session, "/events", params={"limit": limit}), "events")

    def label(self, session: str, label: str, start: float | None = None, end: float | None = None) -> MapT:
        """Label an interval of LSL time; without times, the window that just ended."""
        return self._map(session_call("POST", session, "/labels", body=label_body(label, start, end)))

    def latest(self, session: str, model: str | None = None) -> MapT:
        """The newest prediction of the active decoder, or of `model`."""
        return self._map(session_call("GET", session, "/predictions/latest", params={"model": model}))

    def history(self, session: str, since: int = -1, limit: int = 1000, model: str | None = None) -> ListT:
        """The predictions of up to `limit` bins after bin `since`, of the last minute, oldest first."""
        params = {"since": since, "limit": limit, "model": model}
        return self._list(session_call("GET", session, "/predictions", params=params), "predictions")

    def rereference(self, session: str) -> MapT:
        """Mode, version and source of the rereferencing weights, dead channels, warnings."""
        return self._map(session_call("GET", session, "/rereference"))

    def put_rereference(self, session: str, weights: bytes) -> MapT:
        """Load W, the content of a CSV, NPZ or safetensors file, and freeze it."""
        return self._map(session_call("PUT", session, "/rereference", content=weights))

    def patch_rereference(self, session: str, **changes: Any) -> MapT:
        """Change `mode`, `half_life_s`, `ridge`."""
        return self._map(session_call("PATCH", session, "/rereference", body=changes))

    def fit_rereference(self, session: str, seconds: float = 30.0, ridge: float | None = None) -> MapT:
        """Begin a fit of W from live data; `rereference_fit` says how it goes."""
        return self._map(session_call("POST", session, "/rereference/fit", body={"seconds": seconds, "ridge": ridge}))

    def rereference_fit(self, session: str, fit: str | int) -> MapT:
        """A fit: running, done or failed."""
        return self._map(session_call("GET", session, f"/rereference/fits/{fit}"))

    def rereference_weights(self, session: str, format: WeightFormat = "csv", version: int | None = None) -> FileT:
        """The file of the weights in use, or of one of the last versions."""
        params = {"format": format, "version": version}
        return self._file(session_call("GET", session, "/rereference/weights", params=params))

    def put_decoder(
        self, session: str, model: str, version: int | None = None, alias: str | None = None, **how: Any
    ) -> MapT:
        """Exchange a decoder for a version of a model, between two bins; returns the receipt.

        version or alias: an alias is followed when it moves. how: `role`, `decoder`, `state`, `reprime_bins`.
        """
        body = {"model": model, "version": version, "alias": alias, **how}
        return self._map(session_call("PUT", session, "/decoder", body=body, timeout=90.0))

    def roll_back_decoder(self, session: str) -> MapT:
        """Return to the decoder that was active before, as it was then."""
        return self._map(session_call("POST", session, "/decoder/rollback", timeout=90.0))

    def promote_decoder(self, session: str, decoder: str) -> MapT:
        """Make a shadow the active decoder."""
        return self._map(session_call("POST", session, "/decoder/promote", body={"name": decoder}, timeout=90.0))

    def remove_shadow(self, session: str, decoder: str) -> MapT:
        """Let a shadow go."""
        return self._map(session_call("DELETE", session, f"/decoder/{quote(decoder, safe='')}"))

    def put_encoder(
        self, session: str, model: str, version: int | None = None, alias: str | None = None, **how: Any
    ) -> MapT:
        """Exchange an encoder for a version of a model, between two bins; returns the receipt.

        version or alias: an alias is followed when it moves. how: `role`, `encoder`. The session needs a `stimulus`.
        """
        body = {"model": model, "version": version, "alias": alias, **how}
        return self._map(session_call("PUT", session, "/encoder", body=body, timeout=90.0))

    def roll_back_encoder(self, session: str) -> MapT:
        """Return to the encoder that was active before, as it was then."""
        return self._map(session_call("POST", session, "/encoder/rollback", timeout=90.0))

    def promote_encoder(self, session: str, encoder: str) -> MapT:
        """Make a shadow the active encoder."""
        return self._map(session_call("POST", session, "/encoder/promote", body={"name": encoder}, timeout=90.0))

    def remove_shadow_encoder(self, session: str, encoder: str) -> MapT:
        """Let a shadow among the encoders go."""
        return self._map(session_call("DELETE", session, f"/encoder/{quote(encoder, safe='')}"))

    def fits(self) -> ListT:
        """Every fit job that the server keeps, oldest first, without its loss curve."""
        return self._list(Call("GET", "/v1/fits"), "fits")

    def fit(self, fit: str) -> MapT:
        """A fit job: its state, progress, loss curve, held-out metrics, and the version that it made."""
        return self._map(Call("GET", f"/v1/fits/{quote(fit, safe='')}"))

    def start_fit(
        self, request: Map, arrays: bytes | None = None, activate: Activation = "none", session: str | None = None
    ) -> MapT:
        """Fit a model; `fit` says how it goes.

        request: at least name, kind and, unless there are arrays, source. arrays: an NPZ file with the data. activate:
        as what a session is to use the result; session: which, by default that of a live source.
        """
        params = {"activate": activate, "session": session}
        if arrays is None:
            return self._map(Call("POST", "/v1/fits", params, body=request))
        return self._map(Call("POST", "/v1/fits", params, form=upload_form(request, arrays), timeout=120.0))

    def cancel_fit(self, fit: str) -> MapT:
        """Cancel a fit job that waits or runs."""
        return self._map(Call("DELETE", f"/v1/fits/{quote(fit, safe='')}"))

    def resume_fit(self, fit: str) -> MapT:
        """Have a fit job go on that was interrupted, or whose process died; it keeps its id."""
        return self._map(Call("POST", f"/v1/fits/{quote(fit, safe='')}/resume"))
