"""The page: one file per tab, `components/` for what Gradio does not have, `guard.py` for what it lets through.

Calls verbs and reads words. Refuses to know torch, diffusers and ray: the work is done in the queue's own process.
"""
