"""What an operator needs of a running daemon: its live sessions, its records, its numbers."""
