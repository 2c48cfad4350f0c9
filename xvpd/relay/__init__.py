"""Moving bytes between a client's leg and a tunnel."""
