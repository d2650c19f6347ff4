"""The inbox: what producers were promised and is not written yet, and messages that nobody can process."""
