"""From a spec to scored counterfactual sets: words, plan, prompt-to-prompt, scores and verdicts.

The face is light: ask for the heavy parts by name, e.g. ``from generators.plan import make_plan``.
"""
