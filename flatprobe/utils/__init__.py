"""Tools that know no network: argument checks, random numbers, files, results, search, progress."""
