"""A fit process in a fork of one that has imported everything already, PyTorch above all, which takes 4 s of CPU.

Run by `runpy.run_path`, with `fit`: its arguments, and the files that are its standard streams.
"""

import os
import runpy
import sys

fit = globals()["fit"]
for descriptor, flags in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
    os.dup2(os.open(fit["streams"][descriptor], flags), descriptor)
sys.argv[1:] = fit["arguments"]
runpy.run_module("neuroloop.training", run_name="__main__", alter_sys=True)
