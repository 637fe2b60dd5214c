"""Sensor failures: how they are detected, and how they are simulated."""
