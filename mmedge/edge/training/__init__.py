"""Training: tiles and labels, missingness samplers, the fitting loop (torch)."""
