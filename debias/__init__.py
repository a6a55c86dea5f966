"""Measuring and reducing social bias: one method a module, one function per formula.

The face is light: ask for the parts by name; nothing here loads torch.
"""
