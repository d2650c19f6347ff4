"""The brake: sees within minutes that far more people than usual would fall back, and holds their SMS.

A lapsed APNs key, a receipt endpoint that is down, or a release of the app that reports nothing look like a thousand
people who did not get their push; SMS pumping looks like people who sign up. Such SMS wait as rows until an operator
releases or drops them.
"""
