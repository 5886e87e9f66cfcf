"""Exact and near copies of images, inside a data folder and between any number of them."""
