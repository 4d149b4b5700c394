"""What images and captions are changed by when a bundle is tested under other conditions.

    corruptions         of images, in five severities each; light   linear light, which some of them work in
    text_corruptions    of captions
    input_sizes         the image tower at another size
    condition           what a set was changed by
    conditions          the command line's names and severities to conditions

Pure and seeded; measures nothing: `evaluate` does.
"""
