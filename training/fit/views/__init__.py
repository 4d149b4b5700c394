"""Images and captions as a step gets them: augmented, through what is frozen, kept on disk.

views          an image's views, through the frozen stem         activations   where they are kept
kept_texts     captions through a frozen text tower
feeds          hands a batch of either to the step, kept or fresh
"""
