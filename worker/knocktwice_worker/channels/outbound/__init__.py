"""How requests leave: the HTTP engine that carries them, the pace that all workers share, and the choice among providers.

It may import what channels may. It must not know any channel or provider by name.
"""
