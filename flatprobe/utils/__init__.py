"""Tools without networks: arguments, random numbers, files, results, search."""
