"""The benchmark behind ``mutmeta bench``: our engine against learn2learn's loop, in one run.

``cases`` sets up what is compared, ``measure`` times it and counts memory, ``latency`` times the
adaptation to one protein, ``report`` holds the bars and makes the record.
"""
