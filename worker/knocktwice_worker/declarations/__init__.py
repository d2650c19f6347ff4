"""Declarations: templates, segments and recurring blasts in an operator's file, and the changes by applying it.

It may use the rooms that own these things, and the notation of such files. It must not know the wiring: a file is
applied in a transaction that is handed in.
"""
