"""What an image may look like in training.

augment    one random view of an image: framing, light, colour, lens and sensor, resolution, compression
presets    augmentations by name, and which kinds of corruption each trains on
"""
