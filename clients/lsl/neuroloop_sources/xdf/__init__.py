"""XDF, the file format of LabRecorder: what its bytes mean, and a reader by range. Pure file code: no LSL, no threads.

A file is `XDF:` and then chunks: [length][tag][content]. See https://github.com/sccn/xdf/wiki/Specifications.
"""
