"""Tiny configurations of the real diffusers classes, and how `assets/pocket` was made.

Knows the driving world, the words, torch, diffusers and transformers. Refuses to know the other models and methods,
presets, runs, and the page. Importing this package loads none of them.
"""
