"""What a bundle has seen: hashes of the images that it was trained on and chosen by, kept in the bundle itself.

record      the file, made from sets of pairs, merged from parents
sources     that file for a bundle from before there was one
exposure    a set compared with it: seen, partly seen, unseen, or not looked for
"""
