"""The tab in Flower: what became of notifications, why, and what operators do about it, read from PostgreSQL.

``celery -A knocktwice_worker flower`` has it; Flower's menu, look, login and ``--url-prefix`` hold for it, too.
"""
