"""Pairs of images and captions from the formats they are published in, and what is checked about them.

    pairs        a spec ("karpathy:FILE:test") to a set of pairs; readers/ has one module a family of formats
    labelled     images with classes instead of captions; templates  texts with {} for a class's name
    captions     which captions are the same
    leakage      test images that stand in a training set, by photo id or as nearly the same image

Knows files and images; no towers.
"""
