"""Secure aggregation: sums across sites of which nobody, the coordinator included, sees a single site's value.

Double masking after Bonawitz et al. 2017 (Practical secure aggregation for privacy-preserving machine learning,
doi 10.1145/3133956.3133982), for 3 to 30 hospitals: every pair of sites shares a mask, and each site has one of its
own; what opens them is shared out among the sites with the value itself, so that a sum costs two requests.
"""
