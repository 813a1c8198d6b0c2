"""The pocket driver: the text-to-video pocket grown by control blocks that follow maps, and how they are trained."""
