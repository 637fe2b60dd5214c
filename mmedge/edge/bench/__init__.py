"""Measurements of a bundle on a machine, and their reports."""
