"""The command line: ``knocktwice …``, one file per group of commands.

It reads arguments, asks the rooms, and prints; ``output.py`` says how. It may use every room and, like an application,
the producer. Nothing may use it.
"""
