"""What a picture may look like in training.

    augment    one random view of a picture: framing, light, colour, lens and sensor, resolution, compression
    presets    augmentations by name, and which kinds of corruption each trains on
    sheet      a contact sheet of views            command   python -m training augment

Knows pictures; neither captions nor towers.
"""
