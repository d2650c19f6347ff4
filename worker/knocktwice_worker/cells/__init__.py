"""Cells: what an installation does with the others that share its people: tells them opt-outs, and agrees whose is
what.

The room may import the producer, because to another cell this one is an application that accepts what it is told. It
writes nothing into another cell's database, and reads there only what a wiped Redis must count anew.
"""
