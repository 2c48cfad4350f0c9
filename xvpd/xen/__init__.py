"""Pools, hosts and their VMs' consoles: finding them, and dialling them."""
