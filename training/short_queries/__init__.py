"""Short queries, as people type them: one to four words, a noun, bare or with an adjective or a verb.

phrases     the phrases that a text mentions: "dog", "black dog", "dog running"
draw        queries that a set holds and queries that it does not, by what its captions say
lists       the drawn lists of the sets that figures are given for, and their form on disk
measure     P@1, hit@5 and mAP of short queries, asked as a bundle asks them
memory      what training shows of phrases          choose    templates, and how strongly a memory acts
store       into a bundle, and on to the next       command   python -m training queries, short-queries
*.txt       the words: nouns with what shows them, adjectives, verbs, and phrases that occur in captions
drawn/      the lists
"""
