"""Panels: parts of tabs that have a life of their own."""
