"""The doors for those who ask for console URLs, and for those who watch over xvpd."""
