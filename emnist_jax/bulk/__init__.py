"""Bulk jobs: many files of images, one output a file, on one machine or on a cluster.

`places` finds, fetches and places files, `shards` does one of them, `index` knows what
is done, `engine` maps the one over the other.
"""
