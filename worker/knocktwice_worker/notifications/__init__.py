"""Notifications: a step that follows another until the person is reached, from the accepted message to the last report."""
