"""Short queries, as people type them: one to four words, a noun, bare or with an adjective or a verb.

phrases     the phrases that a text mentions: "dog", "black dog", "dog running"
draw        queries that a set holds and queries that it does not, by what its captions say
lists       the drawn lists of the sets that figures are given for, and their form on disk
natural     phrases.txt from captions
*.txt       the words: nouns with what shows them, adjectives, verbs, and phrases that occur in captions
drawn/      the lists
"""
