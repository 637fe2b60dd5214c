"""LiDAR point clouds: LAS, LAZ, COPC and EPT files, and their points in the cells of a grid."""
