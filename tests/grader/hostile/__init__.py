"""Cells that students with bad intentions hand in. Each says what it tries; the tests say what it gets."""
