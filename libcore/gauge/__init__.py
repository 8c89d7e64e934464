"""The gauge of a basis: what of its features may be mixed without changing what they say of the model (METHOD.md 6)."""
