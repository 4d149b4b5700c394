"""The report as one HTML page that opens from disk: no script, no resource beside it.

    markup      elements whose text is escaped unless it is markup already
    summary     the plain-language sentences on top, with their numbers
    svg         charts, in the page's own colours (light and dark)
    tables      heat maps and tables
    failures    queries that went wrong: their ranks, from embeddings, and small images
    parts       what every section is made of
    sections    one function a section of the page; shift_sections, example_sections, calibration_section
    document    the page; page.css its looks
    inputs      all that it is made of, measured elsewhere; writing: from an evaluation to them, and to the file

Knows reports and embeddings; measures nothing but which queries failed.
"""
