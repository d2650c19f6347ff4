"""The workers of knocktwice. ``celery -A knocktwice_worker worker`` finds the application in ``celery.py``."""
