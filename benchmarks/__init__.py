"""Our engine beside other people's, on the same weights, in one run. Start with ``python -m benchmarks --help``."""
