"""The wall of phones: the sandbox's page, on which people see what knocktwice does and play every part in it.

``view`` turns the sandbox's books into what the page shows, ``application`` is the application behind the phones,
``clock`` moves the time, ``routes`` serves the page. The page itself is one document, one script and one style sheet.
"""
