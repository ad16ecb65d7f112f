"""Finds finished exposures and registers them."""
