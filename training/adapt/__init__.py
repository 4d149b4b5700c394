"""Suits a bundle to a domain, from its images and queries alone, and says what that gained and what it cost.

    sets          target, queries and source, parted into what is learned from and what is measured on
    closed_form   centring, whitening, CORAL: means and weights from embeddings
    batchnorm     AdaBN: the norms' statistics, estimated anew
    heads         pseudo-pairs and few-shot: the heads, with replay of the source
    methods       what each name does to a candidate, and in which order
    acceptance    target gain and source loss with their intervals, over splits too, and the verdict
    proxies       what can be said without labels, and how far it can be trusted
    choosing      `--method auto`
    towers        the towers of a candidate, with their embeddings
    bundles       an adapted candidate to a bundle, and back to its parent      parent   what is kept of that
    adapt         ties these together

Knows evaluation's parts; nothing of `fit`, indexes or serving.
"""
