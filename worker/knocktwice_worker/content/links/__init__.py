"""Signed addresses that messages carry: short links that lead somewhere, and addresses at which a push is confirmed."""
