"""The door: what a client says, what it is answered, and how it gets to its console."""
