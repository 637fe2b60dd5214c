"""Public benchmarks with several sensors: how each is read and split, and how methods are trained and scored on them.

They belong to nobody's installation: some of the data may be used for evaluation only, and no pixel is kept here.
"""
