"""One module a family of published formats; each turns a spec into a stream of `ListedImage`.

A reader knows its format and nothing of the disk beyond the files of the spec: whether an image exists,
which ids are wanted and how many, is `training.data.pairs`' business.
"""
