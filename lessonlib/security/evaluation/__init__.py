"""Measured figures of the defences, with the data they were measured on."""
