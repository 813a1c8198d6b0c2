"""Remote: the same verbs where somebody else's graphics card does the work."""
