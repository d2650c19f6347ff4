"""The title or device name that ends the workers of :mod:`support.poisoned_worker`; importing it breaks nothing."""

POISON = "poison"
