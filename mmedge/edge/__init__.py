"""Models, compilation, runtimes and the inference pipeline."""
