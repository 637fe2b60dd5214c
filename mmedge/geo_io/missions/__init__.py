"""Products as their missions deliver them: Sentinel-1, Sentinel-2, Landsat."""
