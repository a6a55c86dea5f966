"""Order, retries and settings at the door: the only place that knows Prefect.

The face is light: ask for the heavy parts by name, e.g. ``from flows.settings import load_spec``.
"""
