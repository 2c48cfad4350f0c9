"""Connections: TCP and TLS legs, and the contexts that they are made with."""
