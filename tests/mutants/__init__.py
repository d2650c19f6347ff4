"""Breaks the program in small ways, one at a time, and asks the tests whether they notice."""
