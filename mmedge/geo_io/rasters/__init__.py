"""Raster files: headers, windows read by threads, bands on the reference grid."""
