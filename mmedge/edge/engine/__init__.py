"""TensorRT engines: who builds them, from what, and what they belong to."""
