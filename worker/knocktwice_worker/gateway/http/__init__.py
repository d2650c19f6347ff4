"""What bounds a request before anybody looks at what it says: its head, its body, and how many come from one address."""
