"""Clips: the arrays that pass between rooms, and the doors through which a video file comes and goes."""
