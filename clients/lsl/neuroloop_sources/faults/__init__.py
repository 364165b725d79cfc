"""What can go wrong between an amplifier and the server, on purpose: a proxy with faults, and an account of them."""
