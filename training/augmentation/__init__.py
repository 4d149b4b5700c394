"""What an image may look like in training.

    augment    one random view of an image: framing, light, colour, lens and sensor, resolution, compression
    presets    augmentations by name, and which kinds of corruption each trains on
    sheet      a contact sheet of views            command   python -m training augment

Knows images; neither captions nor towers.
"""
