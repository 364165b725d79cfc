#!/bin/sh
# Runs `neuroloop`, with a configuration file of liblsl made from the environment: LSL_KNOWN_PEERS, hosts that multicast
# does not reach, separated by spaces or commas, and LSL_SESSION_ID. Without either, liblsl's own configuration holds.
set -eu

if [ -n "${LSL_KNOWN_PEERS:-}${LSL_SESSION_ID:-}" ]; then
  LSLAPICFG=$(mktemp -d)/lsl_api.cfg || LSLAPICFG=$(mktemp -d -p .)/lsl_api.cfg
  peers=$(echo "${LSL_KNOWN_PEERS:-}" | tr ',' ' ' | xargs | sed 's/ /, /g')
  {
    echo "[lab]"
    [ -z "${LSL_SESSION_ID:-}" ] || echo "SessionID = $LSL_SESSION_ID"
    [ -z "$peers" ] || echo "KnownPeers = {$peers}"
  } > "$LSLAPICFG"
  export LSLAPICFG
fi
exec neuroloop "$@"
