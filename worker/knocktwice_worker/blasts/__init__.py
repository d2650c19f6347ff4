"""Blasts: one notification to everybody in a segment.

It asks the audience who belongs, cuts these people into pages, and hands each page to the pipeline as a batch like any
other. It also says beforehand what a blast would cost, and starts the recurring ones. It may use notifications, the
audience and what is below them. It must not know Celery, privacy or the wiring: what publishes a task and what sends a
batch is handed in.
"""
