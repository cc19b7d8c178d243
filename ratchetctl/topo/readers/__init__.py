"""One module for each format, all alike: a tree goes in, a topology comes out."""
