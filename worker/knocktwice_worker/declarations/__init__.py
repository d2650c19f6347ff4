"""Declarations: templates, segments and recurring blasts as an operator's file declares them, and what applying it changes.

It may use the rooms that own these things, and the notation of such files. It must not know the wiring: a file is
applied in a transaction that is handed in.
"""
