"""What is written: a map's rasters, picture and STAC item, all or none; polygons, mosaics, collections."""
