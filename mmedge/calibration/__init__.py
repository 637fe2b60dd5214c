"""Calibration over availabilities: sampling, observers, scales, quantization."""
