"""Diagnosis: whether an installation works, told in time even while its servers hang. The checks of
``knocktwice doctor``.
"""
