"""`neuroloop doctor`: what keeps a server of this machine from its streams, its files and its time, and what to do."""
