"""From a scanned mesh to an object that simulates."""
