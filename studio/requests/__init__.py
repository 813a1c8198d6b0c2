"""Requests: all that is needed to do a piece of work again, and how it is held against a preset."""
