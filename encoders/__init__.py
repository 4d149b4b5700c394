"""Images or texts to unit vectors: the only code that training, index and service share."""
