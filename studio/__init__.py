"""Dailies: an interactive studio for fast, memory-lean video diffusion.

Importing this package costs nothing: no torch, no diffusers, no gradio, no device, no download.
"""

__version__ = "0.1.0"
