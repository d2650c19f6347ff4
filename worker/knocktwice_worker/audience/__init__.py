"""The audience: who people are, and whether they may be texted.

People with their devices, numbers, tags and consent; segments of them; opt-outs and what people write back; who was
erased. It may use the database, the limits' notion of countries and zones, and settings. It must not know
notifications, providers or how a message is sent.
"""
