"""What has no network in it: argument checks, random numbers, files, results, progress."""
