#!/bin/sh
# Runs `neuroloop`, with a configuration file of liblsl made from the environment: LSL_KNOWN_PEERS, hosts that multicast
# does not reach, separated by spaces or commas, and LSL_SESSION_ID. Without either, liblsl's own configuration holds.
set -eu

if [ -n "${LSL_KNOWN_PEERS:-}${LSL_SESSION_ID:-}" ]; then
  folder=${TMPDIR:-/tmp}
  if [ -w "$folder" ]; then LSLAPICFG=$(mktemp -d -p "$folder")/lsl_api.cfg; else LSLAPICFG=$PWD/.lsl_api.cfg; fi
  peers=$(echo "${LSL_KNOWN_PEERS:-}" | tr ',' ' ' | xargs | sed 's/ /, /g')
  {
    echo "[lab]"
    [ -z "${LSL_SESSION_ID:-}" ] || echo "SessionID = $LSL_SESSION_ID"
    # Peers are asked soon after multicast, not half a second later.
    [ -z "$peers" ] || printf 'KnownPeers = {%s}\n[tuning]\nMulticastMinRTT = 0.05\n' "$peers"
  } > "$LSLAPICFG"
  export LSLAPICFG
fi
exec neuroloop "$@"
