"""Multimodal models under one small protocol: one module a family, `opening.open_model` picks it by the config's class.

The face is light: nothing here loads torch.
"""
