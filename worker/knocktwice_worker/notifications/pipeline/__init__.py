"""The pipeline: one file per stage of a notification's life.

``push`` accepts batches: ``push_texts`` writes their pushes, ``push_delivery`` hands them to the provider. ``fallback``
decides about steps that are due: ``fallback_texts`` writes their messages, ``fallback_gates`` takes out those that must
not go. ``later_claims`` claims messages and ``later_steps`` sends them; ``reconcile`` settles unknown outcomes.
``receipts``, ``cancellation`` and ``delivery_reports`` take in events, and ``withdraw`` takes pushes off screens. Each
class names the values that it needs; ``services/parts.py`` builds it.

The room leaves decisions to ``lifecycle`` and all writing to ``store``. It may import the store, ``limits``,
``content``, ``audience`` and the interfaces of ``channels``; it must not know Celery or the container.
"""
