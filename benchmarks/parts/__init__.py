"""What both benchmarks and tests make: small models, and catalogues that have them."""
