"""Bundles averaged weight by weight: WiSE-FT between two, soups of several.

blend      the average itself, and the card of what it was made of
measured   alphas side by side on a set
"""
