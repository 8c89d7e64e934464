"""Figures of a run and of the report: one file per kind of figure, one style for all.

Nothing is imported here, so that matplotlib is loaded by what plots and by nothing else.
"""
