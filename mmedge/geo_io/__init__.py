"""Rasters and point clouds in, maps out. Never torch, onnx, tensorrt or openvino."""
