"""Rivals as diffusers has them, one method a file, put on a run's transformers so that they really work."""
