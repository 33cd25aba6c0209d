"""The visible checks, one module per lesson: ``EXERCISES``, and nothing heavy at import."""
