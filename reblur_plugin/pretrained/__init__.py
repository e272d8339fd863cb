"""Weights that have a name: our own, which lie in this folder, and others', which are fetched."""
