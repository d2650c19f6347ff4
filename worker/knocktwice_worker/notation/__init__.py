"""Notation: how people write things down in files and options, read and written back. It knows no other room."""
