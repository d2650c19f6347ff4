"""The way of a notification, one file per step of it.

``push`` accepts and pushes, ``fallback`` decides, ``later_steps`` sends what follows, ``reconcile`` settles unclear
outcomes, ``receipts``, ``cancellation`` and ``delivery_reports`` take in news, ``withdraw`` clears screens. Each class
names what it needs; ``services.py`` builds it.

It decides nothing by itself that ``lifecycle`` can decide, and writes nothing: ``store`` does. It may import the store,
``limits``, ``content``, ``audience`` and the seams of ``channels``; it must not know Celery or the container.
"""
