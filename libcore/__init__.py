"""The Local Interaction Basis as pure functions: sections in, interaction graph out.

`lib.py` is the algorithm box of the paper; `sections/` holds what is known in closed form; `differentiation.py` is the
reference for everything else.
"""
