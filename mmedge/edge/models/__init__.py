"""Networks for missing modalities, one file a paper (torch)."""
