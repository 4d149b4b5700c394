"""A bundle's own bank of queries: what keeps hubs from coming up for everything, wherever it serves.

    bank       pairs drawn from sets to a query bank; its strength and reach chosen on other sets

The bank's arithmetic is `encoders.query_bank`. A bank of one domain's own queries is `adapt --method hubness`.
"""
