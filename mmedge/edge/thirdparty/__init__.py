"""A third party's ONNX network as a bundle: read without trust, measured, wrapped, described."""
