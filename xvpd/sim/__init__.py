"""A simulated XenServer pool in this process, on loopback addresses: for a first run, demonstrations and tests.

It speaks the real wire formats; `xvpd.sim.pool.SimulatedPool` is the way in.
"""
