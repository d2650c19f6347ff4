"""Content: what is said, in which language, filled in with a person's values.

Templates and what they allow, the rendering of texts, plans of steps, and how many parts an SMS has. It may use the
database for templates, and the notation of files. It must not know who gets a message, nor how it is sent.
"""
