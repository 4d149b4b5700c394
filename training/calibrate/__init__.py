"""Raw cosine to relevance in [0, 1], and "nothing here matches".

    absent       queries about what a gallery does not hold
    draws        galleries of many sizes to fit on        logistic   the fit itself
    figures      reliability, calibration error, precision and recall of "nothing here matches"
    calibrate    ties these together                      report     what it tells
    run          a bundle and its sets to a calibration   command    python -m training calibrate

What it fits lies in `encoders.calibration`, where serving reads it.
"""
