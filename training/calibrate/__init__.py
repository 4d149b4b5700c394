"""Scores to relevance in [0, 1], and to match, unsure or nothing.

    absent       queries about what a gallery does not hold
    asked        what held-out sets can be asked       pages     first pages in galleries of many sizes
    fit          weights and levels from pages         logistic  the fit itself
    figures      calibration error, and how often "nothing" is right, or a match
    calibrate    sets to a calibration                 run       an encoder and sets to one, in its bundle
    measure      a calibration on a set it never saw   report    what it tells

What it fits lies in `encoders.calibration`, where serving reads it.
"""
