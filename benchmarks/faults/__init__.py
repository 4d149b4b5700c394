"""What the service must survive, put on it for real: run by hand, each with its own exit status."""
