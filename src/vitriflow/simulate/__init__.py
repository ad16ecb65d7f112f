"""A microscope that isn't there."""
