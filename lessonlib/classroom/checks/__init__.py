"""The visible checks, one folder per lesson: ``EXERCISES``, and nothing heavy at import."""
