"""How well bundles retrieve, on sets of pairs, clean and under shift, and how that compares.

decoding, embedding, vector_cache    sets to vectors: in order, in bounded memory, kept
ranks, hits                          a query's rank of what it should have found, by blocks of similarities
metrics, collapse, alignment         recall, median rank, mAP with intervals; is the embedding healthy, why not
evaluate, bundles                    a bundle on sets; bundles side by side
compare, comparison                  paired differences; means over corruptions
zero_shot, zero_shot_run             classes by templates
report, charts, *_tables             JSON, PNG, tables; ../page makes the HTML
shifts                               what reports say about conditions
short_queries                        P@1, hit@5 and mAP of short queries, asked as a bundle asks them
progress                             how far it is
"""
