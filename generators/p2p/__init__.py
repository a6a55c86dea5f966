"""Prompt-to-prompt (Hertz et al. 2022, arXiv 2208.01626): alignment of words, the plan of an edit, the processors."""
